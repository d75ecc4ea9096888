//! Retained values of several nodes, in one thread.

use std::sync::Arc;

use serde_json::{Value, json};
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::{Ending, Filter, Removal, Session};
use wire::Triple;

use super::nodes::Nodes;
use crate::support::core::event;

const STATE: &str = "Phone/Agent/State";

fn nodes(count: usize) -> Nodes {
    let shared = Channel { scope: Scope::Shared, ..Channel::default() };
    Nodes::new(count, &Config { channels: [("Queue".to_owned(), shared)].into(), ..Config::default() })
}

fn retained(triple: &str, data: &Value) -> String {
    event(triple, &format!(r#","retain":true,"id":"e","data":{data}"#))
}

/// Publishes a retained value, with everything that follows of it.
fn publish(nodes: &Nodes, node: usize, session: &Arc<Session>, triple: &str, data: &Value) {
    nodes.send(node, session, &retained(triple, data)).unwrap();
}

/// What a new subscriber receives.
fn values(nodes: &Nodes, node: usize, user: &str, pattern: &str) -> Vec<Value> {
    let reader = nodes.node(node).attach("reader", Some(user));
    nodes.node(node).subscribe(&reader, pattern);
    nodes.settle();
    let found = nodes.take(node, &reader);
    let core = nodes.node(node);
    core.router.detach(core.now, &reader);
    nodes.settle();
    assert!(found.iter().all(|it| it["retained"] == true), "{found:?}");
    found.iter().map(|it| it["data"].clone()).collect()
}

/// The messages for a session on this triple.
fn on(nodes: &Nodes, node: usize, session: &Session, subtopic: &str) -> Vec<Value> {
    nodes.take(node, session).into_iter().filter(|it| it["subtopic"] == subtopic).collect()
}

#[test]
fn every_node_has_a_value_when_its_publisher_gets_the_receipt() {
    let nodes = nodes(3);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let crm = nodes.node(1).attach("crm", Some("alice"));
    nodes.node(1).subscribe(&crm, "Phone/*/*");
    nodes.settle();
    let routed = nodes.node(0).send(&phone, &retained(STATE, &json!("busy"))).unwrap();
    assert!(routed.ticket.is_some() && routed.receipt.is_none(), "it waits for the storage");
    assert!(nodes.put_one(0));
    assert!(on(&nodes, 0, &phone, "Receipt").is_empty(), "the others do not have it yet");
    assert!(nodes.deliver_one(1));
    assert!(on(&nodes, 0, &phone, "Receipt").is_empty(), "one does not have it yet");
    assert!(nodes.deliver_one(2));
    let receipts = on(&nodes, 0, &phone, "Receipt");
    assert_eq!(receipts.len(), 1, "{receipts:?}");
    assert_eq!(
        (&receipts[0]["data"]["Nodes"], &receipts[0]["inReplyTo"]),
        (&json!(1), &json!("e")),
        "one node wants it"
    );
    let events = nodes.take(1, &crm);
    assert_eq!((events.len(), &events[0]["retained"], &events[0]["data"]), (1, &Value::Null, &json!("busy")));
    for node in 0..3 {
        assert_eq!(values(&nodes, node, "alice", "Phone/*/*"), [json!("busy")], "node {node}");
        assert!(values(&nodes, node, "bob", "Phone/*/*").is_empty(), "node {node}");
    }
}

#[test]
fn a_receipt_does_not_wait_for_a_node_that_is_lost() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.node(0).send(&phone, &retained(STATE, &json!(1))).unwrap();
    assert!(nodes.put_one(0) && on(&nodes, 0, &phone, "Receipt").is_empty());
    nodes.lose(1);
    assert_eq!(on(&nodes, 0, &phone, "Receipt").len(), 1);
}

#[test]
fn the_value_with_the_greatest_revision_is_kept_in_whatever_order_they_arrive() {
    let nodes = nodes(3);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let pager = nodes.node(1).attach("pager", Some("alice"));
    nodes.node(0).send(&phone, &retained(STATE, &json!("first"))).unwrap();
    nodes.node(1).send(&pager, &retained(STATE, &json!("second"))).unwrap();
    let (first, second) = (nodes.begin_put(0).unwrap(), nodes.begin_put(1).unwrap());
    // The node of the second one is faster, and another node gets it first.
    nodes.end_put(1, second);
    nodes.settle();
    nodes.end_put(0, first);
    nodes.settle();
    for node in 0..3 {
        assert_eq!(values(&nodes, node, "alice", "Phone/*/*"), [json!("second")], "node {node}");
    }
}

#[test]
fn a_cleared_value_does_not_return() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let pager = nodes.node(1).attach("pager", Some("alice"));
    publish(&nodes, 0, &phone, STATE, &json!("first"));
    nodes.node(0).send(&phone, &retained(STATE, &json!("late"))).unwrap();
    nodes.node(1).send(&pager, &retained(STATE, &json!(null))).unwrap();
    let (late, cleared) = (nodes.begin_put(0).unwrap(), nodes.begin_put(1).unwrap());
    nodes.end_put(1, cleared);
    nodes.settle();
    nodes.end_put(0, late);
    nodes.settle();
    for node in 0..2 {
        assert!(values(&nodes, node, "alice", "Phone/*/*").is_empty(), "node {node}");
        assert_eq!(nodes.node(node).router.size().retained_values, 0);
    }
    publish(&nodes, 1, &pager, STATE, &json!("new"));
    for node in 0..2 {
        assert_eq!(values(&nodes, node, "alice", "Phone/*/*"), [json!("new")], "node {node}");
    }
}

