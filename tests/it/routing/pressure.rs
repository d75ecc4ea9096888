//! Nothing is lost because someone is fast, and a slow client harms only itself (protocol.md, Pressure).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Broker, Peer, envelope};

const BIG: &str = "Big/Data/Chunk";
/// Bytes of a payload: big enough that the system's socket buffers are full after a few hundred.
const CHUNK_BYTES: usize = 16 * 1024;
/// Messages of a queue. Its last quarter is wider than what the system's buffers differ by from one run to the next.
const QUEUE: u64 = 1000;

fn chunk(at: u64, last: bool) -> Value {
    envelope(BIG, json!({"id": at.to_string(), "data": {"at": at, "last": last, "fill": "x".repeat(CHUNK_BYTES)}}))
}

/// Publishes chunks until `stop` says so of their count and the receipt's `Receivers`; gives how many, the last marked.
async fn publish_until(sender: &mut Peer, stop: impl Fn(u64, u64) -> bool) -> u64 {
    let mut at = 0;
    loop {
        sender.send(chunk(at, false)).await;
        let receivers = sender.next_receipt(&at.to_string()).await;
        at += 1;
        if stop(at, receivers) {
            sender.send(chunk(at, true)).await;
            sender.next_receipt(&at.to_string()).await;
            return at + 1;
        }
    }
}

/// Reads every chunk up to the last; they have to be in order and without a gap. Gives how many, and the notices between.
async fn read_to_last(reader: &mut Peer) -> (u64, Vec<Value>) {
    let (mut heard, mut notices) = (0, Vec::new());
    loop {
        let message = reader.next().await;
        if message["channel"] == "Broker" {
            notices.push(message);
            continue;
        }
        assert_eq!(message["data"]["at"], heard, "in order, without a gap");
        heard += 1;
        if message["data"]["last"] == true {
            return (heard, notices);
        }
    }
}

fn limits(more: &str) -> String {
    format!("[limits]\nrate = 0\noutbound_bytes = 1073741824\nslow_consumer = \"60s\"\n{more}\n")
}

#[tokio::test]
async fn a_client_that_stops_reading_harms_only_itself() {
    let broker = Broker::open_with(&limits(&format!("outbound_messages = {QUEUE}"))).await;
    let (mut sender, mut stalled) = (broker.app("sender").await, broker.app("stalled").await);
    let mut good = broker.app("good").await;
    stalled.subscribe(BIG).await;
    good.subscribe(BIG).await;
    // After a while the receipts tell that one receiver is left.
    let (sent, (heard, notices)) =
        tokio::join!(publish_until(&mut sender, |_, receivers| receivers == 1), read_to_last(&mut good));
    assert_eq!(heard, sent, "the others get everything");
    assert!(notices.is_empty(), "{notices:?}");
    let (before, code) = stalled.until_closed().await;
    assert_eq!(code, 4413);
    let chunks = before.iter().filter(|it| it["channel"] == "Big");
    assert!(chunks.enumerate().all(|(at, chunk)| chunk["data"]["at"] == at), "what it got is in order");
    assert!(broker.memory_bytes() < 200 << 20, "what was queued for it is given back: {}", broker.memory_bytes());

    // One that reads again in the last quarter was warned, and loses nothing.
    let mut slow = broker.app("slow").await;
    slow.subscribe(BIG).await;
    let almost = sent - QUEUE / 8;
    let sent = publish_until(&mut sender, |at, receivers| {
        assert_eq!(receivers, 2, "closed after {at} messages, at {sent} the time before");
        at == almost
    });
    let (sent, _) = tokio::join!(sent, read_to_last(&mut good));
    let (heard, notices) = read_to_last(&mut slow).await;
    assert_eq!(heard, sent);
    let lagging = notices.iter().find(|it| it["subtopic"] == "Lagging").expect("a warning at three quarters");
    let data = &lagging["data"];
    let keys: Vec<&str> = data.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["Messages", "MessagesMax", "Bytes", "BytesMax"]);
    assert_eq!(data["MessagesMax"], QUEUE);
    assert!(data["Messages"].as_u64().unwrap() >= QUEUE * 3 / 4 - 1, "{lagging}");
}

#[tokio::test]
async fn beyond_the_memory_of_all_queues_the_longest_one_ends() {
    let config = limits("outbound_messages = 100000\noutbound_total_bytes = 8388608");
    let broker = Broker::open_with(&config).await;
    let (mut sender, mut longest) = (broker.app("sender").await, broker.app("longest").await);
    let mut other = broker.app("other").await;
    longest.subscribe(BIG).await;
    other.subscribe("Other/Data/*").await;
    // Neither reads; what waits for the other one is less.
    for at in 0..100 {
        sender.send(envelope("Other/Data/Chunk", json!({"data": {"at": at, "fill": "x".repeat(CHUNK_BYTES)}}))).await;
    }
    publish_until(&mut sender, |_, receivers| receivers == 0).await;
    let (_, code) = longest.until_closed().await;
    assert_eq!(code, 4413);
    for at in 0..100 {
        assert_eq!(other.next().await["data"]["at"], at);
    }
    let log = broker.log();
    assert!(log.contains("all queues exceed limits.outbound_total_bytes"), "{log}");
}

