//! What `/v1/publish` does: an event as a session would send it, and its receipt.

use serde_json::json;

use super::{ALICE, DIAL, PUBLISH, Post, applications, broker_with, refused};
use crate::support::{Broker, application, envelope};

#[tokio::test]
async fn an_event_is_delivered_and_its_receipt_is_the_answer() {
    let broker = broker_with("").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.subscribe("Phone/Call/Ringing").await;
    let event = envelope("Phone/Call/Ringing", json!({"data": {"from": "+49301234"}}));
    let receipt = Post::of("crm", PUBLISH, &event).succeed(&broker).await;
    assert_eq!(receipt, json!({"receivers": 1, "duplicate": false, "offset": null, "epoch": null, "hint": null}));
    let arrived = desk.next_on("Phone/Call/Ringing").await;
    assert_eq!((&arrived["source"], &arrived["data"]["from"]), (&json!("crm"), &json!("+49301234")));

    let misspelt = Post::of("crm", PUBLISH, &envelope("Phone/Call/Rining", json!({}))).succeed(&broker).await;
    assert_eq!(misspelt["receivers"], 0);
    assert!(misspelt["hint"].as_str().unwrap().contains("Phone/Call/Ringing"), "{misspelt}");
}

/// Somebody who lists the applications, or waits for one, is not told of a call.
#[tokio::test]
async fn a_caller_has_no_presence_and_does_not_count_as_a_session() {
    let applications = [("crm", "over_http = true\nexclusive = true"), ("desk", "")];
    let applications = applications.map(|(source, more)| application(source, ALICE, more)).concat();
    let broker = Broker::with_config(&format!("[limits]\nsessions_per_source = 1\n{applications}")).await;
    let mut desk = broker.app_by_token("desk").await;
    desk.subscribe("Broker/Application/*").await;
    // It is exclusive, and has a session already.
    let mut crm = broker.app_by_token("crm").await;
    desk.next_on("Broker/Application/Joined").await;
    for _ in 0..3 {
        Post::of("crm", PUBLISH, &envelope("Phone/Call/Ringing", json!({}))).succeed(&broker).await;
    }
    crm.fence().await;
    desk.expect_nothing_from(&mut crm).await;
    let list = desk.command("Application", "List", json!({})).await;
    let rows = list["data"]["Applications"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["Sessions"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn what_the_rules_make_a_request_is_not_published() {
    let broker = broker_with("[requests]\nonly = [\"Crm/*/*\"]\n").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.handle(DIAL).await;
    for event in [
        envelope(DIAL, json!({})),
        envelope("Phone/Call/Other", json!({"timeout": 1000})),
        envelope("Phone/Call/Other", json!({"gather": true})),
        envelope("Phone/Call/Other", json!({"idempotent": true})),
    ] {
        let detail = refused(&Post::of("crm", PUBLISH, &event).send(&broker).await, 400, "INVALID_ENVELOPE");
        assert!(detail.contains("/v1/request"), "{detail}");
    }
    refused(&Post::of("crm", PUBLISH, &envelope("Crm/Contact/Find", json!({}))).send(&broker).await, 404, "NO_HANDLER");
    desk.expect_nothing().await;
}

/// Nobody answers a command, so it needs the right to publish and no more.
#[tokio::test]
async fn a_command_that_no_handler_answers_is_published() {
    let roles = "[roles.caller]\npublish = [\"*/*/*\"]\nsubscribe = []\nrequest = []\nhandle = []\n";
    let crm = application("crm", ALICE, "over_http = true\nrole = \"caller\"");
    let broker = Broker::with_config(&format!("{roles}{crm}{}", application("desk", ALICE, ""))).await;
    let mut desk = broker.app_by_token("desk").await;
    desk.subscribe_with(DIAL, json!({"role": "handler", "answers": false})).await;
    let receipt = Post::of("crm", PUBLISH, &envelope(DIAL, json!({"data": 1}))).succeed(&broker).await;
    assert_eq!(receipt["receivers"], 1);
    assert_eq!(desk.next_on(DIAL).await["data"], 1);
}

#[tokio::test]
async fn a_repeated_id_is_published_once() {
    for durable in ["", ", durable = true"] {
        let channel = format!("[channels.Orders]\nhistory = {{ size = 10, ttl = \"1m\"{durable} }}\n");
        let broker = broker_with(&channel).await;
        let mut desk = broker.app_by_token("desk").await;
        desk.subscribe("Orders/*/*").await;
        let event = envelope("Orders/Order/Placed", json!({"id": "o-1", "once": true, "data": 1}));
        let first = Post::of("crm", PUBLISH, &event).succeed(&broker).await;
        assert_eq!((&first["duplicate"], &first["offset"], &first["receivers"]), (&json!(false), &json!(1), &json!(1)));
        assert!(first["epoch"].is_string());
        let second = Post::of("crm", PUBLISH, &event).succeed(&broker).await;
        assert_eq!((&second["duplicate"], &second["offset"]), (&json!(true), &json!(1)));
        assert_eq!(second["epoch"], first["epoch"]);
        // Without `once`, an id means nothing.
        let other = envelope("Orders/Order/Placed", json!({"id": "o-1", "data": 2}));
        assert_eq!(Post::of("crm", PUBLISH, &other).succeed(&broker).await["offset"], 2);
        let arrived = [desk.next_on("Orders/Order/Placed").await, desk.next_on("Orders/Order/Placed").await];
        assert_eq!(arrived.map(|event| event["data"].clone()), [json!(1), json!(2)]);
    }
}

#[tokio::test]
async fn retained_values_are_kept_beyond_the_call() {
    let broker = broker_with("").await;
    let event = envelope("Phone/Line/State", json!({"retain": true, "data": "busy"}));
    Post::of("crm", PUBLISH, &event).succeed(&broker).await;
    let mut desk = broker.app_by_token("desk").await;
    desk.subscribe("Phone/Line/*").await;
    let value = desk.next_on("Phone/Line/State").await;
    assert_eq!((&value["data"], &value["retained"]), (&json!("busy"), &json!(true)));
}

#[tokio::test]
async fn a_body_can_be_sent_in_chunks_or_after_a_100() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use crate::support::http::read_response;
    use crate::support::{token_of, within};

    let broker = Broker::with_config(&applications()).await;
    let body = envelope("Phone/Call/Ringing", json!({})).to_string();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json; charset=utf-8\r\n\
         authorization: bearer {}\r\n",
        token_of("crm")
    );
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for byte in chunked.as_bytes().chunks(7) {
        stream.write_all(byte).await.unwrap();
    }
    assert_eq!(read_response(&mut stream).await.status, 200);

    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    let head = format!("{head}Content-Length: {}\r\nExpect: 100-continue\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    within("100", stream.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(read_response(&mut stream).await.status, 200);
}
