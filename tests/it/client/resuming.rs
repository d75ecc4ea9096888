//! Sessions that continue on another connection. The test plays the broker.

use switchboard_client::{Reconnection, WhileAway};

use super::*;

/// A client in a resumable session with the token `one`, and its broker's end.
async fn resumable() -> (FakeBroker, Client, Peer<TcpStream>) {
    resumable_with(|builder| builder).await
}

async fn resumable_with(options: impl FnOnce(Builder) -> Builder) -> (FakeBroker, Client, Peer<TcpStream>) {
    let broker = FakeBroker::start().await;
    let accept = async {
        let mut peer = broker.connection().await;
        let register = peer.register_with("session-1", json!({ "Resumed": false, "ResumeToken": "one" })).await;
        assert_eq!(register["data"]["resume"], true);
        peer
    };
    let (client, peer) = tokio::join!(options(builder(&broker)).connect(), accept);
    (broker, client.unwrap(), peer)
}

/// Lets the session continue on the next connection, of which the broker has taken this many messages. Returns the option
/// `resume`, after the acknowledgement that has to follow.
async fn resumed(broker: &FakeBroker, taken: u64, token: &str) -> (Peer<TcpStream>, Value) {
    let mut peer = broker.connection().await;
    let more = json!({ "Resumed": true, "ResumeToken": token, "Replayed": 0, "Received": taken });
    let register = peer.register_with("session-1", more).await;
    let resume = register["data"]["resume"].clone();
    let acknowledge = peer.expect("Broker/Connection/Acknowledge").await;
    assert_eq!(acknowledge["data"], json!({ "received": resume["received"] }));
    (peer, resume)
}

/// Begins another session on the next connection.
async fn refused(broker: &FakeBroker, reason: &str) -> Peer<TcpStream> {
    let mut peer = broker.connection().await;
    let more = json!({ "Resumed": false, "ResumeReason": reason, "ResumeToken": "other" });
    let register = peer.register_with("session-2", more).await;
    assert_eq!(register["data"]["resume"]["token"], "one");
    peer
}

async fn next_of(reconnections: &mut (impl Stream<Item = Reconnection> + Unpin)) -> Reconnection {
    timeout(Duration::from_secs(20), reconnections.next()).await.expect("no report").expect("the client has ended")
}

#[tokio::test]
async fn a_session_is_resumable_unless_the_application_turns_that_off() {
    let (broker, client, peer) = resumable().await;
    drop((client, peer));
    let (client, (_peer, register)) = tokio::join!(builder(&broker).resume(false).connect(), broker.session());
    assert_eq!(register["data"].get("resume"), None);
    drop(client);
}

#[tokio::test]
async fn the_session_continues_with_its_token_and_its_count() {
    let (broker, client, mut peer) = resumable().await;
    let mut reconnections = Box::pin(client.reconnections());
    let mut events = subscribe(&client, &mut peer, "Phone/*/*").await;
    for number in 1..=2 {
        peer.say(event("Phone/Call/Ringing", json!(number))).await;
    }
    assert_eq!([next(&mut events).await, next(&mut events).await], [1, 2]);
    // Neither is counted.
    peer.say(event("Broker/Connection/Replaced", json!({ "SessionId": "session-1" }))).await;
    peer.say(json!({ "channel": "Broker", "topic": "Application", "subtopic": "Register" })).await;
    // Neither a subscription matches it, nor is it an envelope; both are counted.
    peer.say(event("Crm/Case/Opened", json!(1))).await;
    peer.say_text("{}").await;
    let mut states = Box::pin(client.states());
    peer.close(1001, "moved").await;
    expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;

    let (mut peer, resume) = resumed(&broker, 1, "two").await;
    assert_eq!(resume, json!({ "token": "one", "received": 5 }));
    assert_eq!(next_of(&mut reconnections).await, Reconnection::Resumed);
    // The subscription is not made again.
    peer.receives_nothing().await;
    peer.say(event("Phone/Call/Ringing", json!(3))).await;
    assert_eq!(next(&mut events).await, 3);

    drop(peer);
    let (_peer, resume) = resumed(&broker, 2, "three").await;
    assert_eq!(resume, json!({ "token": "two", "received": 6 }));
    assert_eq!(next_of(&mut reconnections).await, Reconnection::Resumed);
}

