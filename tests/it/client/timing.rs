//! Tests with a paused clock. They use in-memory streams, because a paused clock jumps while a real socket is busy.

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
async fn a_renewal_without_a_reply_is_tried_again() {
    let (builder, mut broker) = dialled(builder().token_provider(async || Ok::<_, io::Error>("token".into())), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    peer.say(expiring(60)).await;
    let start = tokio::time::Instant::now();
    let first = peer.expect("Broker/Application/Renew").await;
    let second = peer.expect("Broker/Application/Renew").await;
    assert!(first["id"] != second["id"] && start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    // The late answer to the first one is not taken for the answer to the second.
    peer.answer(&first, json!({ "Success": true, "ErrorMessage": null, "ExpiresInSeconds": null })).await;
    peer.expect("Broker/Application/Renew").await;
}

fn expiring(seconds: u64) -> Value {
    event("Broker/Connection/Expiring", json!({ "ExpiresInSeconds": seconds }))
}

/// Accepts a Renew, with a proof that is valid for this long.
async fn accept_renewal(peer: &mut Peer<DuplexStream>, renew: &Value, seconds: u64) {
    peer.answer(renew, json!({ "Success": true, "ErrorMessage": null, "ExpiresInSeconds": seconds })).await;
    if seconds <= 60 {
        peer.say(expiring(seconds)).await;
    }
}

/// Returns a builder that reads a token which the test can replace, and that token.
fn reading() -> (Builder, Arc<parking_lot::Mutex<&'static str>>) {
    let token = Arc::new(parking_lot::Mutex::new("old"));
    let read = Arc::clone(&token);
    let builder = builder().token_reader(move || {
        let token = *read.lock();
        async move { Ok::<_, io::Error>(token.into()) }
    });
    (builder, token)
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_soon_is_not_sent_again_at_once() {
    let (builder, mut broker) = dialled(builder().token_provider(async || Ok::<_, io::Error>("cached".into())), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    peer.say(expiring(60)).await;
    let start = tokio::time::Instant::now();
    let mut renewals = 0;
    loop {
        let renew = peer.expect("Broker/Application/Renew").await;
        if start.elapsed() >= Duration::from_mins(1) {
            break;
        }
        renewals += 1;
        // The first at once, the others at least 2 s apart.
        assert!(renewals <= 30, "{renewals} renewals in {:?}", start.elapsed());
        accept_renewal(&mut peer, &renew, 60 - start.elapsed().as_secs()).await;
    }
    // No two are more than 6 s apart.
    assert!(renewals >= 10, "{renewals} renewals in a minute");
}

/// The pause is for a token that did not help, not for the next expiry.
#[tokio::test(start_paused = true)]
async fn each_expiry_is_answered_at_once() {
    let (builder, mut broker) = dialled(builder().token_provider(async || Ok::<_, io::Error>("cached".into())), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    for _ in 0..3 {
        peer.say(expiring(60)).await;
        let start = tokio::time::Instant::now();
        let renew = peer.expect("Broker/Application/Renew").await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        accept_renewal(&mut peer, &renew, 90).await;
        peer.receives_nothing_for(Duration::from_secs(30)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_replaced_late_renews_the_session_before_the_end() {
    let (builder, token) = reading();
    let (builder, mut broker) = dialled(builder, 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    peer.say(expiring(60)).await;
    // Renew with the token of the registration would not help.
    peer.receives_nothing_for(Duration::from_secs(50)).await;
    *token.lock() = "new";
    let start = tokio::time::Instant::now();
    let renew = peer.expect("Broker/Application/Renew").await;
    assert_eq!(renew["data"]["token"], "new");
    assert!(start.elapsed() <= Duration::from_secs(6), "{:?}", start.elapsed());
    accept_renewal(&mut peer, &renew, 3600).await;
    peer.receives_nothing_for(Duration::from_secs(30)).await;
}

/// Such a token gives the session another `auth.session_max`, unless it has an end of its own.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_not_replaced_renews_an_older_session_once() {
    let (builder, token) = reading();
    let (builder, mut broker) = dialled(builder, 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    peer.receives_nothing_for(Duration::from_secs(30)).await;
    peer.say(expiring(60)).await;
    let renew = peer.expect("Broker/Application/Renew").await;
    assert_eq!(renew["data"]["token"], "old");
    accept_renewal(&mut peer, &renew, 60).await;
    peer.receives_nothing_for(Duration::from_secs(40)).await;
    *token.lock() = "new";
    assert_eq!(peer.expect("Broker/Application/Renew").await["data"]["token"], "new");
}

/// If the broker cannot verify a token now, the same one is sent again; if it refuses it, only another one.
#[tokio::test(start_paused = true)]
async fn a_refused_token_renews_the_session_once_it_is_replaced() {
    let (builder, token) = reading();
    let (builder, mut broker) = dialled(builder, 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    *token.lock() = "wrong";
    peer.say(expiring(60)).await;
    for code in ["UPSTREAM_UNAVAILABLE", "UNAUTHENTICATED"] {
        let renew = peer.expect("Broker/Application/Renew").await;
        assert_eq!(renew["data"]["token"], "wrong");
        peer.answer(&renew, json!({ "Success": false, "ErrorCode": code, "ErrorMessage": "test" })).await;
    }
    peer.receives_nothing_for(Duration::from_secs(20)).await;
    *token.lock() = "right";
    assert_eq!(peer.expect("Broker/Application/Renew").await["data"]["token"], "right");
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

/// Accepts a connection with a resumable session.
async fn accept_resumable(broker: &mut mpsc::Receiver<DuplexStream>) -> Peer<DuplexStream> {
    let mut peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
    peer.register_with("session", json!({ "Resumed": false, "ResumeToken": "one" })).await;
    peer
}

#[tokio::test(start_paused = true)]
async fn a_message_is_acknowledged_after_five_seconds_and_an_idle_session_is_silent() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept_resumable(&mut broker));
    let _client = client.unwrap();
    peer.receives_nothing_for(Duration::from_mins(1)).await;
    let start = tokio::time::Instant::now();
    peer.say(event("Phone/Call/Ringing", json!(1))).await;
    peer.receives_nothing_for(Duration::from_secs(4)).await;
    peer.say(event("Phone/Call/Ringing", json!(2))).await;
    assert_eq!(peer.expect("Broker/Connection/Acknowledge").await["data"], json!({ "received": 2 }));
    assert_eq!(start.elapsed().as_secs(), 5);
    peer.receives_nothing_for(Duration::from_mins(1)).await;
}

/// Without that, a client that only publishes would keep everything.
#[tokio::test(start_paused = true)]
async fn the_broker_is_asked_what_it_has_taken_and_an_idle_session_is_silent() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept_resumable(&mut broker));
    let client = client.unwrap();
    let start = tokio::time::Instant::now();
    client.publish(find(), json!(1)).await.unwrap();
    peer.expect("Crm/Contact/Find").await;
    let ping = peer.expect("Broker/Connection/Ping").await;
    assert_eq!(start.elapsed().as_secs(), 5);
    peer.answer(&ping, json!({ "Success": true, "ErrorMessage": null })).await;
    peer.expect("Broker/Connection/Acknowledge").await;
    peer.receives_nothing_for(Duration::from_mins(1)).await;
    // Or after many messages, but not before the last question is answered.
    let publish = async {
        for number in 0..600 {
            client.publish(find(), json!(number)).await.unwrap();
        }
    };
    let read = async {
        let (mut asked, mut number) = (0, 0);
        while number < 600 {
            match triple(&peer.next().await).as_str() {
                "Broker/Connection/Ping" => asked += 1,
                _ => number += 1,
            }
        }
        asked
    };
    let ((), asked) = tokio::join!(publish, read);
    assert_eq!(asked, 1);
}

/// A Close without a code would end the session.
#[tokio::test(start_paused = true)]
async fn a_connection_is_given_up_with_a_code_that_keeps_the_session() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept_resumable(&mut broker));
    let _client = client.unwrap();
    let start = tokio::time::Instant::now();
    tokio::time::sleep_until(start + Duration::from_secs(75)).await;
    assert_eq!(peer.closed().await, Some(4000));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_not_sent_again_when_the_broker_may_have_forgotten_its_id() {
    for (lasts, is_again) in [(30, true), (90, false)] {
        let (builder, mut broker) = dialled(builder(), 0);
        let (client, mut peer) =
            tokio::join!(builder.command_timeout(Duration::from_hours(1)).connect(), accept_resumable(&mut broker));
        let client = client.unwrap();
        let publish = client.publish(find(), json!(1)).receipt().once().into_future();
        let play = async {
            peer.expect("Crm/Contact/Find").await;
            let start = tokio::time::Instant::now();
            for _ in 0..lasts / 10 {
                peer.receives_only_upkeep_for(Duration::from_secs(10)).await;
                peer.ping().await;
            }
            assert!(start.elapsed() >= Duration::from_secs(lasts));
            drop(peer);
            let mut peer = accept_resumable(&mut broker).await;
            if is_again {
                let again = peer.expect("Crm/Contact/Find").await;
                let receipt = json!({ "channel": "Broker", "topic": "Message", "subtopic": "Receipt",
                    "inReplyTo": again["id"], "data": { "Success": true, "Receivers": 1 } });
                peer.say(receipt).await;
            } else {
                peer.receives_nothing().await;
            }
            peer
        };
        let (receipt, _peer) = tokio::join!(publish, play);
        assert!(if is_again { receipt.is_ok() } else { matches!(receipt, Err(Error::OutcomeUnknown)) });
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_receipt_rests_while_there_is_no_connection() {
    let (builder, mut broker) = dialled(builder(), 20);
    let (client, peer) = tokio::join!(builder.connect(), accept_resumable(&mut broker));
    let client = client.unwrap();
    let mut states = Box::pin(client.states());
    drop(peer);
    expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
    let start = tokio::time::Instant::now();
    let play = async {
        let mut peer = accept_resumable(&mut broker).await;
        let event = peer.expect("Crm/Contact/Find").await;
        let receipt = json!({ "channel": "Broker", "topic": "Message", "subtopic": "Receipt",
            "inReplyTo": event["id"], "data": { "Success": true, "Receivers": 1 } });
        peer.say(receipt).await;
        peer
    };
    let (receipt, _peer) = tokio::join!(client.publish(find(), ()).receipt().into_future(), play);
    assert_eq!(receipt.unwrap().receivers, 1);
    assert!(start.elapsed() > Duration::from_secs(10), "{:?}", start.elapsed());
}