#[test]
fn a_value_counts_for_its_owner_and_is_for_its_target_on_every_node() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let wallboard = nodes.node(0).attach("wallboard", None);
    nodes.send(0, &phone, &event(STATE, r#","retain":true,"target":"reader","data":1"#)).unwrap();
    nodes.send(0, &phone, &event(STATE, r#","retain":true,"target":"other","data":2"#)).unwrap();
    assert_eq!(values(&nodes, 1, "alice", "Phone/*/*"), [json!(1)]);
    nodes.send(0, &wallboard, &event("Queue/Agents/Ready", r#","retain":true,"data":3"#)).unwrap();
    assert_eq!(values(&nodes, 1, "bob", "Queue/*/*"), [json!(3)]);
    let rows = |node: usize| {
        let router = &nodes.node(node).router;
        let mut rows: Vec<_> =
            router.list_retained(&Filter::default()).iter().map(|it| router.retained_row(it)).collect();
        rows.sort_by(|one, other| (&one.triple, &one.target).cmp(&(&other.triple, &other.target)));
        rows.into_iter().map(|row| (row.user, row.triple, row.source, row.target, row.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(rows(0), rows(1), "an operator sees the same on every node");
    assert_eq!(rows(1).len(), 3);
}

#[test]
fn what_an_operator_removes_is_removed_on_every_node() {
    let nodes = nodes(3);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    publish(&nodes, 0, &phone, STATE, &json!(1));
    publish(&nodes, 0, &phone, "Phone/Agent/Name", &json!(2));
    let core = nodes.node(2);
    let triple = Triple::new("Phone", "Agent", "State");
    let removal = core.router.remove_retained(core.now, Some("alice"), &triple).unwrap();
    assert!(matches!(removal, Removal::Waits(_)));
    nodes.settle();
    for node in 0..3 {
        assert_eq!(values(&nodes, node, "alice", "Phone/*/*"), [json!(2)], "node {node}");
    }
}

#[test]
fn a_node_that_starts_again_takes_over_what_is_stored() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.lose(1);
    publish(&nodes, 0, &phone, STATE, &json!("old"));
    publish(&nodes, 0, &phone, STATE, &json!("busy"));
    publish(&nodes, 0, &phone, "Phone/Agent/Gone", &json!(1));
    publish(&nodes, 0, &phone, "Phone/Agent/Gone", &json!(null));
    assert!(values(&nodes, 1, "alice", "Phone/*/*").is_empty());
    nodes.find(1);
    nodes.read_values(1);
    assert_eq!(values(&nodes, 1, "alice", "Phone/*/*"), [json!("busy")]);
    nodes.read_values(1);
    assert_eq!(values(&nodes, 1, "alice", "Phone/*/*"), [json!("busy")], "to read again changes nothing");
}

#[test]
fn without_storage_a_retained_event_is_refused_and_nobody_receives_it() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let crm = nodes.node(1).attach("crm", Some("alice"));
    nodes.node(1).subscribe(&crm, "Phone/*/*");
    nodes.settle();
    nodes.storage.set_away(true);
    nodes.node(0).send(&phone, &retained(STATE, &json!(1))).unwrap();
    nodes.settle();
    let told = nodes.take(0, &phone);
    assert_eq!((told.len(), &told[0]["data"]["ErrorCode"]), (1, &json!("STORAGE_UNAVAILABLE")), "{told:?}");
    assert!(nodes.take(1, &crm).is_empty());
    nodes.send(0, &phone, &event(STATE, r#","data":2"#)).unwrap();
    assert_eq!(nodes.take(1, &crm)[0]["data"], 2, "other events go on");
    nodes.storage.set_away(false);
    publish(&nodes, 0, &phone, STATE, &json!(3));
    assert_eq!(values(&nodes, 1, "alice", "Phone/*/*"), [json!(3)]);
}

#[test]
fn the_retained_will_of_a_session_reaches_every_node_before_it_has_left() {
    let nodes = nodes(2);
    let crm = nodes.node(1).attach("crm", Some("alice"));
    nodes.node(1).subscribe(&crm, "Phone/*/*");
    nodes.node(1).subscribe(&crm, "Broker/Application/*");
    let core = nodes.node(0);
    let phone = core.attach_with_will("phone", Some(event(STATE, r#","retain":true,"data":"offline""#)));
    nodes.settle();
    nodes.take(1, &crm);
    core.router.leave(core.now, &phone, 0, Ending::Lost, None);
    nodes.settle();
    let told = nodes.take(1, &crm);
    let told: Vec<_> = told.iter().map(|it| (&it["subtopic"], &it["data"])).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], (&json!("State"), &json!("offline")));
    assert_eq!(told[1].0, "Left");
    assert_eq!(values(&nodes, 0, "alice", "Phone/*/*"), [json!("offline")]);
}

#[test]
fn nodes_that_race_end_with_the_same_value() {
    const ROUNDS: u64 = 300;
    let nodes = nodes(3);
    let writers: Vec<_> = (0..3).map(|node| nodes.node(node).attach("writer", Some("alice"))).collect();
    // A small generator, so that a failure can be played again.
    let mut state = 7_u64;
    let mut pick = |count: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % count
    };
    for round in 0..ROUNDS {
        let mut open = Vec::new();
        for (node, writer) in writers.iter().enumerate() {
            let data = if pick(5) == 0 { json!(null) } else { json!(format!("{round}-{node}")) };
            let triple = if pick(2) == 0 { STATE } else { "Phone/Agent/Name" };
            nodes.node(node).send(writer, &retained(triple, &data)).unwrap();
        }
        for _ in 0..30 {
            let node = usize::try_from(pick(3)).unwrap();
            match pick(3) {
                0 => open.extend(nodes.begin_put(node).map(|put| (node, put))),
                1 if !open.is_empty() => {
                    let at = usize::try_from(pick(open.len() as u64)).unwrap();
                    let (node, put) = open.remove(at);
                    nodes.end_put(node, put);
                }
                _ => drop(nodes.deliver_one(node)),
            }
        }
        for (node, put) in open {
            nodes.end_put(node, put);
        }
        nodes.settle();
        let stored = nodes.storage.values();
        for node in 0..3 {
            let mut found = values(&nodes, node, "alice", "Phone/*/*");
            found.sort_by_key(ToString::to_string);
            assert_eq!(found, stored, "node {node}, round {round}");
        }
        writers.iter().enumerate().for_each(|(node, writer)| drop(nodes.take(node, writer)));
    }
}
