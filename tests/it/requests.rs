//! Requests and replies (protocol.md, Routing, rules 1 and 2): who is asked, and exactly one answer whatever happens.

use serde_json::{Value, json};

use crate::support::{Broker, Peer, envelope};

const DIAL: &str = "Phone/Call/Dial";

async fn asker_and_handlers<const N: usize>(broker: &Broker) -> (Peer, [Peer; N]) {
    let mut handlers = Vec::new();
    for at in 0..N {
        let mut handler = broker.app(&format!("handler-{at}")).await;
        handler.handle("Phone/Call/*").await;
        handlers.push(handler);
    }
    (broker.app("asker").await, handlers.try_into().unwrap_or_else(|_| unreachable!()))
}

#[tokio::test]
async fn rule_1_a_reply_of_another_session_is_refused() {
    let broker = Broker::start().await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    let mut twin = broker.app("handler-0").await;
    let mut stranger = broker.app_of("handler-0", "stranger").await;
    asker.ask(DIAL, "r").await;
    let request = handler.next_on(DIAL).await;
    for forger in [&mut twin, &mut stranger] {
        forger.reply(&request, json!({"id": "f", "data": "forged"})).await;
        assert_eq!(forger.next_error("NO_SUCH_REQUEST").await["inReplyTo"], "f");
    }
    // Nor does the asker's own id name the request.
    handler.send(envelope(DIAL, json!({"inReplyTo": "r"}))).await;
    handler.next_error("NO_SUCH_REQUEST").await;
    asker.expect_nothing().await;
    handler.reply(&request, json!({"data": "true"})).await;
    assert_eq!(asker.next_answer(DIAL, "r").await["data"], "true");
}

#[tokio::test]
async fn rule_1_replies_reach_no_third_session() {
    let broker = Broker::start().await;
    let (mut asker, [mut handler, mut other]) = asker_and_handlers(&broker).await;
    let mut spy = broker.app_with("spy", json!({"echo": true})).await;
    for pattern in ["*/*/*", DIAL, "Phone/Call/Dialled"] {
        spy.subscribe(pattern).await;
        asker.subscribe(pattern).await;
    }
    for triple in [DIAL, "Phone/Call/Dialled", "Elsewhere/A/B"] {
        asker.send(envelope(DIAL, json!({"id": "r", "target": "handler-0"}))).await;
        let request = handler.next_on(DIAL).await;
        handler.send(envelope(triple, json!({"inReplyTo": request["id"], "data": "acq@123"}))).await;
        asker.next_answer(triple, "r").await;
    }
    asker.expect_nothing().await;
    other.expect_nothing().await;
    spy.expect_nothing().await;
}

#[tokio::test]
async fn rule_2_each_request_is_given_to_one_handler_the_least_busy() {
    let broker = Broker::start().await;
    let (mut asker, [mut one, mut two, mut three]) = asker_and_handlers(&broker).await;
    for at in 0..3 {
        asker.ask(DIAL, &at.to_string()).await;
    }
    asker.fence().await;
    let mut given = Vec::new();
    for handler in [&mut one, &mut two, &mut three] {
        let mine = handler.drain_events().await;
        assert_eq!(mine.len(), 1, "each has one");
        given.extend(mine);
    }
    // Two answers, so the third request stays with its handler: the next two go to the others.
    one.reply(&given[0], json!({})).await;
    two.reply(&given[1], json!({})).await;
    asker.next_on(DIAL).await;
    asker.next_on(DIAL).await;
    for id in ["a", "b"] {
        asker.ask(DIAL, id).await;
    }
    asker.fence().await;
    one.next_on(DIAL).await;
    two.next_on(DIAL).await;
    three.expect_nothing().await;
}

#[tokio::test]
async fn rule_2_among_equals_the_longest_unserved_is_next() {
    let broker = Broker::start().await;
    let (mut asker, mut handlers) = asker_and_handlers::<3>(&broker).await;
    let mut order = Vec::new();
    for at in 0..9 {
        asker.ask(DIAL, &at.to_string()).await;
        asker.fence().await;
        for (which, handler) in handlers.iter_mut().enumerate() {
            for request in handler.drain_events().await {
                order.push(which);
                handler.reply(&request, json!({})).await;
            }
        }
        asker.next_answer(DIAL, &at.to_string()).await;
    }
    let (first, rest) = order.split_at(3);
    let mut sorted = first.to_vec();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 1, 2], "each in turn: {order:?}");
    assert_eq!(rest, [first, first].concat(), "and in the same turn again: {order:?}");
}

