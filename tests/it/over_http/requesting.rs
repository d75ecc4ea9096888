//! What `/v1/request` does: a request as a session would send it, and its one answer.

use serde_json::{Value, json};

use super::{ALICE, DIAL, Post, REQUEST, applications, broker_with, json_of, refused};
use crate::support::http::read_response;
use crate::support::{Broker, application, envelope};

#[tokio::test]
async fn the_handlers_reply_is_the_answer_whatever_it_says() {
    let broker = broker_with("").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.handle(DIAL).await;
    for data in [json!({"Success": true}), json!({"Success": false, "ErrorCode": "NO_HANDLER"}), Value::Null] {
        let call = Post::of("crm", REQUEST, &envelope(DIAL, json!({"id": "mine", "data": "+49301234"})));
        let mut answer = call.begin(broker.address()).await;
        let request = desk.next_on(DIAL).await;
        assert_eq!((&request["source"], &request["data"]), (&json!("crm"), &json!("+49301234")));
        assert_eq!(request["requestId"], "mine");
        assert!(request["timeout"].as_u64().unwrap() <= 10_000, "the time that is left");
        desk.reply(&request, json!({"more": true, "data": "dialling"})).await;
        desk.reply(&request, json!({"data": data, "source": "desk", "extra": 1})).await;
        let response = read_response(&mut answer).await;
        assert_eq!(response.status, 200);
        let reply = json_of(&response);
        assert_eq!(reply["data"], data, "a progressive reply is not passed on");
        assert_eq!(reply["inReplyTo"], "mine");
        assert_eq!((&reply["source"], &reply["extra"], &reply["more"]), (&json!("desk"), &json!(1), &Value::Null));
    }
}

/// Two callers may have the same id: each is a requester of its own.
#[tokio::test]
async fn calls_with_the_same_id_are_answered_apart() {
    let broker = broker_with("").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.handle(DIAL).await;
    let call = |data: &str| Post::of("crm", REQUEST, &envelope(DIAL, json!({"id": "same", "data": data})));
    let mut first = call("first").begin(broker.address()).await;
    let one = desk.next_on(DIAL).await;
    let mut second = call("second").begin(broker.address()).await;
    let other = desk.next_on(DIAL).await;
    assert_ne!(one["id"], other["id"]);
    desk.reply(&other, json!({"data": "to the second"})).await;
    desk.reply(&one, json!({"data": "to the first"})).await;
    assert_eq!(json_of(&read_response(&mut first).await)["data"], "to the first");
    assert_eq!(json_of(&read_response(&mut second).await)["data"], "to the second");
}

#[tokio::test]
async fn what_would_be_an_event_is_a_request_here() {
    let broker = broker_with("").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.subscribe(DIAL).await;
    refused(&Post::of("crm", REQUEST, &envelope(DIAL, json!({}))).send(&broker).await, 404, "NO_HANDLER");
    desk.expect_nothing().await;
    let similar = Post::of("crm", REQUEST, &envelope("Phone/Call/Dail", json!({}))).send(&broker).await;
    refused(&similar, 404, "NO_HANDLER");
    let problem: Value = serde_json::from_str(&similar.body).unwrap();
    assert!(problem["hint"].as_str().unwrap().contains(DIAL), "{problem}");
}

#[tokio::test]
async fn a_command_is_answered_with_its_receipt() {
    let broker = broker_with("").await;
    let mut desk = broker.app_by_token("desk").await;
    desk.subscribe_with(DIAL, json!({"role": "handler", "answers": false})).await;
    let receipt = Post::of("crm", REQUEST, &envelope(DIAL, json!({}))).succeed(&broker).await;
    assert_eq!(receipt["receivers"], 1);
    desk.next_on(DIAL).await;
}

#[tokio::test]
async fn a_gather_has_one_answer_of_each_handler_and_those_that_failed() {
    let others = ["one", "two", "three"].map(|source| application(source, ALICE, "")).concat();
    let broker = Broker::with_config(&(applications() + &others)).await;
    let mut handlers = Vec::new();
    for source in ["one", "two", "three"] {
        let mut handler = broker.app_by_token(source).await;
        handler.handle(DIAL).await;
        handlers.push(handler);
    }
    let mut call =
        Post::of("crm", REQUEST, &envelope(DIAL, json!({"id": "g", "gather": true}))).begin(broker.address()).await;
    let mut requests = Vec::new();
    for handler in &mut handlers {
        requests.push(handler.next_on(DIAL).await);
    }
    handlers[0].reply(&requests[0], json!({"more": true, "data": "soon"})).await;
    handlers[0].reply(&requests[0], json!({"data": "one"})).await;
    handlers[1].reply(&requests[1], json!({"data": "two"})).await;
    handlers[0].fence().await;
    handlers[1].fence().await;
    handlers.pop().unwrap().close().await;
    let gathered = json_of(&read_response(&mut call).await);
    let answers: Vec<&Value> = gathered["answers"].as_array().unwrap().iter().map(|answer| &answer["data"]).collect();
    assert!(answers == ["one", "two"] || answers == ["two", "one"], "{gathered}");
    assert_eq!(gathered["expected"], 3);
    assert_eq!(gathered["failed"], json!([{"source": "three", "errorCode": "HANDLER_GONE"}]));
    let keys: Vec<&String> = gathered.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["answers", "expected", "failed"]);

    let nobody = envelope("Phone/Call/Unknown", json!({"gather": true}));
    let gathered = Post::of("crm", REQUEST, &nobody).succeed(&broker).await;
    assert_eq!(gathered, json!({"answers": [], "expected": 0, "failed": []}));
}

#[tokio::test]
async fn the_answer_of_an_adapter_is_unchanged() {
    let broker = broker_with("").await;
    let fetch = envelope("Salesforce/User/FetchCredentials", json!({"id": "f"}));
    let reply = Post::of("crm", REQUEST, &fetch).succeed(&broker).await;
    assert_eq!(reply["data"]["Success"], false);
    assert_eq!(reply["data"]["ErrorCode"], "CREDENTIALS_NOT_FOUND");
    broker.credentials_set("alice", "1245456", "secret of alice", "5051").await;
    let reply = Post::of("crm", REQUEST, &fetch).succeed(&broker).await;
    assert_eq!((&reply["data"]["Success"], &reply["data"]["Password"]), (&json!(true), &json!("secret of alice")));
}
