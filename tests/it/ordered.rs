//! Handlers that know no ids: one request at a time, and the next envelope is the reply (protocol.md, Routing).

use serde_json::{Value, json};

use crate::support::{Broker, Peer, envelope};

const LOGIN: &str = "Amazon/Agent/SignIn";
const SIGNED_IN: &str = "Amazon/Agent/SignedIn";

async fn ordered(broker: &Broker, source: &str, pattern: &str) -> (Peer, String) {
    let mut peer = broker.app(source).await;
    let options = json!({"role": "handler", "ordered": true, "replies": ["Agent/SignedIn"]});
    let subscription = peer.subscribe_with(pattern, options).await;
    (peer, subscription)
}

#[tokio::test]
async fn it_gets_one_request_at_a_time_in_the_order_they_were_asked() {
    let broker = Broker::start().await;
    let (mut handler, _) = ordered(&broker, "adapter", LOGIN).await;
    let (mut one, mut two) = (broker.app("one").await, broker.app("two").await);
    for at in 0..3 {
        one.ask(LOGIN, &format!("one-{at}")).await;
        one.fence().await;
        two.ask(LOGIN, &format!("two-{at}")).await;
        two.fence().await;
    }
    for at in 0..3 {
        for (name, asker) in [("one", &mut one), ("two", &mut two)] {
            let id = format!("{name}-{at}");
            assert_eq!(handler.next_on(LOGIN).await["requestId"], id.as_str());
            handler.expect_nothing().await;
            handler.publish(SIGNED_IN, id.as_str()).await;
            assert_eq!(asker.next_answer(SIGNED_IN, &id).await["data"], id.as_str());
        }
    }
}

#[tokio::test]
async fn its_answer_is_seen_by_no_third() {
    let broker = Broker::start().await;
    let (mut handler, _) = ordered(&broker, "adapter", LOGIN).await;
    let (mut asker, mut spy) = (broker.app("asker").await, broker.app("spy").await);
    for pattern in ["*/*/*", SIGNED_IN, LOGIN] {
        spy.subscribe(pattern).await;
    }
    for triple in [LOGIN, SIGNED_IN] {
        asker.send(envelope(LOGIN, json!({}))).await;
        handler.next_on(LOGIN).await;
        handler.publish(triple, "acq@123").await;
        let answer = asker.next_on(triple).await;
        assert_eq!((answer.get("inReplyTo"), answer.get("source")), (None, None), "just what it wrote: {answer}");
    }
    spy.expect_nothing().await;
    // What it sends elsewhere meanwhile is an event.
    asker.send(envelope(LOGIN, json!({}))).await;
    handler.next_on(LOGIN).await;
    handler.publish("Amazon/Agent/Other", 1).await;
    spy.next_on("Amazon/Agent/Other").await;
    asker.expect_nothing().await;
}

#[tokio::test]
async fn a_pattern_with_a_wildcard_answers_on_the_requests_own_triple() {
    let broker = Broker::start().await;
    let (mut handler, _) = ordered(&broker, "adapter", "Amazon/Agent/*").await;
    let (mut one, mut two, mut spy) = (broker.app("one").await, broker.app("two").await, broker.app("spy").await);
    spy.subscribe("Amazon/*/*").await;
    one.ask("Amazon/Agent/Ready", "r").await;
    one.fence().await;
    // One at a time a subscription, whatever triple within it.
    two.ask("Amazon/Agent/NotReady", "n").await;
    handler.next_on("Amazon/Agent/Ready").await;
    handler.expect_nothing_from(&mut two).await;
    // Another triple of the same pattern is not the request's: an event.
    handler.publish("Amazon/Agent/NotReady", "event").await;
    assert_eq!(spy.next_on("Amazon/Agent/NotReady").await["data"], "event");
    two.expect_nothing().await;
    handler.publish("Amazon/Agent/Ready", "answer").await;
    assert_eq!(one.next_answer("Amazon/Agent/Ready", "r").await["data"], "answer");
    handler.next_on("Amazon/Agent/NotReady").await;
    handler.publish("Amazon/Agent/NotReady", "answer").await;
    assert_eq!(two.next_answer("Amazon/Agent/NotReady", "n").await["data"], "answer");
    spy.expect_nothing().await;
}

