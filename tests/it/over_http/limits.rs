//! What bounds calls: rates and pending requests of an application, connections, failed tokens, time.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{DIAL, PUBLISH, Post, REQUEST, broker_with, json_of, refused};
use crate::support::http::{assert_refused, read_response};
use crate::support::{envelope, within};

#[tokio::test]
async fn an_application_has_one_rate_for_all_its_calls() {
    let broker = broker_with("[limits]\nrate = 1\nburst = 3\n").await;
    let call = Post::of("crm", PUBLISH, &envelope(DIAL, json!({})));
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(call.begin(broker.address()).await);
    }
    for answer in &mut answers {
        assert_eq!(read_response(answer).await.status, 200);
    }
    // More than a second may have passed.
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let response = call.send(&broker).await;
        if response.status == 429 {
            refused(&response, 429, "RATE_LIMITED");
            assert_eq!(response.header("retry-after"), Some("1"));
            return;
        }
        statuses.push(response.status);
    }
    panic!("20 calls at once passed: {statuses:?}");
}

#[tokio::test]
async fn bytes_count_for_the_application_too() {
    let broker = broker_with("[limits]\nrate_bytes = 1000\nmessage_bytes = 1000\n").await;
    let call = Post::of("crm", PUBLISH, &envelope(DIAL, json!({"data": "x".repeat(900)})));
    call.succeed(&broker).await;
    refused(&call.send(&broker).await, 429, "RATE_LIMITED");
}

#[tokio::test]
async fn an_application_has_a_limit_of_pending_requests() {
    let broker = broker_with("[limits]\npending_requests = 1\n").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.handle(DIAL).await;
    let call = Post::of("crm", REQUEST, &envelope(DIAL, json!({})));
    let mut first = call.begin(broker.address()).await;
    let request = desk.next_on(DIAL).await;
    refused(&call.send(&broker).await, 429, "TOO_MANY_REQUESTS");
    desk.reply(&request, json!({"data": 1})).await;
    assert_eq!(json_of(&read_response(&mut first).await)["data"], 1);
    let mut next = call.begin(broker.address()).await;
    let request = desk.next_on(DIAL).await;
    desk.reply(&request, json!({"data": 2})).await;
    assert_eq!(json_of(&read_response(&mut next).await)["data"], 2);
}

#[tokio::test]
async fn the_answers_to_a_gather_are_bounded() {
    let others = crate::support::application("other", super::ALICE, "");
    let broker = broker_with(&format!("[limits]\noutbound_bytes = 2000\nmessage_bytes = 1500\n{others}")).await;
    let (mut desk, mut other) = (broker.app_by_token("desk").await, broker.app_by_token("other").await);
    desk.handle(DIAL).await;
    other.handle(DIAL).await;
    let mut call = Post::of("crm", REQUEST, &envelope(DIAL, json!({"gather": true}))).begin(broker.address()).await;
    for handler in [&mut desk, &mut other] {
        let request = handler.next_on(DIAL).await;
        handler.reply(&request, json!({"data": "x".repeat(1200)})).await;
    }
    let detail = refused(&read_response(&mut call).await, 413, "TOO_LARGE");
    assert!(detail.contains("outbound_bytes"), "{detail}");
}

#[tokio::test]
async fn a_call_counts_as_a_connection() {
    let broker = broker_with("[limits]\nconnections = 2\n").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.handle(DIAL).await;
    let call = Post::of("crm", REQUEST, &envelope(DIAL, json!({})));
    let mut first = call.begin(broker.address()).await;
    let request = desk.next_on(DIAL).await;
    let beyond = call.send(&broker).await;
    assert_refused(&beyond, 503, "limits.connections");
    assert!(beyond.header("retry-after").is_some());
    desk.reply(&request, json!({"data": 1})).await;
    assert_eq!(read_response(&mut first).await.status, 200);
}

#[tokio::test]
async fn tokens_that_prove_nobody_count_as_failed_registrations() {
    let broker = broker_with("[limits]\nfailed_registrations = 2\n").await;
    let wrong = Post::of("crm", PUBLISH, &Value::Null).with("Authorization", "Bearer wrong");
    for _ in 0..2 {
        refused(&wrong.send(&broker).await, 401, "UNAUTHENTICATED");
    }
    refused(&wrong.send(&broker).await, 429, "RATE_LIMITED");
    // A whole call centre can share an address.
    Post::of("crm", PUBLISH, &envelope(DIAL, json!({}))).succeed(&broker).await;
}

/// 100,000 bytes are announced, and 10 are sent.
#[tokio::test]
async fn a_caller_that_hangs_up_within_its_body_is_forgotten() {
    let broker = broker_with("").await;
    let post = Post::of("crm", PUBLISH, &Value::Null).with_body("x".repeat(100_000)).with("Expect", "100-continue");
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    stream.write_all(post.head("POST").as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    within("100", stream.read_exact(&mut interim)).await.unwrap();
    stream.write_all(b"0123456789").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within("the end", stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "there is nobody to answer: {}", String::from_utf8_lossy(&rest));
    Post::of("crm", PUBLISH, &envelope(DIAL, json!({}))).succeed(&broker).await;
}
