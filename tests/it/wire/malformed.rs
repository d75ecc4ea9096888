//! Malformed messages on a real connection: each is answered, the session lives on, and ten in a row end it. The rules
//! themselves are shown by `crates/wire/tests`.

use serde_json::json;

use crate::support::{Broker, envelope};

#[tokio::test]
async fn a_malformed_message_is_answered_and_the_session_lives_on() {
    let broker = Broker::start().await;
    let mut neighbour = broker.app("neighbour").await;
    neighbour.subscribe("*/*/*").await;
    let mut peer = broker.app("myapp").await;
    let texts = [
        (r#"{"channel":"Sales","topic":"Call","subtopic":"Ring""#, "INVALID_JSON"),
        (r#"{"channel":"Sales","topic":"Call","subtopic":"Ring","User":"x","id":"m1"}"#, "INVALID_ENVELOPE"),
        (r#"{"channel":"broker","topic":"Connection","subtopic":"Ping"}"#, "RESERVED_CHANNEL"),
    ];
    for (text, code) in texts {
        peer.send_text(text).await;
        let answer = peer.next_error(code).await;
        assert_eq!(answer.get("inReplyTo").is_some(), text.contains("m1"), "{answer}");
        peer.expect_nothing().await;
    }
    neighbour.expect_nothing().await;
}

#[tokio::test]
async fn a_binary_message_is_answered_with_what_to_send() {
    let broker = Broker::start().await;
    let mut peer = broker.app("myapp").await;
    peer.send_binary(br#"{"channel":"Sales","topic":"Call","subtopic":"Ring"}"#).await;
    let answer = peer.next_error("INVALID_ENVELOPE").await;
    assert!(answer["data"]["ErrorMessage"].as_str().unwrap().contains("send text messages"), "{answer}");
    peer.expect_nothing().await;
}

#[tokio::test]
async fn a_binary_register_is_refused_and_a_text_one_succeeds() {
    let broker = Broker::start().await;
    let mut peer = broker.raw("myapp").await;
    peer.send_binary(br#"{"channel":"Broker","topic":"Application","subtopic":"Register","source":"myapp"}"#).await;
    peer.next_error("INVALID_ENVELOPE").await;
    assert_eq!(peer.register("myapp", json!({})).await["data"]["Success"], true);
}

#[tokio::test]
async fn commands_that_are_sent_together_are_answered_in_order() {
    let broker = Broker::start().await;
    let mut peer = broker.raw("myapp").await;
    let command = |at: usize, triple: &str, more: serde_json::Value| {
        let mut command = envelope(triple, more);
        command["id"] = at.to_string().into();
        command
    };
    let register = command(0, "Broker/Application/Register", json!({"source": "myapp"}));
    let subscribe = command(1, "Broker/Subscription/Subscribe", json!({"data": {"channel": "Sales"}}));
    let rest = ["Subscription/List", "Connection/Ping", "Application/SetState", "Coffee/Brew", "Application/List"];
    let rest = rest.iter().enumerate().map(|(at, name)| command(at + 2, &format!("Broker/{name}"), json!({})));
    peer.send_all([register, subscribe].into_iter().chain(rest)).await;
    for at in 0..7 {
        assert_eq!(peer.next().await["inReplyTo"], at.to_string());
    }
}

#[tokio::test]
async fn ten_malformed_messages_in_a_row_close_with_1008() {
    let broker = Broker::start().await;
    let mut peer = broker.app("myapp").await;
    let mut neighbour = broker.app("neighbour").await;
    for at in 0..10 {
        // Unreadable ones and binary ones count alike.
        match at % 3 {
            0 => peer.send_text("{").await,
            1 => peer.send_binary(b"\0").await,
            _ => peer.send_text("{}").await,
        }
    }
    let (answers, code) = peer.until_closed().await;
    assert_eq!(code, 1008);
    assert!(answers.len() >= 9, "each is answered: {answers:?}");
    neighbour.expect_nothing().await;
}

#[tokio::test]
async fn a_good_message_starts_the_count_of_malformed_ones_anew() {
    let broker = Broker::start().await;
    let mut peer = broker.app("myapp").await;
    for _ in 0..3 {
        for _ in 0..9 {
            peer.send_text("{").await;
            peer.next_error("INVALID_JSON").await;
        }
        peer.expect_nothing().await;
    }
}

#[tokio::test]
async fn refusals_are_not_malformed_messages() {
    let broker = Broker::start().await;
    let mut peer = broker.app("myapp").await;
    for _ in 0..30 {
        peer.send(envelope("Sales/Call/Ring", json!({"source": "another"}))).await;
        peer.next_error("SOURCE_MISMATCH").await;
    }
    peer.expect_nothing().await;
}