#[tokio::test]
async fn rule_2_one_that_is_asleep_is_asked_last_of_all() {
    let broker = Broker::start().await;
    let (mut asker, [mut sleeper, mut awake]) = asker_and_handlers(&broker).await;
    sleeper.command("Application", "SetState", json!({"state": "asleep"})).await;
    for at in 0..4 {
        asker.ask(DIAL, &at.to_string()).await;
        awake.next_on(DIAL).await;
    }
    sleeper.expect_nothing().await;
    // Where there is no other, it is asked all the same.
    awake.kill();
    for _ in 0..4 {
        asker.next_failure(DIAL, "HANDLER_GONE").await;
    }
    asker.ask(DIAL, "5").await;
    let request = sleeper.next_on(DIAL).await;
    sleeper.reply(&request, json!({})).await;
    asker.next_answer(DIAL, "5").await;
}

#[tokio::test]
async fn rule_2_one_that_missed_its_time_limit_is_asked_last_until_it_answers() {
    let broker = Broker::start().await;
    let (mut asker, [mut late, mut good]) = asker_and_handlers(&broker).await;
    asker.send(envelope(DIAL, json!({"id": "t", "timeout": 50, "target": "handler-0"}))).await;
    let missed = late.next_on(DIAL).await;
    asker.next_failure(DIAL, "REQUEST_TIMEOUT").await;
    for at in 0..4 {
        asker.ask(DIAL, &at.to_string()).await;
        let request = good.next_on(DIAL).await;
        // Busier and busier: still before the one that missed its limit.
        if at == 3 {
            good.reply(&request, json!({})).await;
            asker.next_answer(DIAL, "3").await;
        }
    }
    // Its late answer answers nobody.
    late.reply(&missed, json!({})).await;
    late.next_error("NO_SUCH_REQUEST").await;
    asker.expect_nothing().await;
}

#[tokio::test]
async fn rule_2_no_reply_in_time_is_answered_by_the_broker() {
    let broker = Broker::open_with("[requests]\ntimeout = \"300ms\"").await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    // The default, and the upper bound.
    for timeout in [None, Some(3_600_000_u64), Some(u64::MAX)] {
        let mut request = envelope(DIAL, json!({"id": "r"}));
        if let Some(timeout) = timeout {
            request["timeout"] = timeout.into();
        }
        asker.send(request).await;
        let delivered = handler.next_on(DIAL).await;
        assert!((1..=300).contains(&delivered["timeout"].as_u64().unwrap()), "{delivered}");
        let answer = asker.next_failure(DIAL, "REQUEST_TIMEOUT").await;
        assert_eq!(answer["inReplyTo"], "r");
        handler.reply(&delivered, json!({})).await;
        handler.next_error("NO_SUCH_REQUEST").await;
    }
    // Without an id, no extra field.
    asker.send(envelope(DIAL, json!({}))).await;
    handler.next_on(DIAL).await;
    assert_eq!(asker.next_failure(DIAL, "REQUEST_TIMEOUT").await.get("inReplyTo"), None);
}

#[tokio::test]
async fn rule_2_more_keeps_a_request_open_and_starts_its_clock_anew() {
    let broker = Broker::open_with("[requests]\ntimeout = \"1s\"").await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    asker.ask(DIAL, "r").await;
    let request = handler.next_on(DIAL).await;
    let start = tokio::time::Instant::now();
    let mut beat = tokio::time::interval(std::time::Duration::from_millis(400));
    // Six beats take longer than the time limit.
    for at in 0..6 {
        beat.tick().await;
        handler.reply(&request, json!({"more": true, "data": at})).await;
        let answer = asker.next_answer(DIAL, "r").await;
        assert_eq!((&answer["more"], &answer["data"]), (&Value::Bool(true), &Value::from(at)));
    }
    assert!(start.elapsed().as_secs() >= 1);
    handler.reply(&request, json!({"data": "done"})).await;
    assert_eq!(asker.next_answer(DIAL, "r").await["data"], "done");
}

