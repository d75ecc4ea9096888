//! Retained values of channels with history on several nodes, in one thread.

use std::sync::Arc;

use serde_json::{Value, json};
use switchboard::router::{Ending, Removal, Session};
use wire::Triple;
use wire::command::Recover;

use super::logs::{config, nodes, take_replay, wanted};
use super::nodes::Nodes;
use crate::support::core::event;

const PHONE: &str = "Phone/Agent/State";
const QUEUE: &str = "Queue/Agent/State";

fn retained(triple: &str, data: &Value) -> String {
    event(triple, &format!(r#","retain":true,"id":"e","data":{data}"#))
}

/// A session that has subscribed to a channel with history.
fn reader(nodes: &Nodes, node: usize, source: &str, pattern: &str, recover: Option<Recover>) -> Arc<Session> {
    let session = nodes.node(node).attach(source, Some("alice"));
    nodes.subscribe_logged(node, &session, &wanted(pattern, recover), || ()).unwrap();
    nodes.settle();
    session
}

/// What a new subscriber receives: the payload, the offset and the mark of each event.
fn values(nodes: &Nodes, node: usize, pattern: &str) -> Vec<(Value, Value)> {
    let session = reader(nodes, node, "reader", pattern, None);
    let found = take_replay(nodes, node, &session);
    let core = nodes.node(node);
    core.router.detach(core.now, &session);
    nodes.settle();
    assert!(found.iter().all(|it| it["retained"] == true), "{found:?}");
    found.into_iter().map(|it| (it["data"].clone(), it["offset"].clone())).collect()
}

/// What a session is told on a subtopic.
fn told(nodes: &Nodes, node: usize, session: &Session, subtopic: &str) -> Vec<Value> {
    nodes.take(node, session).into_iter().filter(|it| it["subtopic"] == subtopic).map(|it| it["data"].clone()).collect()
}

fn check_every_node(triple: &str) {
    let nodes = nodes(3);
    let crm = reader(&nodes, 1, "crm", triple, None);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.node(0).send(&phone, &retained(triple, &json!("busy"))).unwrap();
    let stored = nodes.store_only(0).unwrap();
    assert!(values(&nodes, 2, triple).is_empty() && told(&nodes, 0, &phone, "Receipt").is_empty());
    nodes.tell_stored(0, stored);
    assert!(nodes.deliver_one(1));
    assert!(told(&nodes, 0, &phone, "Receipt").is_empty(), "one node does not have it yet");
    assert!(nodes.deliver_one(2));
    let receipts = told(&nodes, 0, &phone, "Receipt");
    assert_eq!(receipts.len(), 1, "{receipts:?}");
    assert_eq!((&receipts[0]["Offset"], &receipts[0]["Nodes"]), (&json!(1), &json!(1)), "one node wants it");
    let events = nodes.take(1, &crm);
    assert_eq!(events.len(), 1, "{events:?}");
    let live = |key: &str| events[0][key].clone();
    assert_eq!((live("data"), live("offset"), live("retained")), (json!("busy"), json!(1), Value::Null));
    for node in 0..3 {
        assert_eq!(values(&nodes, node, triple), [(json!("busy"), json!(1))], "node {node}");
    }
    nodes.send(0, &phone, &retained(triple, &json!(null))).unwrap();
    assert_eq!(told(&nodes, 0, &phone, "Receipt")[0]["Offset"], 2);
    assert_eq!(nodes.take(1, &crm)[0]["offset"], 2, "what clears a value is an event of the log");
    for node in 0..3 {
        assert!(values(&nodes, node, triple).is_empty(), "node {node}");
        assert_eq!(nodes.node(node).router.size().retained_values, 0);
    }
}

#[test]
fn every_node_has_a_value_in_a_log_when_its_publisher_gets_the_receipt() {
    check_every_node(PHONE);
    check_every_node(QUEUE);
}

#[test]
fn the_value_of_the_event_that_is_last_in_the_log_is_kept() {
    for clears in [false, true] {
        let nodes = nodes(3);
        let phone = nodes.node(0).attach("phone", Some("alice"));
        let pager = nodes.node(1).attach("pager", Some("alice"));
        let last = if clears { json!(null) } else { json!("second") };
        nodes.node(0).send(&phone, &retained(PHONE, &json!("first"))).unwrap();
        nodes.node(1).send(&pager, &retained(PHONE, &last)).unwrap();
        let (first, second) = (nodes.store_only(0).unwrap(), nodes.store_only(1).unwrap());
        // The node of the second one is faster with its value.
        nodes.tell_stored(1, second);
        nodes.tell_stored(0, first);
        nodes.settle();
        (0..3).for_each(|node| nodes.read_gaps(node));
        nodes.settle();
        for (node, session, offset) in [(0, &phone, 1), (1, &pager, 2)] {
            assert_eq!(told(&nodes, node, session, "Receipt")[0]["Offset"], offset);
        }
        let expected = if clears { vec![] } else { vec![(last, json!(2))] };
        for node in 0..3 {
            assert_eq!(values(&nodes, node, PHONE), expected, "node {node}");
        }
    }
}

#[test]
fn an_event_whose_value_is_not_kept_is_delivered_and_its_publisher_is_told() {
    let nodes = nodes(2);
    let (here, there) = (reader(&nodes, 0, "crm", PHONE, None), reader(&nodes, 1, "crm", PHONE, None));
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.send(0, &phone, &retained(PHONE, &json!("old"))).unwrap();
    nodes.storage.set_away(true);
    nodes.send(0, &phone, &retained(PHONE, &json!("new"))).unwrap();
    let answers = nodes.take(0, &phone);
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!((&answers[0]["data"]["Offset"], &answers[1]["inReplyTo"]), (&json!(1), &json!("e")));
    assert_eq!(answers[1]["data"]["ErrorCode"], "STORAGE_UNAVAILABLE");
    for (node, session) in [(0, &here), (1, &there)] {
        let seen: Vec<_> = nodes.take(node, session).iter().map(|it| it["offset"].clone()).collect();
        assert_eq!(seen, [1, 2], "it is in the log, so every node delivers it");
        assert_eq!(values(&nodes, node, PHONE), [(json!("old"), json!(1))]);
    }
    nodes.storage.set_away(false);
    nodes.send(0, &phone, &retained(PHONE, &json!("again"))).unwrap();
    assert_eq!(values(&nodes, 1, PHONE), [(json!("again"), json!(3))]);
}

#[test]
fn what_no_log_keeps_leaves_no_value() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.logs.set_away(true);
    nodes.send(0, &phone, &retained(PHONE, &json!(1))).unwrap();
    assert_eq!(nodes.take(0, &phone)[0]["data"]["ErrorCode"], "STORAGE_UNAVAILABLE");
    nodes.logs.set_away(false);
    assert!(nodes.storage.values().is_empty() && values(&nodes, 0, PHONE).is_empty());
}

#[test]
fn a_second_event_with_an_id_leaves_no_value() {
    let nodes = nodes(2);
    let senders: Vec<_> = (0..2).map(|node| nodes.node(node).attach("cti", Some("alice"))).collect();
    let send = |node: usize, more: &str| {
        nodes.send(node, &senders[node], &event(PHONE, &format!(r#","retain":true,"id":"{more}"#))).unwrap();
        told(&nodes, node, &senders[node], "Receipt").remove(0)
    };
    send(0, r#"a","once":true,"data":"first""#);
    send(0, r#"b","data":"later""#);
    let again = send(1, r#"a","once":true,"data":"again""#);
    assert_eq!((&again["Offset"], &again["Duplicate"]), (&json!(1), &json!(true)));
    for node in 0..2 {
        assert_eq!(values(&nodes, node, PHONE), [(json!("later"), json!(2))], "node {node}");
    }
}

#[test]
fn an_event_that_is_sent_again_leaves_the_value_of_the_first_one_if_it_is_missing() {
    for triple in [PHONE, QUEUE] {
        let nodes = nodes(3);
        nodes.settle();
        let senders: Vec<_> = (0..2).map(|node| nodes.node(node).attach("cti", Some("alice"))).collect();
        nodes.settle();
        let send = |node: usize, data: &str| {
            let more = format!(r#","retain":true,"id":"a","once":true,"data":{data}"#);
            nodes.node(node).send(&senders[node], &event(triple, &more)).unwrap();
            let stored = nodes.store_only(node).unwrap();
            nodes.tell_stored(node, stored);
        };
        nodes.storage.set_away(true);
        send(0, r#""first""#);
        assert_eq!(nodes.take(0, &senders[0])[0]["data"]["ErrorCode"], "STORAGE_UNAVAILABLE");
        nodes.storage.set_away(false);
        nodes.settle();
        assert!(values(&nodes, 2, triple).is_empty());
        send(1, r#""second""#);
        assert!(told(&nodes, 1, &senders[1], "Receipt").is_empty(), "the other nodes do not have it yet");
        nodes.settle();
        let receipt = told(&nodes, 1, &senders[1], "Receipt").remove(0);
        assert_eq!((&receipt["Duplicate"], &receipt["Offset"]), (&json!(true), &json!(1)));
        for node in 0..3 {
            assert_eq!(values(&nodes, node, triple), [(json!("first"), json!(1))], "node {node}");
        }
    }
}

#[test]
fn a_value_in_a_log_is_for_its_target_on_every_node() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    for (target, data) in [("reader", 1), ("other", 2)] {
        let more = format!(r#","retain":true,"target":"{target}","data":{data}"#);
        nodes.send(0, &phone, &event(PHONE, &more)).unwrap();
    }
    for node in 0..2 {
        assert_eq!(values(&nodes, node, PHONE), [(json!(1), json!(1))], "node {node}");
        assert_eq!(nodes.node(node).router.size().retained_values, 2);
    }
}

#[test]
fn a_protected_triple_is_neither_kept_nor_sent() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let refused = nodes.send(0, &phone, &retained("Phone/User/FetchCredentials", &json!("secret")));
    assert_eq!(refused, Err("NO_HANDLER"));
    assert!(nodes.storage.values().is_empty() && nodes.store_only(0).is_none());
}

#[test]
fn a_value_that_is_too_large_is_neither_kept_nor_in_the_log() {
    let mut config = config();
    config.limits.retained_values = 1;
    let nodes = Nodes::new(2, &config);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.send(0, &phone, &retained(PHONE, &json!(1))).unwrap();
    nodes.take(0, &phone);
    nodes.send(0, &phone, &retained("Phone/Agent/Name", &json!(2))).unwrap();
    assert_eq!(nodes.take(0, &phone)[0]["data"]["ErrorCode"], "TOO_LARGE");
    nodes.send(0, &phone, &retained(PHONE, &json!(3))).unwrap();
    assert_eq!(values(&nodes, 1, "Phone/*/*"), [(json!(3), json!(2))], "what is refused takes no offset");
}

#[test]
fn the_retained_will_of_a_session_enters_the_log_before_it_has_left() {
    let nodes = nodes(2);
    let crm = reader(&nodes, 1, "crm", "Phone/*/*", None);
    nodes.node(1).subscribe(&crm, "Broker/Application/*");
    let core = nodes.node(0);
    let phone = core.attach_with_will("phone", Some(event(PHONE, r#","retain":true,"data":"offline""#)));
    nodes.settle();
    nodes.take(1, &crm);
    core.router.leave(core.now, &phone, 0, Ending::Lost, None);
    nodes.settle();
    let seen = nodes.take(1, &crm);
    let seen: Vec<_> = seen.iter().map(|it| (&it["subtopic"], &it["offset"])).collect();
    assert_eq!(seen, [(&json!("State"), &json!(1)), (&json!("Left"), &Value::Null)]);
    assert_eq!(values(&nodes, 0, PHONE), [(json!("offline"), json!(1))]);
}

#[test]
fn what_an_operator_removes_from_a_channel_with_history_is_removed_on_every_node() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.send(0, &phone, &retained(PHONE, &json!(1))).unwrap();
    let core = nodes.node(1);
    let removal = core.router.remove_retained(core.now, Some("alice"), &Triple::new("Phone", "Agent", "State"));
    assert!(matches!(removal, Ok(Removal::Waits(_))));
    nodes.settle();
    assert!(values(&nodes, 0, PHONE).is_empty() && values(&nodes, 1, PHONE).is_empty());
    nodes.send(0, &phone, &retained(PHONE, &json!(2))).unwrap();
    assert_eq!(values(&nodes, 1, PHONE), [(json!(2), json!(2))]);
}

#[test]
fn a_recovering_session_gets_a_value_once() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.send(0, &phone, &retained(PHONE, &json!("old"))).unwrap();
    nodes.send(0, &phone, &retained("Phone/Agent/Name", &json!("Ann"))).unwrap();
    nodes.send(0, &phone, &event(PHONE, "")).unwrap();
    let epoch = told(&nodes, 0, &phone, "Receipt")[0]["Epoch"].as_str().unwrap().to_owned();
    let after = |offset| Some(Recover::After { epoch: epoch.as_str().into(), offset });
    for (from, expected) in
        [(0, vec![(false, 1), (false, 2), (false, 3)]), (1, vec![(true, 1), (false, 2), (false, 3)])]
    {
        let crm = reader(&nodes, 1, "crm", "Phone/*/*", after(from));
        let seen = take_replay(&nodes, 1, &crm);
        let seen: Vec<_> = seen.iter().map(|it| (it["retained"] == true, it["offset"].as_u64().unwrap())).collect();
        assert_eq!(seen, expected, "after {from}");
    }
}

#[test]
fn a_node_that_starts_again_takes_over_values_with_their_places() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.lose(1);
    nodes.send(0, &phone, &retained(PHONE, &json!("busy"))).unwrap();
    nodes.find(1);
    assert!(values(&nodes, 1, PHONE).is_empty());
    nodes.read_values(1);
    assert_eq!(values(&nodes, 1, PHONE), [(json!("busy"), json!(1))]);
}
