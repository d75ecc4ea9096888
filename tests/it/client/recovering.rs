//! Subscriptions to channels with history, in a session that follows another one. The test plays the broker.

use switchboard_client::{Position, Reconnection, Recover};

use super::*;
use crate::support::DEADLINE;

/// Subscribes to a pattern with a log, which is at this offset.
async fn subscribe_to_log(client: &Client, peer: &mut Peer<TcpStream>, pattern: &str, offset: u64) -> Subscription {
    let granted = json!({ "SubscriptionId": pattern, "Epoch": "e", "Offset": offset });
    let subscribing = client.subscribe(pattern.parse().unwrap());
    let (subscription, data) = tokio::join!(subscribing.into_future(), peer.grant_with(granted));
    assert_eq!(data.get("recover"), None);
    subscription.unwrap()
}

/// An event of a channel with history, with its offset as payload.
fn logged(written: &str, offset: u64) -> Value {
    let mut event = event(written, json!(offset));
    (event["offset"], event["epoch"]) = (offset.into(), "e".into());
    event
}

fn replayed(written: &str, offset: u64) -> Value {
    let mut event = logged(written, offset);
    event["replayed"] = true.into();
    event
}

fn at(offset: u64) -> Position {
    Position { epoch: "e".into(), offset }
}

async fn next_of(reconnections: &mut (impl Stream<Item = Reconnection> + Unpin)) -> Reconnection {
    timeout(Duration::from_secs(20), reconnections.next()).await.expect("no report").expect("the client has ended")
}

const RINGING: &str = "Phone/Call/Ringing";

#[tokio::test]
async fn a_new_session_begins_after_the_last_event_that_the_application_has_handled() {
    let (broker, client, mut peer) = session().await;
    let mut reconnections = Box::pin(client.reconnections());
    let mut events = subscribe_to_log(&client, &mut peer, "Phone/*/*", 10).await;
    for offset in 11..=14 {
        peer.say(logged(RINGING, offset)).await;
    }
    assert_eq!(events.position(), Some(at(10)));
    assert_eq!([next(&mut events).await, next(&mut events).await], [11, 12]);
    // The second one is being handled, the others wait in the queue.
    assert_eq!(events.position(), Some(at(11)));
    drop(peer);

    let (mut peer, _) = broker.session().await;
    let granted = json!({ "Epoch": "e", "Offset": 16, "Recovered": true, "Replayed": 5 });
    let data = peer.grant_with(granted).await;
    assert_eq!(data["recover"], json!({ "epoch": "e", "offset": 11 }));
    assert_eq!(next_of(&mut reconnections).await, Reconnection::Recovered);
    for offset in 12..=16 {
        peer.say(replayed(RINGING, offset)).await;
    }
    peer.say(logged(RINGING, 17)).await;
    // Each once.
    for offset in 13..=17 {
        assert_eq!(next(&mut events).await, offset);
    }
    assert_eq!(events.position(), Some(at(16)));
}

#[tokio::test]
async fn a_log_that_cannot_be_replayed_is_reported_as_lost_once() {
    let (broker, client, mut peer) = session().await;
    let mut reconnections = Box::pin(client.reconnections());
    let mut events = subscribe_to_log(&client, &mut peer, "Phone/*/*", 10).await;
    drop(peer);
    let (mut peer, _) = broker.session().await;
    let granted = json!({ "Epoch": "new", "Offset": 3, "Recovered": false, "RecoverReason": "EPOCH" });
    assert_eq!(peer.grant_with(granted).await["recover"], json!({ "epoch": "e", "offset": 10 }));
    let Reconnection::Lost { since } = next_of(&mut reconnections).await else { panic!("not lost") };
    assert!(since.elapsed().unwrap() < DEADLINE, "{since:?}");
    let mut live = logged(RINGING, 4);
    live["epoch"] = "new".into();
    peer.say(live).await;
    assert_eq!(next(&mut events).await, 4);

    drop(peer);
    let (mut peer, _) = broker.session().await;
    let granted = json!({ "Epoch": "new", "Offset": 4, "Recovered": true, "Replayed": 1 });
    assert_eq!(peer.grant_with(granted).await["recover"], json!({ "epoch": "new", "offset": 3 }));
    assert_eq!(next_of(&mut reconnections).await, Reconnection::Recovered);
}