#[tokio::test]
async fn rule_2_a_cancelled_request_ends_for_both() {
    let broker = Broker::start().await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    // Two of one id end together.
    asker.ask(DIAL, "r").await;
    asker.ask(DIAL, "r").await;
    asker.ask(DIAL, "other").await;
    let requests = [handler.next_on(DIAL).await, handler.next_on(DIAL).await, handler.next_on(DIAL).await];
    asker.send(envelope("Broker/Request/Cancel", json!({"id": "c", "data": {"id": "r"}}))).await;
    let heard = [asker.next().await, asker.next().await, asker.next().await];
    let cancelled = heard.iter().filter(|it| it["data"]["ErrorCode"] == "REQUEST_CANCELLED" && it["inReplyTo"] == "r");
    assert_eq!(cancelled.count(), 2, "{heard:?}");
    assert!(heard.iter().any(|it| it["inReplyTo"] == "c" && it["data"]["Success"] == true), "{heard:?}");
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(handler.next_on("Broker/Request/Cancelled").await["inReplyTo"].clone());
    }
    ids.sort_by_key(ToString::to_string);
    let mut expected = vec![requests[0]["id"].clone(), requests[1]["id"].clone()];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(ids, expected);
    handler.reply(&requests[0], json!({})).await;
    handler.next_error("NO_SUCH_REQUEST").await;
    handler.reply(&requests[2], json!({})).await;
    asker.next_answer(DIAL, "other").await;
    asker.expect_nothing().await;
}

#[tokio::test]
async fn only_the_asker_cancels_its_request() {
    let broker = Broker::start().await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    let mut stranger = broker.app("asker").await;
    asker.ask(DIAL, "r").await;
    let request = handler.next_on(DIAL).await;
    let reply = stranger.command("Request", "Cancel", json!({"id": "r"})).await;
    assert_eq!(reply["data"]["ErrorCode"], "NO_SUCH_REQUEST", "{reply}");
    handler.expect_nothing().await;
    handler.reply(&request, json!({})).await;
    asker.next_answer(DIAL, "r").await;
}

#[tokio::test]
async fn rule_2_when_the_asker_goes_the_handler_is_told() {
    let broker = Broker::start().await;
    for abrupt in [true, false] {
        let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
        asker.ask(DIAL, "r").await;
        let request = handler.next_on(DIAL).await;
        if abrupt {
            asker.kill();
        } else {
            assert_eq!(asker.command("Application", "Unregister", json!({})).await["data"]["Success"], true);
        }
        let cancelled = handler.next_on("Broker/Request/Cancelled").await;
        assert_eq!(cancelled["inReplyTo"], request["id"]);
        handler.reply(&request, json!({})).await;
        handler.next_error("NO_SUCH_REQUEST").await;
        handler.close().await;
    }
}

#[tokio::test]
async fn rule_2_idempotent_requests_are_given_once_more() {
    let broker = Broker::start().await;
    let (mut asker, [mut one, mut two]) = asker_and_handlers(&broker).await;
    asker.send(envelope(DIAL, json!({"id": "r", "idempotent": true, "target": "handler-0"}))).await;
    one.next_on(DIAL).await;
    one.kill();
    // The target stays what it was: no other handler of that name.
    asker.next_failure(DIAL, "HANDLER_GONE").await;

    let mut one = broker.app("handler-0").await;
    one.handle("Phone/Call/*").await;
    asker.send(envelope(DIAL, json!({"id": "s", "idempotent": true, "data": "once"}))).await;
    asker.fence().await;
    let first = [one.drain_events().await, two.drain_events().await];
    let (gone, mut left) = if first[0].is_empty() { (two, one) } else { (one, two) };
    gone.kill();
    let again = left.next_on(DIAL).await;
    assert_eq!((&again["requestId"], &again["data"]), (&Value::from("s"), &Value::from("once")));
    // Once more, not for ever.
    let mut third = broker.app("handler-2").await;
    third.handle("Phone/Call/*").await;
    left.kill();
    asker.next_failure(DIAL, "HANDLER_GONE").await;
    third.expect_nothing().await;
}

#[tokio::test]
async fn rule_2_without_handlers_timeout_gather_and_idempotent_still_ask() {
    let broker = Broker::start().await;
    let mut asker = broker.app("asker").await;
    let mut spy = broker.app("spy").await;
    spy.subscribe("*/*/*").await;
    for option in [json!({"id": "r", "timeout": 1000}), json!({"id": "r", "idempotent": true})] {
        asker.send(envelope(DIAL, option)).await;
        assert_eq!(asker.next_failure(DIAL, "NO_HANDLER").await["inReplyTo"], "r");
    }
    asker.send(envelope(DIAL, json!({"id": "r", "gather": true}))).await;
    assert_eq!(asker.next_answer(DIAL, "r").await["data"]["Expected"], 0);
    // A flag that is false asks nothing: an event.
    spy.expect_nothing().await;
    asker.send(envelope(DIAL, json!({"id": "e", "gather": false, "idempotent": false}))).await;
    assert_eq!(asker.next_receipt("e").await, 1);
    spy.next_on(DIAL).await;
}