/// The reply to a Register can be lost, so the old token is used until there is a new one.
#[tokio::test]
async fn a_token_is_kept_until_the_reply_has_another_one() {
    let (broker, _client, peer) = resumable().await;
    drop(peer);
    for _ in 0..2 {
        let mut peer = broker.connection().await;
        assert_eq!(peer.expect("Broker/Application/Register").await["data"]["resume"]["token"], "one");
    }
    let (_peer, resume) = resumed(&broker, 0, "two").await;
    assert_eq!(resume, json!({ "token": "one", "received": 0 }));
}

#[tokio::test]
async fn what_the_broker_has_not_taken_is_sent_again_in_order() {
    let (broker, client, mut peer) = resumable().await;
    for number in 1..=4 {
        client.publish(find(), json!(number)).await.unwrap();
    }
    for _ in 0..4 {
        peer.next().await;
    }
    drop(peer);
    let (mut peer, _) = resumed(&broker, 2, "two").await;
    assert_eq!([peer.next().await["data"].clone(), peer.next().await["data"].clone()], [json!(3), json!(4)]);
    peer.receives_nothing().await;
    drop(peer);
    // The third of this connection: the acknowledgement counts too, and is not sent again.
    let (mut peer, _) = resumed(&broker, 4, "three").await;
    assert_eq!(peer.next().await["data"], 4);
    peer.receives_nothing().await;
}

#[tokio::test]
async fn a_broker_that_has_forgotten_what_it_answered_is_reported_as_lost() {
    let (broker, client, mut peer) = resumable().await;
    let mut reconnections = Box::pin(client.reconnections());
    let answer = async {
        let request = peer.expect("Crm/Contact/Find").await;
        peer.answer(&request, json!("found")).await;
    };
    let (reply, ()) = tokio::join!(client.request(find(), ()).into_future(), answer);
    reply.unwrap();
    drop(peer);
    let (_peer, _) = resumed(&broker, 0, "two").await;
    assert!(matches!(next_of(&mut reconnections).await, Reconnection::Lost { .. }));
}

#[tokio::test]
async fn requests_and_subscriptions_stay_pending_while_the_session_continues() {
    let (broker, client, mut peer) = resumable().await;
    let request = client.request(find(), ()).into_future();
    let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).into_future();
    let play = async {
        let request = peer.expect("Crm/Contact/Find").await;
        peer.expect("Broker/Subscription/Subscribe").await;
        drop(peer);
        let (mut peer, _) = resumed(&broker, 1, "two").await;
        peer.answer(&request, json!("found")).await;
        peer.grant().await;
        peer
    };
    let (reply, subscription, _peer) = tokio::join!(request, subscribing, play);
    assert_eq!(reply.unwrap().data::<String>().unwrap(), "found");
    subscription.unwrap();
}

#[tokio::test]
async fn a_request_that_was_given_is_answered_after_the_resume() {
    let (broker, client, mut peer) = resumable().await;
    let (go, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, end) = (Arc::clone(&go), Arc::clone(&gone));
    let serve = client.serve("Crm/*/*".parse().unwrap(), move |request| {
        let (begin, end) = (Arc::clone(&begin), Arc::clone(&end));
        async move {
            begin.notified().await;
            assert!(!request.is_cancelled());
            end.notify_one();
            Ok(json!("answered").into())
        }
    });
    let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
    let _serving = serving.unwrap();
    peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
    let mut states = Box::pin(client.states());
    drop(peer);
    expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
    go.notify_one();
    gone.notified().await;
    let (mut peer, _) = resumed(&broker, 1, "two").await;
    let answer = peer.next().await;
    assert_eq!((&answer["inReplyTo"], &answer["data"]), (&json!("r1"), &json!("answered")));
}