/// A handler misses nothing unnoticed: its requesters are told. An application without subscriptions misses nothing.
#[tokio::test]
async fn a_subscription_without_a_log_is_reported_as_lost() {
    for (pattern, group, is_lost) in
        [(Some("Phone/*/*"), None, true), (Some("Phone/*/*"), Some("pool"), true), (None, None, false)]
    {
        let (broker, client, mut peer) = session().await;
        let mut reconnections = Box::pin(client.reconnections());
        let serve = client.serve("Crm/*/*".parse().unwrap(), async |_| Ok(json!(1).into()));
        let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
        let _serving = serving.unwrap();
        let mut subscriptions = Vec::new();
        if let Some(pattern) = pattern {
            let mut subscribing = client.subscribe(pattern.parse().unwrap());
            if let Some(group) = group {
                subscribing = subscribing.group(group);
            }
            // A member of a group is told where the log is, but cannot recover.
            let granted = if group.is_some() { json!({ "Epoch": "e", "Offset": 1 }) } else { json!({}) };
            let (subscription, _) = tokio::join!(subscribing.into_future(), peer.grant_with(granted));
            subscriptions.push(subscription.unwrap());
        }
        drop(peer);
        let (mut peer, _) = broker.session().await;
        for _ in 0..=subscriptions.len() {
            assert_eq!(peer.grant().await.get("recover"), None);
        }
        let report = next_of(&mut reconnections).await;
        assert_eq!(matches!(report, Reconnection::Lost { .. }), is_lost, "{report:?}");
    }
}

#[tokio::test]
async fn an_application_can_turn_recovering_off() {
    let broker = FakeBroker::start().await;
    let (client, (mut peer, _)) = tokio::join!(builder(&broker).recover(false).connect(), broker.session());
    let client = client.unwrap();
    let mut reconnections = Box::pin(client.reconnections());
    let _events = subscribe_to_log(&client, &mut peer, "Phone/*/*", 10).await;
    drop(peer);
    let (mut peer, _) = broker.session().await;
    let granted = json!({ "Epoch": "e", "Offset": 10 });
    assert_eq!(peer.grant_with(granted).await.get("recover"), None);
    assert!(matches!(next_of(&mut reconnections).await, Reconnection::Lost { .. }));
}

/// Both patterns match every event. The one that the broker replays is not for the other one, which has it or will get it.
#[tokio::test]
async fn a_replay_is_for_the_subscription_that_asked_for_it() {
    let (broker, client, mut peer) = session().await;
    let mut all = subscribe_to_log(&client, &mut peer, "Phone/*/*", 10).await;
    let mut calls = subscribe_to_log(&client, &mut peer, "Phone/Call/*", 10).await;
    let mut every = subscribe(&client, &mut peer, "*/*/*").await;
    peer.say(logged(RINGING, 11)).await;
    for subscription in [&mut all, &mut calls, &mut every] {
        assert_eq!(next(subscription).await, 11);
    }
    // `calls` has handled it, `all` has not.
    let waiting = timeout(Duration::from_millis(10), calls.next());
    assert!(waiting.await.is_err());
    drop(peer);

    let (mut peer, _) = broker.session().await;
    // Between the confirmation of `every` and that of the others.
    let mut live = Some(logged(RINGING, 13));
    for _ in 0..3 {
        let subscribe = peer.expect("Broker/Subscription/Subscribe").await;
        let mut data = json!({ "Success": true, "ErrorMessage": null, "SubscriptionId": subscribe["data"]["topic"] });
        let recover = &subscribe["data"]["recover"];
        if recover.is_object() {
            let first = recover["offset"].as_u64().unwrap() + 1;
            (data["Epoch"], data["Offset"]) = ("e".into(), 13.into());
            (data["Recovered"], data["Replayed"]) = (true.into(), (14 - first).into());
            if let Some(live) = live.take() {
                peer.say(live).await;
            }
            peer.answer(&subscribe, data).await;
            for offset in first..=13 {
                peer.say(replayed(RINGING, offset)).await;
            }
        } else {
            peer.answer(&subscribe, data).await;
        }
    }
    peer.say(logged(RINGING, 14)).await;
    for subscription in [&mut all, &mut calls] {
        for offset in 12..=14 {
            assert_eq!(next(subscription).await, offset);
        }
    }
}

