//! How calls end that are not answered by a handler.

use serde_json::json;

use super::{ALICE, DIAL, Post, REQUEST, applications, broker_with, refused};
use crate::support::http::{assert_refused, read_response};
use crate::support::{Broker, application, envelope};

#[tokio::test]
async fn a_request_without_an_answer_ends_with_its_time_limit() {
    let broker = broker_with("[requests]\ntimeout = \"300ms\"\n").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.handle(DIAL).await;
    for more in [json!({}), json!({"timeout": 20}), json!({"timeout": 600_000})] {
        let response = Post::of("crm", REQUEST, &envelope(DIAL, more)).send(&broker).await;
        assert!(refused(&response, 504, "REQUEST_TIMEOUT").contains("desk"));
    }
}

#[tokio::test]
async fn a_request_whose_handler_leaves_fails() {
    let broker = broker_with("").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.handle(DIAL).await;
    let mut call = Post::of("crm", REQUEST, &envelope(DIAL, json!({}))).begin(broker.address()).await;
    desk.next_on(DIAL).await;
    desk.close().await;
    refused(&read_response(&mut call).await, 502, "HANDLER_GONE");
}

#[tokio::test]
async fn a_caller_that_hangs_up_cancels_its_request() {
    let others = application("other", ALICE, "");
    let broker = Broker::with_config(&(applications() + &others)).await;
    let (mut desk, mut other) = (broker.app_by_token("desk").await, broker.app_by_token("other").await);
    desk.handle(DIAL).await;
    other.handle(DIAL).await;
    for gather in [false, true] {
        let call = Post::of("crm", REQUEST, &envelope(DIAL, json!({"id": "mine", "gather": gather})));
        let stream = call.begin(broker.address()).await;
        let mut given = vec![&mut desk];
        given.extend(gather.then_some(&mut other));
        let mut ids = Vec::new();
        for handler in &mut given {
            ids.push(handler.next_on(DIAL).await["id"].clone());
        }
        drop(stream);
        for (handler, id) in given.into_iter().zip(ids) {
            let cancelled = handler.next_on("Broker/Request/Cancelled").await;
            assert_eq!(cancelled["inReplyTo"], id);
        }
        // So that the first handler is chosen again.
        if !gather {
            let mut call = call.begin(broker.address()).await;
            let request = other.next_on(DIAL).await;
            other.reply(&request, json!({"data": 1})).await;
            assert_eq!(read_response(&mut call).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_drain_lets_calls_finish_and_then_cancels_them() {
    let mut broker = broker_with("[limits]\ndrain = \"3s\"\n").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.handle(DIAL).await;
    desk.handle("Phone/Call/Hold").await;
    let mut answered = Post::of("crm", REQUEST, &envelope(DIAL, json!({}))).begin(broker.address()).await;
    let request = desk.next_on(DIAL).await;
    let mut unanswered =
        Post::of("crm", REQUEST, &envelope("Phone/Call/Hold", json!({}))).begin(broker.address()).await;
    desk.next_on("Phone/Call/Hold").await;
    broker.terminate().await;
    desk.next_on("Broker/Connection/Draining").await;
    let late = Post::of("crm", REQUEST, &envelope(DIAL, json!({}))).send(&broker).await;
    assert_refused(&late, 503, "shutting down");
    desk.reply(&request, json!({"data": "still answered"})).await;
    assert_eq!(read_response(&mut answered).await.status, 200);
    refused(&read_response(&mut unanswered).await, 503, "REQUEST_CANCELLED");
    assert_eq!(broker.exit_code().await, Some(0));
}