#[tokio::test]
async fn every_64_messages_are_acknowledged() {
    let (_broker, client, mut peer) = resumable().await;
    let mut events = subscribe(&client, &mut peer, "Phone/*/*").await;
    for number in 1..=130 {
        peer.say(event("Phone/Call/Ringing", json!(number))).await;
        assert_eq!(next(&mut events).await, number);
    }
    for received in [64, 128] {
        let acknowledge = peer.expect("Broker/Connection/Acknowledge").await;
        assert_eq!((&acknowledge["data"]["received"], acknowledge.get("id")), (&json!(received), None));
    }
    peer.receives_nothing().await;
}

/// Only the application can know whether repeating is safe.
#[tokio::test]
async fn when_the_session_has_ended_only_events_that_are_safe_are_sent_again() {
    let (broker, client, mut peer) = resumable().await;
    let mut reconnections = Box::pin(client.reconnections());
    let _events = subscribe(&client, &mut peer, "Phone/*/*").await;
    let changed = Triple::new("Crm", "Contact", "Changed");
    let request = client.request(find(), ()).into_future();
    let plain = client.publish(changed.clone(), json!("plain")).receipt().into_future();
    let once = client.publish(changed, json!("once")).receipt().id("case-1").once().into_future();
    let play = async {
        for _ in 0..3 {
            peer.next().await;
        }
        drop(peer);
        let mut peer = refused(&broker, "UNKNOWN").await;
        assert_eq!(peer.grant().await["channel"], "Phone");
        let again = peer.expect("Crm/Contact/Changed").await;
        assert_eq!((&again["data"], &again["id"], &again["once"]), (&json!("once"), &json!("case-1"), &json!(true)));
        let data = json!({ "Success": true, "Receivers": 2, "Duplicate": true, "Offset": 7, "Epoch": "e" });
        let receipt = json!({ "channel": "Broker", "topic": "Message", "subtopic": "Receipt", "inReplyTo": "case-1",
            "data": data });
        peer.say(receipt).await;
        peer.receives_nothing().await;
        peer
    };
    let (reply, plain, once, _peer) = tokio::join!(request, plain, once, play);
    assert!(matches!(reply, Err(Error::OutcomeUnknown)), "{reply:?}");
    assert!(matches!(plain, Err(Error::OutcomeUnknown)), "{plain:?}");
    let receipt = once.unwrap();
    assert!(receipt.duplicate && receipt.offset == Some(7) && receipt.epoch.as_deref() == Some("e"), "{receipt:?}");
    // The channel has no history.
    assert!(matches!(next_of(&mut reconnections).await, Reconnection::Lost { .. }));
}

#[tokio::test]
async fn a_request_in_progress_is_cancelled_when_the_session_has_ended() {
    let (broker, client, mut peer) = resumable().await;
    let cancelled = Arc::new(Notify::new());
    let told = Arc::clone(&cancelled);
    let serve = client.serve("Crm/*/*".parse().unwrap(), move |request| {
        let told = Arc::clone(&told);
        async move {
            request.cancelled().await;
            told.notify_one();
            Ok(json!("too late").into())
        }
    });
    let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
    let _serving = serving.unwrap();
    peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
    drop(peer);
    let mut peer = refused(&broker, "TOO_FAR").await;
    peer.grant().await;
    cancelled.notified().await;
    // The answer belongs to the session that has ended.
    peer.receives_nothing().await;
}