#[tokio::test]
async fn rule_2_requests_are_never_shown_to_subscribers() {
    let broker = Broker::start().await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    let mut spy = broker.app("spy").await;
    for pattern in ["*/*/*", "Phone/*/*", DIAL] {
        spy.subscribe(pattern).await;
        handler.subscribe(pattern).await;
    }
    asker.ask(DIAL, "r").await;
    let request = handler.next_on(DIAL).await;
    handler.expect_nothing().await;
    handler.reply(&request, json!({})).await;
    asker.next_answer(DIAL, "r").await;
    spy.expect_nothing().await;
}

#[tokio::test]
async fn rule_2_retain_on_a_request_is_refused() {
    let broker = Broker::start().await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    asker.send(envelope(DIAL, json!({"id": "r", "retain": true}))).await;
    let refusal = asker.next_failure(DIAL, "INVALID_ENVELOPE").await;
    assert_eq!(refusal["inReplyTo"], "r");
    handler.expect_nothing_from(&mut asker).await;
    // A request even with no handler.
    asker.send(envelope("Other/A/B", json!({"id": "s", "retain": true, "timeout": 1000}))).await;
    let refusal = asker.next().await;
    assert_eq!((&refusal["inReplyTo"], &refusal["data"]["ErrorCode"]), (&"s".into(), &"INVALID_ENVELOPE".into()));
}

#[tokio::test]
async fn commands_are_delivered_and_never_answered() {
    let broker = Broker::start().await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler").await);
    handler.subscribe_with(DIAL, json!({"role": "handler", "answers": false})).await;
    asker.send(envelope(DIAL, json!({"id": "c", "timeout": 50}))).await;
    assert_eq!(asker.next_receipt("c").await, 1, "delivery completes it");
    let command = handler.next_on(DIAL).await;
    assert_eq!(command["requestId"], "c");
    handler.reply(&command, json!({})).await;
    handler.next_error("NO_SUCH_REQUEST").await;
    // It is over: the handler may die without anybody learning of it.
    handler.kill();
    asker.expect_nothing().await;
}

#[tokio::test]
async fn two_requests_of_one_id_are_two_requests() {
    let broker = Broker::start().await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    asker.ask(DIAL, "same").await;
    asker.ask(DIAL, "same").await;
    let (first, second) = (handler.next_on(DIAL).await, handler.next_on(DIAL).await);
    assert_ne!(first["id"], second["id"]);
    handler.reply(&second, json!({"data": 2})).await;
    handler.reply(&first, json!({"data": 1})).await;
    assert_eq!(asker.next_answer(DIAL, "same").await["data"], 2);
    assert_eq!(asker.next_answer(DIAL, "same").await["data"], 1);
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_until_one_ends() {
    let broker = Broker::open_with("[limits]\npending_requests = 3").await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    let mut requests = Vec::new();
    for at in 0..3 {
        asker.ask(DIAL, &at.to_string()).await;
        requests.push(handler.next_on(DIAL).await);
    }
    asker.ask(DIAL, "over").await;
    let refusal = asker.next_failure(DIAL, "TOO_MANY_REQUESTS").await;
    assert_eq!(refusal["inReplyTo"], "over");
    handler.expect_nothing().await;
    handler.reply(&requests[0], json!({})).await;
    asker.next_answer(DIAL, "0").await;
    asker.ask(DIAL, "again").await;
    handler.next_on(DIAL).await;
    // The limit is each session's own.
    let mut other = broker.app("other").await;
    other.ask(DIAL, "mine").await;
    handler.next_on(DIAL).await;
}

#[tokio::test]
async fn an_application_may_ask_another_session_of_itself() {
    let broker = Broker::start().await;
    let (mut one, mut two) = (broker.app("twin").await, broker.app("twin").await);
    two.handle(DIAL).await;
    one.ask(DIAL, "r").await;
    let request = two.next_on(DIAL).await;
    assert_eq!(request["source"], "twin");
    two.reply(&request, json!({"data": 1})).await;
    assert_eq!(one.next_answer(DIAL, "r").await["data"], 1);
}

#[tokio::test]
async fn failures_of_a_request_come_on_its_own_triple() {
    let broker = Broker::start().await;
    let (mut asker, [mut handler]) = asker_and_handlers(&broker).await;
    for (wrong, code) in [(json!({"source": "another"}), "SOURCE_MISMATCH"), (json!({"user": "another"}), "FORBIDDEN")]
    {
        let mut request = envelope(DIAL, json!({"id": "r"}));
        request.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        asker.send(request).await;
        assert_eq!(asker.next_failure(DIAL, code).await["inReplyTo"], "r");
    }
    handler.expect_nothing().await;
}
