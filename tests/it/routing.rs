//! Who hears an event (protocol.md, Routing, rule 4): patterns, targets, groups, echo, receipts and hints.

use serde_json::{Value, json};

use crate::support::{Broker, envelope};

#[tokio::test]
async fn rule_4_wildcards_stand_in_any_position() {
    let broker = Broker::start().await;
    let mut sender = broker.app("sender").await;
    let matching = [
        "Sales/Call/Ring",
        "Sales/Call/*",
        "Sales/*/Ring",
        "*/Call/Ring",
        "Sales/*/*",
        "*/Call/*",
        "*/*/Ring",
        "*/*/*",
    ];
    let others =
        ["Sales/Call/ring", "sales/Call/Ring", "Sale/*/*", "*/Ring/*", "Sales/Call/Rin", "*/*/Call", "Sales/Cal/*"];
    let mut hearing = Vec::new();
    for pattern in matching {
        let mut peer = broker.app(pattern).await;
        peer.subscribe(pattern).await;
        hearing.push(peer);
    }
    let mut deaf = Vec::new();
    for pattern in others {
        let mut peer = broker.app("deaf").await;
        peer.subscribe(pattern).await;
        deaf.push(peer);
    }
    sender.send(envelope("Sales/Call/Ring", json!({"id": "e"}))).await;
    assert_eq!(sender.next_receipt("e").await, matching.len() as u64);
    for peer in &mut hearing {
        peer.next_on("Sales/Call/Ring").await;
        peer.expect_nothing().await;
    }
    for peer in &mut deaf {
        peer.expect_nothing().await;
    }
}

#[tokio::test]
async fn rule_4_once_however_many_patterns_match() {
    let broker = Broker::start().await;
    let (mut sender, mut receiver) = (broker.app("sender").await, broker.app("receiver").await);
    for pattern in ["Sales/Call/Ring", "Sales/*/*", "*/*/*", "*/Call/*"] {
        receiver.subscribe(pattern).await;
    }
    sender.send(envelope("Sales/Call/Ring", json!({"id": "e"}))).await;
    assert_eq!(sender.next_receipt("e").await, 1);
    receiver.next_on("Sales/Call/Ring").await;
    receiver.expect_nothing().await;
}

#[tokio::test]
async fn rule_4_the_sender_hears_itself_only_with_echo() {
    let broker = Broker::start().await;
    let mut quiet = broker.app("quiet").await;
    let mut loud = broker.app_with("loud", json!({"echo": true})).await;
    for peer in [&mut quiet, &mut loud] {
        peer.subscribe("Sales/*/*").await;
    }
    quiet.publish("Sales/Call/Ring", 1).await;
    quiet.expect_nothing().await;
    assert_eq!(loud.next().await["source"], "quiet");
    loud.publish("Sales/Call/Ring", 2).await;
    assert_eq!(loud.next().await["data"], 2);
    assert_eq!(quiet.next().await["data"], 2);
    // Another session of the same application is not the sender.
    let mut twin = broker.app("quiet").await;
    twin.publish("Sales/Call/Ring", 3).await;
    assert_eq!(quiet.next().await["data"], 3);
}

#[tokio::test]
async fn rule_4_an_event_with_an_id_leaves_with_it_and_gets_a_receipt() {
    let broker = Broker::start().await;
    let (mut sender, mut receiver) = (broker.app("sender").await, broker.app("receiver").await);
    receiver.subscribe("Sales/*/*").await;
    sender.publish("Sales/Call/Ring", 1).await;
    sender.expect_nothing().await;
    assert_eq!(receiver.next().await.get("id"), None);
    sender.send(envelope("Sales/Call/Ring", json!({"id": "e/1 \u{7}"}))).await;
    assert_eq!(sender.next_receipt("e/1 \u{7}").await, 1, "an id is any text");
    assert_eq!(receiver.next().await["id"], "e/1 \u{7}");
    sender.send(envelope("Other/Call/Ring", json!({"id": "nobody"}))).await;
    assert_eq!(sender.next_receipt("nobody").await, 0);
}