#[tokio::test]
async fn equal_subscriptions_recover_from_the_first_of_them_and_get_each_event_once() {
    let (broker, client, mut peer) = session().await;
    let mut slow = subscribe_to_log(&client, &mut peer, "Phone/*/*", 10).await;
    let mut fast = subscribe_to_log(&client, &mut peer, "Phone/*/*", 10).await;
    for offset in 11..=12 {
        peer.say(logged(RINGING, offset)).await;
        assert_eq!(next(&mut fast).await, offset);
    }
    assert_eq!(next(&mut slow).await, 11);
    drop(peer);
    let (mut peer, _) = broker.session().await;
    let granted = json!({ "Epoch": "e", "Offset": 13, "Recovered": true, "Replayed": 3 });
    assert_eq!(peer.grant_with(granted).await["recover"], json!({ "epoch": "e", "offset": 10 }));
    for offset in 11..=13 {
        peer.say(replayed(RINGING, offset)).await;
    }
    assert_eq!(next(&mut fast).await, 13);
    assert_eq!([next(&mut slow).await, next(&mut slow).await], [12, 13]);
}

#[tokio::test]
async fn a_channel_that_has_no_history_any_more_is_subscribed_to_without_it() {
    let (broker, client, mut peer) = session().await;
    let mut reconnections = Box::pin(client.reconnections());
    let mut events = subscribe_to_log(&client, &mut peer, "Phone/*/*", 10).await;
    drop(peer);
    let (mut peer, _) = broker.session().await;
    let subscribe = peer.expect("Broker/Subscription/Subscribe").await;
    let data = json!({ "Success": false, "ErrorCode": "INVALID_ENVELOPE", "ErrorMessage": "no history" });
    peer.answer(&subscribe, data).await;
    assert_eq!(peer.grant().await.get("recover"), None);
    assert!(matches!(next_of(&mut reconnections).await, Reconnection::Lost { .. }));
    peer.say(event(RINGING, json!(1))).await;
    assert_eq!((next(&mut events).await, events.position()), (json!(1), None));
}

#[tokio::test]
async fn an_application_begins_with_kept_events() {
    for (recover, expected) in
        [(Recover::Last(2), json!({ "last": 2 })), (Recover::After(at(8)), json!({ "epoch": "e", "offset": 8 }))]
    {
        let (broker, client, mut peer) = session().await;
        let granted = json!({ "Epoch": "e", "Offset": 10, "Recovered": true, "Replayed": 2 });
        let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).recover(recover);
        let (events, data) = tokio::join!(subscribing.into_future(), peer.grant_with(granted));
        let mut events = events.unwrap();
        assert_eq!((&data["recover"], events.recover_reason()), (&expected, None));
        for offset in 9..=10 {
            peer.say(replayed(RINGING, offset)).await;
            assert_eq!(next(&mut events).await, offset);
        }
        drop(peer);
        let (mut peer, _) = broker.session().await;
        assert_eq!(peer.grant().await["recover"], json!({ "epoch": "e", "offset": 9 }));
    }
}

#[tokio::test]
async fn an_application_learns_why_kept_events_are_not_replayed() {
    let (_broker, client, mut peer) = session().await;
    let granted = json!({ "Epoch": "e", "Offset": 10, "Recovered": false, "RecoverReason": "TOO_OLD" });
    let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).recover(Recover::After(at(1)));
    let (events, _) = tokio::join!(subscribing.into_future(), peer.grant_with(granted));
    let events = events.unwrap();
    assert_eq!((events.recover_reason(), events.position()), (Some("TOO_OLD"), Some(at(10))));
}

/// An observer also receives the events of others, from other logs, whose offsets say nothing about its own.
#[tokio::test]
async fn an_event_of_another_log_does_not_move_the_position() {
    let (_broker, client, mut peer) = session().await;
    let mut own = subscribe_to_log(&client, &mut peer, "Phone/*/*", 10).await;
    let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).observe("*");
    let (observed, _) = tokio::join!(subscribing.into_future(), peer.grant());
    let _observed = observed.unwrap();
    for (user, offset) in [("local", 11), ("bob", 99)] {
        let mut event = logged(RINGING, offset);
        event["user"] = user.into();
        peer.say(event).await;
    }
    assert_eq!([next(&mut own).await, next(&mut own).await], [11, 99]);
    peer.say(event(RINGING, json!("end"))).await;
    assert_eq!(next(&mut own).await, "end");
    assert_eq!(own.position(), Some(at(11)));
}

#[test]
fn where_to_begin_is_read_from_text() {
    assert_eq!("last:50".parse::<Recover>().unwrap(), Recover::Last(50));
    let position = Position { epoch: "a:b".into(), offset: 7 };
    assert_eq!("a:b:7".parse::<Recover>().unwrap(), Recover::After(position.clone()));
    assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
    for wrong in ["", "last:", "last:0", "last:-1", "last:x", "7", ":7", "e:", "e:x", "e:-1"] {
        assert!(matches!(wrong.parse::<Recover>(), Err(Error::Invalid(_))), "{wrong}");
    }
}
