//! Retained values: the limits in bytes. Transcripts show the rest.

use serde_json::{Value, json};

use crate::support::{Broker, Peer, envelope};

const STATE: &str = "Phone/Agent/State";

async fn retain(peer: &mut Peer, triple: &str, more: Value) {
    let mut event = envelope(triple, json!({"retain": true, "id": "retain"}));
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    peer.send(event).await;
    peer.next_receipt("retain").await;
}

#[tokio::test]
async fn a_value_beyond_the_bytes_allowed_is_neither_kept_nor_sent() {
    let broker = Broker::open_with("[limits]\nretained_bytes = 4096").await;
    let (mut phone, mut listener) = (broker.app("phone").await, broker.app("listener").await);
    listener.subscribe(STATE).await;
    let long = "x".repeat(5000);
    phone.send(envelope(STATE, json!({"retain": true, "id": "long", "data": long}))).await;
    assert_eq!(phone.next_error("TOO_LARGE").await["inReplyTo"], "long");
    listener.expect_nothing().await;
    retain(&mut phone, STATE, json!({"data": "short"})).await;
    assert_eq!(listener.next().await["data"], "short");
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