/// Nobody waits for a receipt that would tell.
#[tokio::test]
async fn events_without_a_receipt_that_are_in_doubt_are_reported_as_lost() {
    for (is_proved, expected) in [(true, Some(Reconnection::Recovered)), (false, None)] {
        let (broker, client, mut peer) = resumable().await;
        let mut reconnections = Box::pin(client.reconnections());
        client.publish(find(), json!(1)).await.unwrap();
        peer.next().await;
        if is_proved {
            let (applications, ()) = tokio::join!(client.applications(), async {
                let list = peer.expect("Broker/Application/List").await;
                peer.answer(&list, json!({ "Success": true, "Applications": [] })).await;
            });
            assert_eq!(applications.unwrap(), []);
        }
        drop(peer);
        let _peer = refused(&broker, "UNKNOWN").await;
        let report = next_of(&mut reconnections).await;
        assert!(expected.map_or(matches!(report, Reconnection::Lost { .. }), |expected| expected == report));
    }
}

#[tokio::test]
async fn a_replaced_client_does_not_return() {
    let (broker, client, mut peer) = resumable().await;
    peer.say(event("Broker/Connection/Replaced", json!({ "SessionId": "session-1" }))).await;
    let mut states = Box::pin(client.states());
    peer.close(4409, "").await;
    let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
    let reason = "another connection resumed the session".to_owned();
    assert_eq!(state, State::Closed { code: Some(4409), reason });
    assert!(timeout(Duration::from_millis(50), broker.tcp()).await.is_err());
}

#[tokio::test]
async fn what_is_published_while_away_is_sent_afterwards_in_order() {
    for is_resumed in [true, false] {
        let (broker, client, peer) = resumable().await;
        let mut states = Box::pin(client.states());
        drop(peer);
        expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
        client.publish(find(), json!(1)).await.unwrap();
        let receipt = client.publish(find(), json!(2)).receipt().id("two").into_future();
        let play = async {
            let mut peer = match is_resumed {
                true => resumed(&broker, 0, "two").await.0,
                false => refused(&broker, "UNKNOWN").await,
            };
            assert_eq!(peer.next().await["data"], 1);
            let second = peer.next().await;
            assert_eq!((&second["data"], &second["id"]), (&json!(2), &json!("two")));
            peer.say(json!({ "channel": "Broker", "topic": "Message", "subtopic": "Receipt", "inReplyTo": "two",
                "data": { "Success": true, "Receivers": 1 } }))
                .await;
            peer
        };
        let (receipt, _peer) = tokio::join!(receipt, play);
        assert_eq!(receipt.unwrap().receivers, 1);
    }
}

#[tokio::test]
async fn what_is_published_while_away_is_refused_beyond_the_bound_or_if_the_application_chose_that() {
    for (while_away, kept) in [(WhileAway::Keep(2), 2), (WhileAway::Refuse, 0)] {
        let (broker, client, peer) = resumable_with(|builder| builder.while_away(while_away)).await;
        let mut states = Box::pin(client.states());
        let unreachable = async {
            // Not registered before the test has published.
            let first = broker.connection().await;
            expect_state(&mut states, |state| matches!(state, State::Connecting)).await;
            first
        };
        drop(peer);
        let mut peer = unreachable.await;
        for number in 0..4 {
            let outcome = client.publish(find(), json!(number)).await;
            assert!(if number < kept { outcome.is_ok() } else { matches!(outcome, Err(Error::Disconnected)) });
            let outcome = client.publish(find(), json!("with")).receipt().into_future();
            if number >= kept {
                assert!(matches!(outcome.await, Err(Error::Disconnected)));
            }
        }
        let reply = client.request(find(), ()).await;
        assert!(matches!(reply, Err(Error::Disconnected)), "{reply:?}");
        let more = json!({ "Resumed": true, "ResumeToken": "two", "Replayed": 0, "Received": 0 });
        peer.register_with("session-1", more).await;
        peer.expect("Broker/Connection/Acknowledge").await;
        for number in 0..kept {
            assert_eq!(peer.next().await["data"], number);
        }
        peer.receives_nothing().await;
    }
}
