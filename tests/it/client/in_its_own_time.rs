//! With a clock that the test moves: in memory only, for a paused runtime takes waiting on a socket for idleness.

use super::*;

/// What dials: the broker's ends of the connections come out of the queue; the first of `refuse` dials after the
/// first fail.
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
async fn waits_grow_to_the_last_ceiling_and_no_further() {
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
    // Full jitter: not all of the long waits are short by chance.
    assert!(waits.iter().max().unwrap() > &Duration::from_secs(1), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_when_to_come_back() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let client = client.unwrap();
    let mut states = Box::pin(client.states());
    peer.say(event("Broker/Connection/Draining", json!({ "ReconnectAfterMs": 4321 }))).await;
    peer.close(1012, "restarting").await;
    let state = expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
    let State::Disconnected { retry_in, .. } = state else { unreachable!() };
    assert_eq!(retry_in, Duration::from_millis(4321));
    let _peer = accept(&mut broker).await;
    expect_state(&mut states, is_connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_falls_silent_is_given_up() {
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
async fn a_registration_without_an_answer_ends() {
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
async fn a_request_that_nobody_ends_times_out_and_is_cancelled() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let client = client.unwrap();
    let error = client.request(find(), ()).timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut("the request")), "{error}");
    peer.expect("Crm/Contact/Find").await;
    peer.expect("Broker/Request/Cancel").await;
}

#[tokio::test(start_paused = true)]
async fn its_own_ghost_is_waited_for() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let client = client.unwrap();
    let mut states = Box::pin(client.states());
    drop(peer);
    let mut peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
    let register = peer.next().await;
    let data = json!({ "Success": false, "ErrorCode": "SOURCE_IN_USE", "ErrorMessage": "registered before" });
    peer.answer(&register, data).await;
    let _peer = accept(&mut broker).await;
    expect_state(&mut states, is_connected).await;
}
