//! A peer that is too fast or too slow, and its neighbours.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::auth::Open;
use switchboard::config::Limits;
use switchboard::router::explain::SenderPaused;
use switchboard::router::{Door, Given, RequestId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, advance};
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, Refusal, decode};

use super::{Broker, CLOSE, PING, PONG, TEXT, command, event, frame, limits, text};

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_warned_and_closed() {
    let broker = Broker::new(Limits { outbound_messages: 100, ..limits() });
    let mut slow = broker.app("slow", 1000).await;
    slow.subscribe().await;
    let mut fast = broker.app("fast", 1 << 20).await;
    for number in 0..400 {
        fast.say(&event(number, 200)).await;
    }
    // What it had begun to take, the warning, and the Close frame come if it takes up again in time.
    advance(Duration::from_millis(5500)).await;
    let mut last = Value::Null;
    let code = loop {
        match slow.frame().await {
            (TEXT, text) => last = serde_json::from_slice(&text).unwrap(),
            (CLOSE, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
            _ => {}
        }
    };
    assert_eq!(code, 4413);
    assert_eq!((&last["channel"], &last["subtopic"]), (&json!("Broker"), &json!("Lagging")));
    // Nobody else is harmed.
    fast.say(&command("Connection", "Ping", &json!({}))).await;
    assert_eq!(fast.next().await["data"]["Success"], true);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_a_little_now_and_then_is_no_slow_consumer() {
    let broker = Broker::new(limits());
    let mut slow = broker.app("slow", 64).await;
    slow.subscribe().await;
    let mut fast = broker.app("fast", 1 << 20).await;
    for number in 0..20 {
        fast.say(&event(number, 200)).await;
    }
    for number in 0..20 {
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(4)).await;
        assert_eq!(slow.next().await["data"]["n"], number);
    }
    drop(slow.stream);
    slow.task.unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_by_reading_more_slowly() {
    let broker = Broker::new(Limits { rate: 10, burst: 10, ..Limits::default() });
    let mut listener = broker.app("listener", 1 << 20).await;
    listener.subscribe().await;
    let mut app = broker.app("app", 1 << 20).await;
    let start = Instant::now();
    for number in 0..110 {
        app.say(&event(number, 1)).await;
    }
    for number in 0..110 {
        assert_eq!(listener.next().await["data"]["n"], number);
    }
    assert!((9..=11).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_question_counts_as_many_messages() {
    let broker = Broker::new(Limits { rate: 100, burst: 200, ..Limits::default() });
    let mut app = broker.app("app", 1 << 20).await;
    let question = json!({"envelope": {"channel": "Demo", "topic": "Hello", "subtopic": "World"}});
    let start = Instant::now();
    for _ in 0..22 {
        app.say(&command("Message", "Explain", &question)).await;
    }
    for _ in 0..22 {
        assert_eq!(app.next().await["data"]["Verdict"], "EVENT");
    }
    assert!((19..=21).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

/// Waits until explain says why the session of this source is not being read.
async fn paused(broker: &Broker, source: &str) -> SenderPaused {
    let text = event(0, 1).to_string().replace("data", "payload");
    let envelope = decode(&text, DecodeLimits::default()).unwrap();
    for _ in 0..10_000 {
        let sender = broker.router.sender(source, None).unwrap();
        let answer = broker.router.explain(Instant::now().into_std(), &sender, &envelope, None);
        if let Some(paused) = answer.sender_paused {
            return paused;
        }
        tokio::task::yield_now().await;
    }
    panic!("'{source}' is being read");
}

#[tokio::test(start_paused = true)]
async fn explain_says_why_a_sender_is_not_being_read() {
    let broker = Broker::new(Limits { rate: 10, burst: 10, ..Limits::default() });
    let mut quick = broker.app("quick", 1 << 20).await;
    for number in 0..12 {
        quick.say(&event(number, 1)).await;
    }
    assert_eq!(paused(&broker, "quick").await, SenderPaused::Rate);
    let broker = Broker::new(Limits { outbound_messages: 8, ..limits() });
    let mut slow = broker.app("slow", 64).await;
    slow.subscribe().await;
    let mut sender = broker.app("sender", 1 << 20).await;
    for number in 0..30 {
        sender.say(&event(number, 200)).await;
    }
    assert_eq!(paused(&broker, "sender").await, SenderPaused::Pressure);
}

#[tokio::test(start_paused = true)]
async fn a_session_over_its_rate_of_bytes_is_read_more_slowly() {
    let (rate_bytes, burst) = (10_000, 20_000);
    let broker = Broker::new(Limits { rate_bytes, message_bytes: burst, ..limits() });
    let mut listener = broker.app("listener", 1 << 20).await;
    listener.subscribe().await;
    let mut app = broker.app("app", 1000).await;
    let start = Instant::now();
    let mut sent = 0;
    for number in 0..120 {
        let message = text(&event(number, 1000));
        sent += message.len();
        app.send(&message).await;
    }
    for number in 0..120 {
        assert_eq!(listener.next().await["data"]["n"], number);
    }
    let expected = f64::from(u32::try_from(sent - burst).unwrap()) / f64::from(rate_bytes);
    let took = start.elapsed().as_secs_f64();
    assert!((expected - 0.5..expected + 0.5).contains(&took), "{took} s, not {expected}");
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_bytes_that_a_reload_sets_counts_from_then_on() {
    let broker = Broker::new(limits());
    let mut app = broker.app("app", 1 << 20).await;
    for number in 0..200 {
        app.send(&text(&event(number, 10_000))).await;
    }
    app.say(&command("Connection", "Ping", &json!({}))).await;
    assert_eq!(app.next().await["subtopic"], "Ping");
    let reload = |rate_bytes| {
        broker.settings.replace_limits(Limits { rate_bytes, message_bytes: 20_000, ..limits() });
        broker.router.review(Instant::now().into_std(), &Open);
    };
    reload(10_000);
    for _ in 0..2 {
        let start = Instant::now();
        app.say(&command("Connection", "Ping", &json!({}))).await;
        assert_eq!(app.next().await["subtopic"], "Ping");
        assert!(start.elapsed() < Duration::from_secs(1), "what was sent before is not counted");
    }
}

/// Pings and empty fragments cost the broker work, before registration too.
#[tokio::test(start_paused = true)]
async fn pings_and_empty_fragments_count_against_the_rate() {
    let fragments: Vec<u8> = [frame(0x01, b""), frame(0x00, b"").repeat(108), frame(0x80, b"{}")].concat();
    for flood in [frame(PING, b"").repeat(110), frame(PONG, b"").repeat(110), fragments] {
        for registers in [false, true] {
            let broker = Broker::new(Limits { rate: 20, burst: 10, ..Limits::default() });
            let mut app = broker.connect(1 << 20);
            if registers {
                app.register("app").await;
            }
            let start = Instant::now();
            app.send(&flood).await;
            app.say(&command("Connection", "Ping", &json!({}))).await;
            loop {
                let (first, payload) = app.frame().await;
                if first == TEXT && serde_json::from_slice::<Value>(&payload).unwrap()["subtopic"] == "Ping" {
                    break;
                }
            }
            assert!((5..=6).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_messages_that_come_at_once_keep_their_order() {
    let broker = Broker::new(limits());
    let mut listener = broker.app("listener", 1 << 20).await;
    listener.subscribe().await;
    let mut app = broker.app("app", 1 << 24).await;
    let all: Vec<u8> = (0..5000).flat_map(|number| text(&event(number, number % 300))).collect();
    app.send(&all).await;
    for number in 0..5000 {
        assert_eq!(listener.next().await["data"]["n"], number);
    }
}

/// A peer that always has more to read: pongs without end.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut task::Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let pong = frame(PONG, b"");
        while buffer.remaining() >= pong.len() {
            buffer.put_slice(&pong);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The task of a connection that always has something to do lets others on its thread run.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flood_without_end_does_not_keep_a_neighbour_from_being_served() {
    let broker = Broker::new(limits());
    let mut neighbour = broker.app("neighbour", 1 << 16).await;
    // It ends by itself, because it does not register in time.
    let flood = broker.serve(Endless, Arc::new(Open), Arc::default());
    neighbour.say(&command("Connection", "Ping", &json!({}))).await;
    assert_eq!(neighbour.next().await["subtopic"], "Ping");
    assert!(!flood.is_finished(), "the neighbour was served only after the flood");
    flood.abort();
}

/// A request to it takes 300 microseconds of the publisher's burst.
struct Work;

impl Door for Work {
    fn offer(&self, _: Given) -> Result<(), Refusal> {
        // The clock moves at the first poll.
        let advanced = pin!(advance(Duration::from_micros(300)));
        assert!(advanced.poll(&mut task::Context::from_waker(Waker::noop())).is_pending());
        Ok(())
    }

    fn withdraw(&self, _: RequestId, _: &Refusal) {}
}

/// How many of the events are there when the first one is, if each takes longer than a burst.
async fn events_at_once(count: usize) -> usize {
    let broker = Broker::new(limits());
    let now = Instant::now().into_std();
    let adapter = broker.router.attach_handler(now, Arc::new(Work));
    let role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
    let pattern = "Work/*/*".parse().unwrap();
    broker.router.subscribe(now, &adapter, &Subscribe::new(pattern, role), |_| None).unwrap();
    let mut receiver = broker.app("receiver", 1 << 20).await;
    receiver.subscribe().await;
    let mut publisher = broker.app("publisher", 1 << 20).await;
    let work = json!({"channel": "Work", "topic": "Hard", "subtopic": "Do"});
    let messages: Vec<u8> = (0..count).flat_map(|number| [text(&event(number, 1)), text(&work)].concat()).collect();
    publisher.send(&messages).await;
    let mut bytes = vec![0; 1 << 16];
    let read = receiver.stream.read(&mut bytes).await.unwrap();
    let found = bytes[..read].windows(4).filter(|it| it == b"\"n\":").count();
    // The rest arrives too.
    let mut rest = found;
    while rest < count {
        let read = receiver.stream.read(&mut bytes).await.unwrap();
        rest += bytes[..read].windows(4).filter(|it| it == b"\"n\":").count();
    }
    found
}

#[tokio::test(start_paused = true)]
async fn receivers_are_woken_after_a_few_bursts_of_a_publisher_and_not_after_each() {
    assert_eq!(events_at_once(5).await, 5);
    let found = events_at_once(40).await;
    assert!((12..=16).contains(&found), "{found} events within some 4 ms");
}

#[tokio::test]
async fn receivers_are_woken_when_their_publisher_falls_silent() {
    let broker = Broker::new(limits());
    let mut receiver = broker.app("receiver", 1 << 20).await;
    receiver.subscribe().await;
    let mut publisher = broker.app("publisher", 1 << 20).await;
    // How much of this is handled in one burst is a matter of time, so sometimes the last message is the last of its burst.
    for round in 0..60 {
        let count = 2 + round % 10;
        let batch: Vec<u8> = (0..count).flat_map(|number| text(&event(number, 2500))).collect();
        publisher.send(&batch).await;
        for number in 0..count {
            let received = tokio::time::timeout(Duration::from_secs(5), receiver.next()).await;
            assert_eq!(received.expect("nobody has woken the receiver")["data"]["n"], number, "round {round}");
        }
    }
}
