//! A handler that is killed at any step leaves exactly one answer to its requester.

use serde_json::{Value, json};

use crate::support::frames::{RawSocket, TEXT, frame};
use crate::support::{Broker, envelope};

const DIAL: &str = "Phone/Call/Dial";

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
