//! Tests with a paused clock. They use in-memory streams, because a paused clock jumps while a real socket is busy.
//!
//! `renewing` is when a session is renewed, `resuming` what a resumable session sends, and when.

mod renewing;
mod resuming;

use super::*;

/// Returns a builder that dials in memory, and the queue of the broker's ends. The `refuse` dials after the first one
/// fail.
fn dialled(builder: Builder, refuse: usize) -> (Builder, mpsc::Receiver<DuplexStream>) {
    let (ends, broker) = mpsc::channel(8);
    let dials = Arc::new(AtomicUsize::new(0));
    let builder = builder.dial(move || {
        let (ends, dial) = (ends.clone(), dials.fetch_add(1, Ordering::Relaxed));
        async move {
            if (1..=refuse).contains(&dial) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = duplex(64 << 10);
            ends.send(theirs).await.unwrap();
            Ok(ours)
        }
    });
    (builder, broker)
}

fn builder() -> Builder {
    Client::builder("ws://broker.test/ws").source("softphone")
}

async fn accept(broker: &mut mpsc::Receiver<DuplexStream>) -> Peer<DuplexStream> {
    let mut peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
    peer.register("session").await;
    peer
}

#[tokio::test(start_paused = true)]
async fn the_longest_waits_are_a_day() {
    let builder = builder().command_timeout(Duration::MAX).backoff(Duration::MAX, Duration::MAX);
    let (builder, mut broker) = dialled(builder, 0);
    let registered = async {
        let mut peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
        peer.register_with("session", json!({ "HeartbeatSeconds": u64::MAX })).await;
        peer
    };
    let (client, peer) = tokio::join!(builder.connect(), registered);
    let client = client.unwrap();
    let day = Duration::from_hours(24);
    assert!(matches!(client.state(), State::Connected(session) if session.heartbeat == day));
    let mut states = Box::pin(client.states());
    drop(peer);
    let wait = loop {
        if let Some(State::Disconnected { retry_in, .. }) = states.next().await {
            break retry_in;
        }
    };
    assert!(wait <= day, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn the_back_off_grows_to_its_last_ceiling() {
    let attempts = 12;
    let (builder, mut broker) = dialled(builder(), attempts);
    let (client, peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let client = client.unwrap();
    let mut states = Box::pin(client.states());
    drop(peer);
    let mut waits = Vec::new();
    let accepted = async { accept(&mut broker).await };
    tokio::pin!(accepted);
    loop {
        tokio::select! {
            state = states.next() => match state.unwrap() {
                State::Disconnected { retry_in, .. } => waits.push(retry_in),
                State::Connected(_) if waits.len() > attempts => break,
                _ => {}
            },
            _peer = &mut accepted, if waits.len() > attempts => break,
        }
    }
    assert_eq!(waits.len(), attempts + 1);
    for (attempt, wait) in waits.iter().enumerate() {
        let ceiling = Duration::from_millis(100 << attempt.min(20)).min(Duration::from_secs(30));
        assert!(*wait <= ceiling, "attempt {attempt}: {wait:?} over {ceiling:?}");
    }
    // With full jitter, not all of the long waits are short.
    assert!(waits.iter().max().unwrap() > &Duration::from_secs(1), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_waited_for_from_the_close_frame() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let client = client.unwrap();
    let mut states = Box::pin(client.states());
    peer.say(event("Broker/Connection/Draining", json!({ "ReconnectAfterMs": 4321 }))).await;
    // The broker still serves: a drain can last for 30 s.
    let start = tokio::time::Instant::now();
    tokio::time::sleep_until(start + Duration::from_secs(20)).await;
    peer.close(1012, "restarting").await;
    let state = expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
    let State::Disconnected { retry_in, .. } = state else { unreachable!() };
    assert_eq!(retry_in, Duration::from_millis(4321));
    let _peer = accept(&mut broker).await;
    assert_eq!(start.elapsed().as_millis(), 20_000 + 4_321);
    expect_state(&mut states, is_connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_a_time_and_a_time_without_a_restart_back_off() {
    let backoff = Duration::from_millis(100);
    for (draining, code) in [(false, 1012), (true, 1001)] {
        let (builder, mut broker) = dialled(builder(), 0);
        let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
        let client = client.unwrap();
        let mut states = Box::pin(client.states());
        if draining {
            peer.say(event("Broker/Connection/Draining", json!({ "ReconnectAfterMs": 4321 }))).await;
        }
        peer.close(code, "test").await;
        let state = expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
        let State::Disconnected { retry_in, .. } = state else { unreachable!() };
        assert!(retry_in <= backoff, "{code}: {retry_in:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_given_up() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let client = client.unwrap();
    let mut states = Box::pin(client.states());
    let start = tokio::time::Instant::now();
    tokio::time::sleep_until(start + Duration::from_mins(1)).await;
    peer.ping().await;
    expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
    assert_eq!(start.elapsed().as_secs(), 60 + 75);
}

#[tokio::test(start_paused = true)]
async fn a_registration_without_a_reply_times_out() {
    let (builder, mut broker) = dialled(builder(), 0);
    let silent = async {
        let peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
        std::future::pending::<()>().await;
        drop(peer);
    };
    tokio::select! {
        client = builder.connect() => {
            let error = client.unwrap_err();
            assert!(matches!(error, Error::TimedOut("the registration")), "{error}");
        }
        () = silent => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_times_out_and_is_cancelled() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let client = client.unwrap();
    let error = client.request(find(), ()).timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut("the request")), "{error}");
    peer.expect("Crm/Contact/Find").await;
    peer.expect("Broker/Request/Cancel").await;
}

#[tokio::test(start_paused = true)]
async fn the_first_connection_waits_for_the_broker() {
    let (ends, mut broker) = mpsc::channel(1);
    let dials = Arc::new(AtomicUsize::new(0));
    let builder = builder().dial(move || {
        let (ends, dial) = (ends.clone(), dials.fetch_add(1, Ordering::Relaxed));
        async move {
            if dial < 10 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = duplex(64 << 10);
            ends.send(theirs).await.unwrap();
            Ok(ours)
        }
    });
    let builder = builder.wait_for_broker(Duration::MAX);
    let (client, _peer) = tokio::join!(builder.connect(), accept(&mut broker));
    assert!(is_connected(&client.unwrap().state()));
}

#[tokio::test(start_paused = true)]
async fn the_first_connection_waits_no_longer_than_its_limit() {
    let builder = builder().dial(async || Err::<DuplexStream, _>(io::ErrorKind::ConnectionRefused.into()));
    let start = tokio::time::Instant::now();
    let error = builder.wait_for_broker(Duration::from_mins(1)).connect().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(start.elapsed().as_secs(), 60);
}

/// A wrong token does not become right.
#[tokio::test(start_paused = true)]
async fn the_first_connection_does_not_repeat_a_registration_that_is_refused_for_good() {
    let (builder, mut broker) = dialled(builder(), 0);
    let refuse = async {
        let mut peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
        let register = peer.next().await;
        let data = json!({ "Success": false, "ErrorCode": "UNAUTHENTICATED", "ErrorMessage": "no such token" });
        peer.answer(&register, data).await;
    };
    let (client, ()) = tokio::join!(builder.wait_for_broker(Duration::MAX).connect(), refuse);
    assert_eq!(client.unwrap_err().code(), Some(ErrorCode::Unauthenticated));
}

/// A dead session can hold an exclusive source for more than a minute.
#[tokio::test(start_paused = true)]
async fn a_source_in_use_is_waited_for() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let client = client.unwrap();
    let mut states = Box::pin(client.states());
    drop(peer);
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_mins(5) {
        let mut peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
        let register = peer.next().await;
        let data = json!({ "Success": false, "ErrorCode": "SOURCE_IN_USE", "ErrorMessage": "registered before" });
        peer.answer(&register, data).await;
    }
    let _peer = accept(&mut broker).await;
    expect_state(&mut states, is_connected).await;
}