#[tokio::test]
async fn rule_4_a_hint_names_the_similar_triple_that_is_served() {
    let broker = Broker::start().await;
    let (mut sender, mut handler) = (broker.app("sender").await, broker.app("handler").await);
    handler.handle("Phone/Call/MakeCall").await;
    sender.send(envelope("Phone/Call/makecall", json!({"id": "e"}))).await;
    let receipt = sender.next_on("Broker/Message/Receipt").await;
    assert_eq!(receipt["data"]["Receivers"], 0);
    let hint = receipt["data"]["Hint"].as_str().expect("a Hint");
    assert!(hint.contains("Phone/Call/MakeCall"), "{hint}");
    broker.log_until("the similar triple in the log", |log| log.contains("Phone/Call/MakeCall")).await;
    sender.send(envelope("Weather/Today/Rain", json!({"id": "f"}))).await;
    assert_eq!(sender.next().await["data"].get("Hint"), None, "nothing is similar");
}

#[tokio::test]
async fn rule_4_a_hint_never_tells_of_another_users_handler() {
    let broker = Broker::start().await;
    let (mut alice, mut bob) = (broker.app_of("app", "alice").await, broker.app_of("app", "bob").await);
    bob.handle("Phone/Call/MakeCall").await;
    alice.send(envelope("Phone/Call/Makecall", json!({"id": "e"}))).await;
    assert_eq!(alice.next().await["data"].get("Hint"), None);
}

#[tokio::test]
async fn target_names_the_only_application_that_hears_an_event() {
    let broker = Broker::start().await;
    let mut sender = broker.app("sender").await;
    let (mut crm, mut crm_too, mut other) =
        (broker.app("crm").await, broker.app("crm").await, broker.app("other").await);
    for peer in [&mut crm, &mut crm_too, &mut other] {
        peer.subscribe("Sales/*/*").await;
    }
    sender.send(envelope("Sales/Call/Ring", json!({"id": "e", "target": "crm"}))).await;
    assert_eq!(sender.next_receipt("e").await, 2);
    for peer in [&mut crm, &mut crm_too] {
        assert_eq!(peer.next_on("Sales/Call/Ring").await["target"], "crm");
    }
    other.expect_nothing().await;
    sender.send(envelope("Sales/Call/Ring", json!({"id": "f", "target": "nobody"}))).await;
    assert_eq!(sender.next_receipt("f").await, 0);
}

#[tokio::test]
async fn target_names_the_only_application_that_is_asked() {
    let broker = Broker::start().await;
    let mut asker = broker.app("asker").await;
    let (mut first, mut second) = (broker.app("first").await, broker.app("second").await);
    first.handle("Phone/Call/*").await;
    second.handle("Phone/Call/*").await;
    for at in 0..4 {
        asker.send(envelope("Phone/Call/Dial", json!({"id": at.to_string(), "target": "second"}))).await;
        let request = second.next_on("Phone/Call/Dial").await;
        second.reply(&request, json!({"data": at})).await;
        assert_eq!(asker.next_answer("Phone/Call/Dial", &at.to_string()).await["data"], at);
    }
    first.expect_nothing().await;
    // The handlers that there are do not take part: with a timeout it is a request that nobody may answer.
    asker.send(envelope("Phone/Call/Dial", json!({"id": "n", "target": "third", "timeout": 1000}))).await;
    asker.next_failure("Phone/Call/Dial", "NO_HANDLER").await;
    // And without one it is an event, for the target alone.
    asker.send(envelope("Phone/Call/Dial", json!({"id": "e", "target": "third"}))).await;
    assert_eq!(asker.next_receipt("e").await, 0);
    first.expect_nothing().await;
    second.expect_nothing().await;
}