#[tokio::test]
async fn one_that_takes_nothing_for_too_long_is_a_slow_consumer() {
    let config = limits("outbound_messages = 100000").replace("60s", "1s");
    let broker = Broker::open_with(&config).await;
    let (mut sender, mut stalled) = (broker.app("sender").await, broker.app("stalled").await);
    stalled.subscribe(BIG).await;
    // Far fewer than the queue holds.
    publish_until(&mut sender, |at, receivers| receivers == 0 || at == 800).await;
    let start = Instant::now();
    let mut often = tokio::time::interval(Duration::from_millis(50));
    loop {
        often.tick().await;
        sender.send(envelope("Big/Data/Chunk", json!({"id": "probe"}))).await;
        if sender.next_receipt("probe").await == 0 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(15), "it is still a receiver");
    }
    assert_eq!(stalled.until_closed().await.1, 4413);
}

// A thread each: a receiver that waits its turn behind the sender would be a slow one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_faster_than_its_receiver_loses_nothing() {
    /// Far more than a queue of 1,024 holds. At its pace, the receiver reads them in less than the second for which
    /// publishers wait for it in all.
    const EVENTS: u64 = 3000;
    let broker = Broker::open_with("[limits]\nrate = 0").await;
    let (mut sender, mut receiver) = (broker.app("sender").await, broker.app("receiver").await);
    receiver.subscribe("Fast/*/*").await;
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        for at in 0..EVENTS {
            sender.publish("Fast/A/B", json!({"at": at, "fill": "x".repeat(4096)})).await;
        }
        sender.fence().await;
    });
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for at in 0..EVENTS {
        if at % 32 == 0 {
            pace.tick().await;
        }
        let mut event = receiver.next().await;
        while event["subtopic"] == "Lagging" {
            event = receiver.next().await;
        }
        assert_eq!(event["data"]["at"], at);
    }
    sending.join_all().await;
    receiver.expect_nothing().await;
}

#[tokio::test]
async fn drop_oldest_loses_the_oldest_events_counts_them_and_never_a_reply() {
    let config = limits("outbound_messages = 64") + "[channels.Big]\noverflow = \"drop-oldest\"\n";
    let broker = Broker::open_with(&config).await;
    let (mut sender, mut stalled) = (broker.app("sender").await, broker.app("stalled").await);
    stalled.subscribe(BIG).await;
    sender.handle("Ask/A/B").await;
    stalled.ask("Ask/A/B", "early").await;
    let request = sender.next_on("Ask/A/B").await;
    let (mut at, mut answered) = (0, false);
    while at < 1200 {
        sender.send(chunk(at, at == 1199)).await;
        assert_eq!(sender.next_receipt(&at.to_string()).await, 1, "it stays a receiver");
        at += 1;
        if at == 900 && !answered {
            answered = true;
            sender.reply(&request, json!({"data": "kept"})).await;
        }
    }
    let (mut got, mut dropped, mut replies, mut last) = (0, 0, 0, None);
    while last != Some(1199) {
        let message = stalled.next().await;
        match message["channel"].as_str().unwrap() {
            "Big" => {
                let position = message["data"]["at"].as_u64().unwrap();
                assert!(last < Some(position), "in order");
                last = Some(position);
                got += 1;
            }
            "Ask" => replies += 1,
            _ if message["subtopic"] == "Dropped" => dropped += message["data"]["Count"].as_u64().unwrap(),
            _ => assert_eq!(message["subtopic"], "Lagging", "{message}"),
        }
    }
    // A notice may come behind the newest event.
    for message in stalled.drain_events().await {
        if message["subtopic"] == "Dropped" {
            dropped += message["data"]["Count"].as_u64().unwrap();
        }
    }
    assert_eq!(replies, 1, "a reply is never dropped");
    assert!(dropped > 0);
    assert_eq!(got + dropped, 1200, "delivered and told as dropped");
}

#[tokio::test]
async fn a_session_over_its_rate_is_read_more_slowly_and_loses_nothing() {
    let broker = Broker::open_with("[limits]\nrate = 200\nburst = 100").await;
    let (mut sender, mut receiver) = (broker.app("sender").await, broker.app("receiver").await);
    receiver.subscribe("Fast/*/*").await;
    let start = Instant::now();
    sender.send_all((0..400).map(|at| envelope("Fast/A/B", json!({"data": at})))).await;
    for at in 0..400 {
        assert_eq!(receiver.next().await["data"], at);
    }
    let took = start.elapsed();
    // 400 messages less the burst, at 200 a second.
    assert!(took >= Duration::from_millis(1300), "{took:?}");
    sender.expect_nothing().await;
}
