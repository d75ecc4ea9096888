//! Handlers that leave, in every way and at every step: the asker still gets exactly one answer.

use serde_json::{Value, json};

use crate::support::frames::{RawSocket, TEXT, frame};
use crate::support::{Broker, envelope};

const DIAL: &str = "Phone/Call/Dial";

#[tokio::test]
async fn a_handler_that_unsubscribes_may_still_answer() {
    let broker = Broker::start().await;
    let mut handler = broker.app("handler").await;
    let subscription = handler.handle(DIAL).await;
    let mut asker = broker.app("asker").await;
    asker.ask(DIAL, "r").await;
    let request = handler.next_on(DIAL).await;
    let reply = handler.command("Subscription", "Unsubscribe", json!({"SubscriptionId": subscription})).await;
    assert_eq!(reply["data"]["Success"], true, "{reply}");
    handler.reply(&request, json!({"data": 1})).await;
    assert_eq!(asker.next_answer(DIAL, "r").await["data"], 1);
    asker.send(envelope(DIAL, json!({"id": "s", "timeout": 1000}))).await;
    asker.next_failure(DIAL, "NO_HANDLER").await;
}

#[tokio::test]
async fn a_handler_that_unregisters_is_gone() {
    let broker = Broker::start().await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler-0").await);
    handler.handle("Phone/Call/*").await;
    asker.ask(DIAL, "r").await;
    let request = handler.next_on(DIAL).await;
    handler.command("Application", "Unregister", json!({})).await;
    asker.next_failure(DIAL, "HANDLER_GONE").await;
    let reply = handler.register("handler-0", json!({})).await;
    assert_eq!(reply["data"]["Success"], true);
    handler.reply(&request, json!({})).await;
    handler.next_error("NO_SUCH_REQUEST").await;
    asker.expect_nothing().await;
}

#[tokio::test]
async fn a_request_that_is_given_to_a_command_handler_instead_gets_its_receipt() {
    let broker = Broker::start().await;
    let (mut asker, mut first) = (broker.app("asker").await, broker.app("first").await);
    first.handle(DIAL).await;
    asker.send(envelope(DIAL, json!({"id": "r", "idempotent": true}))).await;
    first.next_on(DIAL).await;
    let mut second = broker.app("second").await;
    second.subscribe_with(DIAL, json!({"role": "handler", "answers": false})).await;
    first.kill();
    assert_eq!(asker.next_receipt("r").await, 1);
    second.next_on(DIAL).await;
}

/// Where a handler is when it is killed.
#[derive(Clone, Copy, Debug)]
enum Step {
    BeforeItReads,
    AfterItReads,
    AfterMore,
    InTheMiddleOfItsReply,
    AfterItsReply,
}

#[tokio::test]
async fn a_handler_killed_at_any_step_leaves_exactly_one_answer() {
    let broker = Broker::start().await;
    let mut asker = broker.app("asker").await;
    let steps =
        [Step::BeforeItReads, Step::AfterItReads, Step::AfterMore, Step::InTheMiddleOfItsReply, Step::AfterItsReply];
    for (at, step) in (0..4).flat_map(|_| steps).enumerate() {
        let id = format!("{at}");
        let mut handler = RawSocket::registered(&broker, "handler").await;
        let subscribe = r#"{"channel":"Broker","topic":"Subscription","subtopic":"Subscribe","data":{"channel":"Phone","topic":"Call","subtopic":"Dial","role":"handler"}}"#;
        handler.write(&frame(TEXT, subscribe.as_bytes())).await;
        handler.read_message().await.unwrap();
        asker.ask(DIAL, &id).await;
        // Given to it for sure: else it might be dead before anybody asks.
        asker.fence().await;
        let mut may_be_answered = false;
        if !matches!(step, Step::BeforeItReads) {
            let request: Value = serde_json::from_str(handler.read_message().await.unwrap().text()).unwrap();
            let reply = |more| envelope(DIAL, json!({"inReplyTo": request["id"], "more": more, "data": "answer"}));
            let last = frame(TEXT, reply(false).to_string().as_bytes());
            match step {
                Step::BeforeItReads | Step::AfterItReads => {}
                Step::AfterMore => {
                    handler.write(&frame(TEXT, reply(true).to_string().as_bytes())).await;
                    assert_eq!(asker.next_answer(DIAL, &id).await["more"], true);
                }
                Step::InTheMiddleOfItsReply => handler.write(&last[..last.len() / 2]).await,
                Step::AfterItsReply => {
                    handler.write(&last).await;
                    may_be_answered = true;
                }
            }
        }
        handler.kill();
        let answer = asker.next_answer(DIAL, &id).await;
        let answered = may_be_answered && answer["data"] == "answer";
        assert!(answered || answer["data"]["ErrorCode"] == "HANDLER_GONE", "{step:?}: {answer}");
        asker.expect_nothing().await;
    }
}