#[tokio::test]
async fn a_late_answer_is_discarded_and_never_taken_for_the_next_askers() {
    let broker = Broker::start().await;
    let (mut handler, _) = ordered(&broker, "adapter", LOGIN).await;
    let (mut one, mut two, mut spy) = (broker.app("one").await, broker.app("two").await, broker.app("spy").await);
    spy.subscribe("*/*/*").await;
    for ending in ["timeout", "cancel", "gone"] {
        let mut asker = broker.app("asker").await;
        let timeout = if ending == "timeout" { 50 } else { 5000 };
        asker.send(envelope(LOGIN, json!({"id": "first", "timeout": timeout}))).await;
        handler.next_on(LOGIN).await;
        match ending {
            "timeout" => {
                asker.next_failure(LOGIN, "REQUEST_TIMEOUT").await;
            }
            "cancel" => {
                asker.send(envelope("Broker/Request/Cancel", json!({"data": {"id": "first"}}))).await;
                handler.next_on("Broker/Request/Cancelled").await;
            }
            _ => {
                asker.kill();
                handler.next_on("Broker/Request/Cancelled").await;
            }
        }
        two.ask(LOGIN, "second").await;
        handler.expect_nothing_from(&mut two).await;
        handler.publish(SIGNED_IN, "late").await;
        assert_eq!(handler.next_on(LOGIN).await["requestId"], "second", "{ending}");
        two.expect_nothing().await;
        handler.publish(SIGNED_IN, "in time").await;
        assert_eq!(two.next_answer(SIGNED_IN, "second").await["data"], "in time");
        spy.expect_nothing().await;
    }
    one.expect_nothing().await;
}

#[tokio::test]
async fn subscribing_again_forgets_the_answer_that_is_owed() {
    let broker = Broker::start().await;
    let (mut handler, subscription) = ordered(&broker, "adapter", LOGIN).await;
    let mut asker = broker.app("asker").await;
    asker.send(envelope(LOGIN, json!({"id": "first", "timeout": 50}))).await;
    handler.next_on(LOGIN).await;
    asker.next_failure(LOGIN, "REQUEST_TIMEOUT").await;
    handler.command("Subscription", "Unsubscribe", json!({"SubscriptionId": subscription})).await;
    handler.subscribe_with(LOGIN, json!({"role": "handler", "ordered": true})).await;
    asker.ask(LOGIN, "second").await;
    assert_eq!(handler.next_on(LOGIN).await["requestId"], "second");
    handler.publish(LOGIN, "answer").await;
    assert_eq!(asker.next_answer(LOGIN, "second").await["data"], "answer");
}

#[tokio::test]
async fn others_are_chosen_while_it_owes_an_answer() {
    let broker = Broker::start().await;
    let (mut stuck, _) = ordered(&broker, "stuck", LOGIN).await;
    let mut asker = broker.app("asker").await;
    asker.send(envelope(LOGIN, json!({"id": "first", "timeout": 50}))).await;
    stuck.next_on(LOGIN).await;
    asker.next_failure(LOGIN, "REQUEST_TIMEOUT").await;
    let (mut other, _) = ordered(&broker, "other", LOGIN).await;
    for at in 0..3 {
        asker.ask(LOGIN, &at.to_string()).await;
        other.next_on(LOGIN).await;
        other.publish(SIGNED_IN, at).await;
        asker.next_answer(SIGNED_IN, &at.to_string()).await;
    }
    stuck.expect_nothing().await;
}

#[tokio::test]
async fn a_waiting_request_ends_with_its_own_timeout_or_when_the_handler_leaves() {
    let broker = Broker::start().await;
    let (mut handler, _) = ordered(&broker, "adapter", LOGIN).await;
    let (mut one, mut two) = (broker.app("one").await, broker.app("two").await);
    one.ask(LOGIN, "given").await;
    handler.next_on(LOGIN).await;
    two.send(envelope(LOGIN, json!({"id": "short", "timeout": 50}))).await;
    two.next_failure(LOGIN, "REQUEST_TIMEOUT").await;
    two.ask(LOGIN, "waiting").await;
    handler.expect_nothing_from(&mut two).await;
    handler.kill();
    one.next_failure(LOGIN, "HANDLER_GONE").await;
    two.next_failure(LOGIN, "HANDLER_GONE").await;
}