#[tokio::test]
async fn members_of_a_group_share_the_events_one_each() {
    let broker = Broker::start().await;
    let mut sender = broker.app("sender").await;
    let (mut one, mut two, mut alone) =
        (broker.app("worker").await, broker.app("worker").await, broker.app("alone").await);
    one.subscribe_with("Work/*/*", json!({"group": "workers"})).await;
    two.subscribe_with("Work/*/*", json!({"group": "workers"})).await;
    alone.subscribe("Work/*/*").await;
    for at in 0..10 {
        sender.send(envelope("Work/Item/New", json!({"id": at.to_string(), "data": at}))).await;
        assert_eq!(sender.next_receipt(&at.to_string()).await, 2, "one of the group, and the one alone");
    }
    for at in 0..10 {
        assert_eq!(alone.next().await["data"], at);
    }
    alone.expect_nothing().await;
    let mut heard = Vec::new();
    for peer in [&mut one, &mut two] {
        let mine = peer.drain_events().await;
        assert!(!mine.is_empty(), "both members get a share");
        heard.extend(mine.iter().map(|event| event["data"].as_i64().unwrap()));
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn target_chooses_among_the_members_of_a_group() {
    let broker = Broker::start().await;
    let mut sender = broker.app("sender").await;
    let (mut east, mut west) = (broker.app("east").await, broker.app("west").await);
    for peer in [&mut east, &mut west] {
        peer.subscribe_with("Work/*/*", json!({"group": "workers"})).await;
        peer.subscribe_with("Job/*/*", json!({"group": "handlers", "role": "handler"})).await;
    }
    for at in 0..6 {
        sender.send(envelope("Work/Item/New", json!({"id": "e", "target": "west", "data": at}))).await;
        assert_eq!(sender.next_receipt("e").await, 1);
        assert_eq!(west.next().await["data"], at);
        sender.send(envelope("Job/Item/Do", json!({"id": "r", "target": "west"}))).await;
        let request = west.next_on("Job/Item/Do").await;
        west.reply(&request, json!({})).await;
        sender.next_answer("Job/Item/Do", "r").await;
    }
    east.expect_nothing().await;
}

#[tokio::test]
async fn groups_of_other_names_and_other_users_are_other_groups() {
    let broker = Broker::start().await;
    let mut sender = broker.app_of("sender", "alice").await;
    let (mut red, mut blue) = (broker.app_of("worker", "alice").await, broker.app_of("worker", "alice").await);
    let mut bob = broker.app_of("worker", "bob").await;
    red.subscribe_with("Work/*/*", json!({"group": "red"})).await;
    blue.subscribe_with("Work/*/*", json!({"group": "blue"})).await;
    bob.subscribe_with("Work/*/*", json!({"group": "red"})).await;
    for at in 0..4 {
        sender.publish("Work/Item/New", at).await;
        assert_eq!(red.next().await["data"], at);
        assert_eq!(blue.next().await["data"], at);
    }
    bob.expect_nothing().await;
}

#[tokio::test]
async fn fold_case_lets_both_spellings_of_the_vendor_meet() {
    let broker = Broker::open_with("[channels.LCM]\nfold_case = true").await;
    let (mut sender, mut receiver) = (broker.app("sender").await, broker.app("receiver").await);
    receiver.subscribe("LCM/WebService/StateSync").await;
    sender.publish("LCM/Webservice/statesync", 1).await;
    let event = receiver.next().await;
    assert_eq!((&event["topic"], &event["subtopic"]), (&Value::from("Webservice"), &Value::from("statesync")));
    // The channel's own name never folds, and other channels do not.
    sender.publish("lcm/WebService/StateSync", 2).await;
    receiver.expect_nothing_from(&mut sender).await;
    receiver.subscribe("Cisco/WebService/StateSync").await;
    sender.publish("Cisco/Webservice/StateSync", 3).await;
    receiver.expect_nothing_from(&mut sender).await;
    // There is one folding, ASCII.
    receiver.subscribe("LCM/Café/Äpfel").await;
    sender.publish("LCM/CAFé/ÄPFEL", 4).await;
    assert_eq!(receiver.next().await["data"], 4);
    sender.publish("LCM/CAFÉ/ÄPFEL", 5).await;
    receiver.expect_nothing_from(&mut sender).await;
}

#[tokio::test]
async fn fold_case_finds_handlers_too() {
    let broker = Broker::open_with("[channels.LCM]\nfold_case = true").await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler").await);
    handler.handle("LCM/WebService/GetBusinessOutcome").await;
    asker.ask("LCM/Webservice/GetBusinessOutCome", "r").await;
    let request = handler.next_on("LCM/Webservice/GetBusinessOutCome").await;
    handler.reply(&request, json!({"data": 1})).await;
    asker.next_answer("LCM/Webservice/GetBusinessOutCome", "r").await;
}

#[tokio::test]
async fn a_star_never_stands_for_the_channel_broker() {
    let broker = Broker::start().await;
    let (mut spy, mut named) = (broker.app("spy").await, broker.app("named").await);
    spy.subscribe("*/*/*").await;
    spy.subscribe("*/Application/Joined").await;
    named.subscribe("Broker/*/*").await;
    let mut sender = broker.app("sender").await;
    named.next_on("Broker/Application/Joined").await;
    spy.expect_nothing().await;
    // And nobody publishes there.
    for triple in ["Broker/Application/Joined", "Broker/Message/Receipt", "Broker/Connection/Draining"] {
        sender.send(envelope(triple, json!({"id": "forged"}))).await;
        sender.next_error("RESERVED_CHANNEL").await;
    }
    named.expect_nothing().await;
}

#[tokio::test]
async fn a_handlers_own_events_on_the_triple_it_handles_are_events() {
    let broker = Broker::start().await;
    let (mut handler, mut other) = (broker.app("handler").await, broker.app("other-handler").await);
    let mut listener = broker.app("listener").await;
    handler.handle("Cisco/Agent/*").await;
    other.handle("Cisco/Agent/State").await;
    listener.subscribe("Cisco/*/*").await;
    // An event even though another handler would match: the vendor's adapters do both on one topic.
    handler.send(envelope("Cisco/Agent/State", json!({"id": "e", "data": "Ready"}))).await;
    assert_eq!(handler.next_receipt("e").await, 1);
    assert_eq!(listener.next_on("Cisco/Agent/State").await["source"], "handler");
    other.expect_nothing().await;
    // Unless it says that it asks.
    handler.send(envelope("Cisco/Agent/State", json!({"id": "r", "timeout": 5000, "target": "other-handler"}))).await;
    let request = other.next_on("Cisco/Agent/State").await;
    other.reply(&request, json!({"data": 1})).await;
    handler.next_answer("Cisco/Agent/State", "r").await;
    listener.expect_nothing().await;
}

#[tokio::test]
async fn a_wrong_source_is_refused_and_a_missing_one_filled_in() {
    let broker = Broker::start().await;
    let (mut sender, mut receiver) = (broker.app("sender").await, broker.app("receiver").await);
    receiver.subscribe("Sales/*/*").await;
    for wrong in ["Sender", "receiver", "switchboard", " sender"] {
        sender.send(envelope("Sales/Call/Ring", json!({"source": wrong, "id": "e"}))).await;
        assert_eq!(sender.next_error("SOURCE_MISMATCH").await["inReplyTo"], "e");
    }
    receiver.expect_nothing().await;
    sender.send_text(r#"{"channel":"Sales","topic":"Call","subtopic":"Ring","source":"s\u0065nder"}"#).await;
    assert_eq!(receiver.next().await["source"], "sender");
    sender.publish("Sales/Call/Ring", 1).await;
    assert_eq!(receiver.next().await["source"], "sender");
}

#[tokio::test]
async fn nested_routing_keys_of_a_payload_do_not_route() {
    let broker = Broker::start().await;
    let (mut sender, mut receiver) = (broker.app("sender").await, broker.app("receiver").await);
    receiver.subscribe("Other/*/*").await;
    let nested = json!({"channel": "Other", "topic": "A", "subtopic": "B", "source": "event", "id": 1, "timeout": 0});
    sender.send(envelope("Sales/Call/Ring", json!({"message": nested, "id": "e"}))).await;
    assert_eq!(sender.next_receipt("e").await, 0);
    receiver.expect_nothing().await;
}
