//! Retained values: the last envelope of a triple waits for those who subscribe later (protocol.md, Retained).

use serde_json::{Value, json};

use crate::support::{Broker, Peer, envelope};

const STATE: &str = "Phone/Agent/State";

async fn retain(peer: &mut Peer, triple: &str, more: Value) {
    let mut event = envelope(triple, json!({"retain": true, "id": "retain"}));
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    peer.send(event).await;
    peer.next_receipt("retain").await;
}

/// What a fresh subscriber of this source finds.
async fn found(broker: &Broker, source: &str, pattern: &str) -> Vec<Value> {
    let mut late = broker.app(source).await;
    late.subscribe(pattern).await;
    late.drain_events().await
}

#[tokio::test]
async fn a_late_subscriber_finds_the_last_value_of_every_triple_it_matches() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    for (triple, data) in [("Phone/Agent/State", 1), ("Phone/Agent/Name", 2), ("Phone/Call/State", 3), (STATE, 4)] {
        retain(&mut phone, triple, json!({"data": data})).await;
    }
    for (pattern, expected) in
        [(STATE, vec![4]), ("Phone/Agent/*", vec![2, 4]), ("*/*/*", vec![2, 3, 4]), ("X/*/*", vec![])]
    {
        let mut values = found(&broker, "late", pattern).await;
        values.sort_by_key(|value| value["data"].as_i64());
        assert_eq!(values.iter().map(|it| it["data"].as_i64().unwrap()).collect::<Vec<_>>(), expected, "{pattern}");
        assert!(values.iter().all(|it| it["retained"] == true && it["source"] == "phone"), "{values:?}");
    }
}

#[tokio::test]
async fn a_live_event_is_not_marked_and_comes_after() {
    let broker = Broker::start().await;
    let (mut phone, mut late) = (broker.app("phone").await, broker.app("late").await);
    retain(&mut phone, STATE, json!({"data": 1})).await;
    late.subscribe(STATE).await;
    retain(&mut phone, STATE, json!({"data": 2})).await;
    let (kept, live) = (late.next().await, late.next().await);
    assert_eq!((&kept["data"], kept.get("retained")), (&1.into(), Some(&true.into())));
    assert_eq!((&live["data"], live.get("retained")), (&2.into(), None));
    late.expect_nothing().await;
}

#[tokio::test]
async fn a_value_outlives_its_sender_and_a_null_payload_clears_it() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    for (clear, field) in [(json!({"data": null}), "data"), (json!({"message": null}), "message")] {
        retain(&mut phone, STATE, json!({ field: "Ready" })).await;
        phone.close().await;
        assert_eq!(found(&broker, "late", STATE).await[0][field], "Ready");
        phone = broker.app("another").await;
        retain(&mut phone, STATE, clear).await;
        assert_eq!(found(&broker, "late", STATE).await, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn an_absent_payload_is_kept_as_such() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    retain(&mut phone, STATE, json!({})).await;
    let values = found(&broker, "late", STATE).await;
    assert_eq!((values.len(), values[0].get("data")), (1, None));
}

#[tokio::test]
async fn an_event_that_is_not_to_be_kept_leaves_the_value_alone() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    retain(&mut phone, STATE, json!({"data": 1})).await;
    phone.send(envelope(STATE, json!({"retain": false, "data": 2}))).await;
    phone.send(envelope(STATE, json!({"data": null}))).await;
    phone.fence().await;
    assert_eq!(found(&broker, "late", STATE).await[0]["data"], 1);
}

#[tokio::test]
async fn a_value_with_a_target_is_for_its_subscribers_only() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    retain(&mut phone, STATE, json!({"data": 1, "target": "crm"})).await;
    assert_eq!(found(&broker, "other", STATE).await, Vec::<Value>::new());
    assert_eq!(found(&broker, "crm", STATE).await[0]["data"], 1);
}