#[tokio::test]
async fn it_may_answer_by_id_as_well() {
    let broker = Broker::start().await;
    let (mut handler, _) = ordered(&broker, "adapter", LOGIN).await;
    let (mut one, mut two) = (broker.app("one").await, broker.app("two").await);
    one.ask(LOGIN, "a").await;
    one.fence().await;
    two.ask(LOGIN, "b").await;
    let request = handler.next_on(LOGIN).await;
    handler.reply(&request, json!({"data": 1})).await;
    assert_eq!(one.next_answer(LOGIN, "a").await["data"], 1);
    let request = handler.next_on(LOGIN).await;
    assert_eq!(request["requestId"], "b");
    handler.publish(LOGIN, 2).await;
    assert_eq!(two.next_answer(LOGIN, "b").await["data"], 2);
}

#[tokio::test]
async fn a_late_answer_by_id_settles_what_it_owes() {
    let broker = Broker::start().await;
    let (mut handler, _) = ordered(&broker, "adapter", LOGIN).await;
    let mut asker = broker.app("asker").await;
    asker.send(envelope(LOGIN, json!({"id": "a", "timeout": 50}))).await;
    let request = handler.next_on(LOGIN).await;
    asker.next_failure(LOGIN, "REQUEST_TIMEOUT").await;
    asker.ask(LOGIN, "b").await;
    asker.fence().await;
    handler.reply(&request, json!({"data": "late"})).await;
    let request = handler.next_on(LOGIN).await;
    assert_eq!(request["requestId"], "b");
    handler.next_error("NO_SUCH_REQUEST").await;
    handler.publish(LOGIN, 2).await;
    assert_eq!(asker.next_answer(LOGIN, "b").await["data"], 2);
}

#[tokio::test]
async fn options_that_exclude_each_other_are_refused() {
    let broker = Broker::start().await;
    let mut peer = broker.app("adapter").await;
    let wrong = [
        json!({"role": "handler", "ordered": "yes"}),
        json!({"role": "handler", "ordered": true, "replies": "Agent/SignedIn"}),
        json!({"role": "handler", "ordered": true, "replies": ["SignedIn"]}),
        json!({"role": "handler", "ordered": true, "replies": [1]}),
        json!({"role": "server"}),
        json!({"role": 1}),
        json!({"role": "handler", "answers": "no"}),
        json!({"group": 1}),
        json!({"group": ""}),
    ];
    for options in wrong {
        assert_eq!(peer.subscribe_refused(LOGIN, options.clone()).await, "INVALID_ENVELOPE", "{options}");
    }
    // null is an absent option.
    let absent = json!({"role": null, "ordered": null, "replies": null, "answers": null, "group": null, "user": null});
    peer.subscribe_with(LOGIN, absent).await;
    let list = peer.command("Subscription", "List", Value::Null).await;
    assert_eq!(list["data"]["Subscriptions"].as_array().unwrap().len(), 1, "{list}");
}

#[tokio::test]
async fn a_waiting_request_ends_when_the_handler_unsubscribes_and_the_given_one_may_be_answered() {
    let broker = Broker::start().await;
    let (mut handler, subscription) = ordered(&broker, "adapter", LOGIN).await;
    let (mut one, mut two) = (broker.app("one").await, broker.app("two").await);
    one.ask(LOGIN, "given").await;
    let request = handler.next_on(LOGIN).await;
    two.ask(LOGIN, "waiting").await;
    two.fence().await;
    handler.command("Subscription", "Unsubscribe", json!({"SubscriptionId": subscription})).await;
    two.next_failure(LOGIN, "HANDLER_GONE").await;
    handler.reply(&request, json!({"data": 1})).await;
    assert_eq!(one.next_answer(LOGIN, "given").await["data"], 1);
}
