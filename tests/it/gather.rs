//! `gather`: every handler is asked, each answer is passed on, and the broker says when all have been heard.

use serde_json::{Value, json};

use crate::support::{Broker, Peer, envelope};

const STATS: &str = "Queue/Stats/Get";

async fn handler(broker: &Broker, source: &str, options: Value) -> Peer {
    let mut peer = broker.app(source).await;
    let mut all = json!({"role": "handler"});
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    peer.subscribe_with(STATS, all).await;
    peer
}

async fn gather(asker: &mut Peer, more: Value) {
    let mut request = envelope(STATS, json!({"id": "g", "gather": true}));
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    asker.send(request).await;
}

/// The broker's last word: what it expected, what was answered, and who failed with what, in any order.
fn assert_summary(summary: &Value, expected: u64, answered: u64, failed: &[(&str, &str)]) {
    assert_eq!((&summary["data"]["Success"], &summary["data"]["ErrorMessage"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(summary.get("more"), None, "the last word: {summary}");
    assert_eq!(
        (&summary["data"]["Expected"], &summary["data"]["Answered"]),
        (&expected.into(), &answered.into()),
        "{summary}"
    );
    let mut found: Vec<(&str, &str)> = summary["data"]["Failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["Source"].as_str().unwrap(), it["ErrorCode"].as_str().unwrap()))
        .collect();
    found.sort_unstable();
    let mut failed = failed.to_vec();
    failed.sort_unstable();
    assert_eq!(found, failed, "{summary}");
}

#[tokio::test]
async fn every_answer_bears_more_and_the_end_is_told() {
    let broker = Broker::start().await;
    let mut asker = broker.app("asker").await;
    let (mut one, mut two) = (handler(&broker, "one", json!({})).await, handler(&broker, "two", json!({})).await);
    gather(&mut asker, json!({})).await;
    let (first, second) = (one.next_on(STATS).await, two.next_on(STATS).await);
    one.reply(&first, json!({"data": 1})).await;
    let answer = asker.next_answer(STATS, "g").await;
    assert_eq!((&answer["more"], &answer["data"]), (&Value::Bool(true), &Value::from(1)));
    // A second answer of the same handler is none.
    one.reply(&first, json!({"data": 1})).await;
    one.next_error("NO_SUCH_REQUEST").await;
    two.reply(&second, json!({"data": 2})).await;
    assert_eq!(asker.next_answer(STATS, "g").await["data"], 2);
    assert_summary(&asker.next_answer(STATS, "g").await, 2, 2, &[]);
    asker.expect_nothing().await;
}

#[tokio::test]
async fn handlers_that_die_time_out_or_are_killed_are_named() {
    let broker = Broker::start().await;
    let mut asker = broker.app("asker").await;
    let mut good = handler(&broker, "good", json!({})).await;
    let mut dies = handler(&broker, "dies", json!({})).await;
    let mut silent = handler(&broker, "silent", json!({})).await;
    gather(&mut asker, json!({"timeout": 1500})).await;
    let request = good.next_on(STATS).await;
    dies.next_on(STATS).await;
    silent.next_on(STATS).await;
    dies.kill();
    good.reply(&request, json!({"data": 1})).await;
    assert_eq!(asker.next_answer(STATS, "g").await["data"], 1);
    let summary = asker.next_answer(STATS, "g").await;
    assert_summary(&summary, 3, 1, &[("dies", "HANDLER_GONE"), ("silent", "REQUEST_TIMEOUT")]);
    asker.expect_nothing().await;
}

#[tokio::test]
async fn one_that_sends_more_is_counted_once_and_waited_for() {
    let broker = Broker::start().await;
    let mut asker = broker.app("asker").await;
    let (mut one, mut two) = (handler(&broker, "one", json!({})).await, handler(&broker, "two", json!({})).await);
    gather(&mut asker, json!({})).await;
    let (first, second) = (one.next_on(STATS).await, two.next_on(STATS).await);
    for at in 0..3 {
        one.reply(&first, json!({"data": at, "more": true})).await;
        assert_eq!(asker.next_answer(STATS, "g").await["data"], at);
    }
    two.reply(&second, json!({"data": "two"})).await;
    assert_eq!(asker.next_answer(STATS, "g").await["data"], "two");
    asker.expect_nothing().await;
    one.reply(&first, json!({"data": "last", "more": false})).await;
    let last = asker.next_answer(STATS, "g").await;
    assert_eq!((&last["data"], &last["more"]), (&Value::from("last"), &Value::Bool(true)));
    assert_summary(&asker.next_answer(STATS, "g").await, 2, 2, &[]);
}

#[tokio::test]
async fn one_that_dies_after_more_has_failed() {
    let broker = Broker::start().await;
    let mut asker = broker.app("asker").await;
    let mut one = handler(&broker, "one", json!({})).await;
    gather(&mut asker, json!({})).await;
    let request = one.next_on(STATS).await;
    one.reply(&request, json!({"more": true})).await;
    asker.next_answer(STATS, "g").await;
    one.kill();
    assert_summary(&asker.next_answer(STATS, "g").await, 1, 0, &[("one", "HANDLER_GONE")]);
}

#[tokio::test]
async fn ordered_handlers_take_part_in_their_turn() {
    let broker = Broker::start().await;
    let (mut asker, mut other) = (broker.app("asker").await, broker.app("other").await);
    let mut ordered = handler(&broker, "ordered", json!({"ordered": true})).await;
    other.ask(STATS, "first").await;
    ordered.next_on(STATS).await;
    let mut free = handler(&broker, "free", json!({})).await;
    gather(&mut asker, json!({})).await;
    let request = free.next_on(STATS).await;
    free.reply(&request, json!({"data": "free"})).await;
    assert_eq!(asker.next_answer(STATS, "g").await["data"], "free");
    // Its turn comes when it has answered what it had.
    ordered.expect_nothing().await;
    ordered.publish(STATS, "for the first").await;
    assert_eq!(other.next_answer(STATS, "first").await["data"], "for the first");
    ordered.next_on(STATS).await;
    ordered.publish(STATS, "for the gather").await;
    assert_eq!(asker.next_answer(STATS, "g").await["data"], "for the gather");
    assert_summary(&asker.next_answer(STATS, "g").await, 2, 2, &[]);
}

#[tokio::test]
async fn a_gather_is_cancelled_as_a_whole() {
    let broker = Broker::start().await;
    let mut asker = broker.app("asker").await;
    let (mut one, mut two) = (handler(&broker, "one", json!({})).await, handler(&broker, "two", json!({})).await);
    gather(&mut asker, json!({})).await;
    let requests = [one.next_on(STATS).await, two.next_on(STATS).await];
    asker.send(envelope("Broker/Request/Cancel", json!({"id": "c", "data": {"id": "g"}}))).await;
    let heard = [asker.next().await, asker.next().await];
    assert!(heard.iter().any(|it| it["inReplyTo"] == "c" && it["data"]["Success"] == true), "{heard:?}");
    assert!(
        heard.iter().any(|it| it["inReplyTo"] == "g" && it["data"]["ErrorCode"] == "REQUEST_CANCELLED"),
        "{heard:?}"
    );
    for (handler, request) in [(&mut one, &requests[0]), (&mut two, &requests[1])] {
        assert_eq!(handler.next_on("Broker/Request/Cancelled").await["inReplyTo"], request["id"]);
        handler.reply(request, json!({})).await;
        handler.next_error("NO_SUCH_REQUEST").await;
    }
    asker.expect_nothing().await;
}

#[tokio::test]
async fn a_target_and_one_without_handlers() {
    let broker = Broker::start().await;
    let mut asker = broker.app("asker").await;
    let (mut one, mut two) = (handler(&broker, "one", json!({})).await, handler(&broker, "two", json!({})).await);
    gather(&mut asker, json!({"target": "two"})).await;
    let request = two.next_on(STATS).await;
    two.reply(&request, json!({})).await;
    asker.next_answer(STATS, "g").await;
    assert_summary(&asker.next_answer(STATS, "g").await, 1, 1, &[]);
    gather(&mut asker, json!({"target": "nobody"})).await;
    assert_summary(&asker.next_answer(STATS, "g").await, 0, 0, &[]);
    one.expect_nothing().await;
}