#[tokio::test]
async fn a_second_pattern_brings_the_values_it_matches_once_more() {
    let broker = Broker::start().await;
    let (mut phone, mut late) = (broker.app("phone").await, broker.app("late").await);
    retain(&mut phone, STATE, json!({"data": 1})).await;
    let subscription = late.subscribe(STATE).await;
    assert_eq!(late.next().await["data"], 1);
    // The same subscription again is not a new one.
    assert_eq!(late.subscribe(STATE).await, subscription);
    late.expect_nothing().await;
    late.subscribe("Phone/*/*").await;
    assert_eq!(late.next().await["data"], 1);
}

#[tokio::test]
async fn a_handler_finds_no_values() {
    let broker = Broker::start().await;
    let (mut phone, mut handler) = (broker.app("phone").await, broker.app("handler").await);
    retain(&mut phone, STATE, json!({"data": 1})).await;
    handler.handle(STATE).await;
    handler.expect_nothing().await;
}

#[tokio::test]
async fn more_values_than_allowed_are_refused_and_nothing_is_kept_or_sent() {
    let broker = Broker::open_with("[limits]\nretained_values = 2\nretained_bytes = 4096").await;
    let (mut phone, mut listener) = (broker.app("phone").await, broker.app("listener").await);
    listener.subscribe("Phone/*/3").await;
    retain(&mut phone, "Phone/Agent/1", json!({"data": 1})).await;
    retain(&mut phone, "Phone/Agent/2", json!({"data": 2})).await;
    phone.send(envelope("Phone/Agent/3", json!({"retain": true, "id": "over", "data": 3}))).await;
    assert_eq!(phone.next_error("TOO_LARGE").await["inReplyTo"], "over");
    listener.expect_nothing().await;
    // The same triple may change, and one that is cleared makes room.
    retain(&mut phone, "Phone/Agent/2", json!({"data": 4})).await;
    retain(&mut phone, "Phone/Agent/1", json!({"data": null})).await;
    let long = "x".repeat(5000);
    phone.send(envelope("Phone/Agent/3", json!({"retain": true, "id": "long", "data": long}))).await;
    phone.next_error("TOO_LARGE").await;
    retain(&mut phone, "Phone/Agent/3", json!({"data": 5})).await;
    assert_eq!(listener.next().await["data"], 5);
    // The limit is each user's own.
    let mut other = broker.app_of("phone", "other").await;
    retain(&mut other, "Phone/Agent/1", json!({"data": 1})).await;
}

#[tokio::test]
async fn a_protected_triple_is_never_kept() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    phone.send(envelope("Cisco/Agent/Login", json!({"retain": true, "id": "l", "data": "acq@123"}))).await;
    phone.next_failure("Cisco/Agent/Login", "NO_HANDLER").await;
    assert_eq!(found(&broker, "late", "Cisco/Agent/Login").await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_reply_to_subscribe_comes_before_the_values_it_brings() {
    let broker = Broker::start().await;
    let (mut phone, mut late) = (broker.app("phone").await, broker.app("late").await);
    retain(&mut phone, STATE, json!({"data": 1})).await;
    late.send(envelope("Broker/Subscription/Subscribe", json!({"data": envelope(STATE, json!({}))}))).await;
    assert_eq!(late.next_on("Broker/Subscription/Subscribe").await["data"]["Success"], true);
    assert_eq!(late.next_on(STATE).await["retained"], true);
}

#[tokio::test]
async fn all_users_together_have_a_limit_too() {
    let broker = Broker::open_with("[limits]\nretained_total_bytes = 6000").await;
    let long = "x".repeat(4000);
    let (mut alice, mut bob) = (broker.app_of("phone", "alice").await, broker.app_of("phone", "bob").await);
    retain(&mut alice, STATE, json!({"data": long})).await;
    bob.send(envelope(STATE, json!({"retain": true, "id": "over", "data": long}))).await;
    bob.next_error("TOO_LARGE").await;
    retain(&mut alice, STATE, json!({"data": null})).await;
    retain(&mut bob, STATE, json!({"data": long})).await;
}
