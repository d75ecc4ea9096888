//! What nodes do together, in one thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::auth::Permissions;
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::Session;
use wire::command::{Role, State, Subscribe};

use super::nodes::Nodes;
use crate::support::core::event;

pub(super) const HANDLER: Role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };

pub(super) fn nodes(count: usize) -> Nodes {
    let shared = Channel { scope: Scope::Shared, ..Channel::default() };
    Nodes::new(count, &Config { channels: HashMap::from([("Queue".to_owned(), shared)]), ..Config::default() })
}

/// A session of a node that handles a pattern.
pub(super) fn handler(nodes: &Nodes, node: usize, source: &str, user: Option<&str>, pattern: &str) -> Arc<Session> {
    let session = nodes.node(node).attach(source, user);
    nodes.node(node).subscribe_as(&session, &Subscribe::new(pattern.parse().unwrap(), HANDLER));
    nodes.settle();
    session
}

pub(super) fn subscriber(nodes: &Nodes, node: usize, source: &str, user: Option<&str>, pattern: &str) -> Arc<Session> {
    let session = nodes.node(node).attach(source, user);
    nodes.node(node).subscribe(&session, pattern);
    nodes.settle();
    session
}

/// The only message that waits for a session.
#[track_caller]
pub(super) fn only(nodes: &Nodes, node: usize, session: &Session) -> Value {
    let mut all = nodes.take(node, session);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn an_event_reaches_the_matching_sessions_of_every_node_once() {
    let nodes = nodes(3);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let crm = subscriber(&nodes, 1, "crm", Some("alice"), "Calls/*/*");
    let other_user = subscriber(&nodes, 1, "crm", Some("bob"), "Calls/*/*");
    let other_channel = subscriber(&nodes, 2, "notes", Some("alice"), "Notes/*/*");
    let service = subscriber(&nodes, 2, "wallboard", None, "*/*/*");
    nodes.send(0, &phone, &event("Calls/Call/Ringing", r#","id":"e1","data":{"from":"123"}"#)).unwrap();
    let told = only(&nodes, 1, &crm);
    assert_eq!((&told["source"], &told["data"]["from"]), (&json!("phone"), &json!("123")));
    assert_eq!(only(&nodes, 2, &service)["user"], "alice", "a service sees whose it is");
    assert!(nodes.take(1, &other_user).is_empty() && nodes.take(2, &other_channel).is_empty());
}

#[test]
fn a_receipt_says_to_how_many_nodes_the_event_went() {
    let nodes = nodes(3);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    subscriber(&nodes, 1, "crm", Some("alice"), "Calls/*/*");
    let routed = nodes.node(0).send(&phone, &event("Calls/Call/Ringing", r#","id":"e1""#)).unwrap();
    let receipt = routed.receipt.unwrap();
    assert_eq!((receipt.receivers, receipt.nodes, receipt.hint), (0, Some(1), None));
    let text: Value = serde_json::from_str(
        &nodes.node(0).send(&phone, &event("Calls/Call/Ended", r#","id":"e2""#)).unwrap().receipt.unwrap().notice("e2"),
    )
    .unwrap();
    assert_eq!((&text["data"]["Cluster"], &text["data"]["Nodes"]), (&json!(true), &json!(1)));
}

#[test]
fn events_on_a_shared_channel_go_to_the_nodes_that_want_it() {
    let nodes = nodes(3);
    let queue = nodes.node(0).attach("queue", Some("alice"));
    let desk = subscriber(&nodes, 1, "desk", Some("bob"), "Queue/*/*");
    let routed = nodes.node(0).send(&queue, &event("Queue/Agent/Ready", r#","id":"e""#)).unwrap();
    nodes.settle();
    assert_eq!(routed.receipt.unwrap().nodes, Some(1));
    assert_eq!(only(&nodes, 1, &desk)["user"], "alice");
    nodes.node(1).unsubscribe_all(&desk);
    nodes.settle();
    let routed = nodes.node(0).send(&queue, &event("Queue/Agent/Ready", r#","id":"e""#)).unwrap();
    assert_eq!(routed.receipt.unwrap().nodes, Some(0), "nobody wants it any more");
}

#[test]
fn a_request_is_answered_by_a_handler_of_another_node() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let phone = handler(&nodes, 1, "phone", Some("alice"), "Calls/Call/Dial");
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"mine","data":{"to":"123"}"#)).unwrap();
    let asked = only(&nodes, 1, &phone);
    assert_eq!((&asked["source"], &asked["requestId"]), (&json!("crm"), &json!("mine")));
    assert_eq!((&asked["data"]["to"], &asked["user"]), (&json!("123"), &json!("alice")));
    let id = asked["id"].as_str().unwrap();
    for (more, number) in [(r#","more":true"#, 1), ("", 2)] {
        let reply = format!(r#","inReplyTo":"{id}","data":{{"number":{number}}}{more}"#);
        nodes.send(1, &phone, &event("Calls/Call/Dial", &reply)).unwrap();
        let reply = only(&nodes, 0, &crm);
        assert_eq!((&reply["inReplyTo"], &reply["data"]["number"]), (&json!("mine"), &json!(number)));
    }
    let late = event("Calls/Call/Dial", &format!(r#","inReplyTo":"{id}""#));
    assert_eq!(nodes.send(1, &phone, &late), Err("NO_SUCH_REQUEST"), "it is answered once");
    assert_idle(&nodes);
}

#[test]
fn handlers_of_this_node_come_first_and_sleepers_last() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let here = handler(&nodes, 0, "here", Some("alice"), "Calls/Call/Dial");
    let there = handler(&nodes, 1, "there", Some("alice"), "Calls/Call/Dial");
    let dial = event("Calls/Call/Dial", r#","id":"r""#);
    nodes.send(0, &crm, &dial).unwrap();
    assert_eq!((nodes.take(0, &here).len(), nodes.take(1, &there).len()), (1, 0));
    nodes.node(0).router.set_state(nodes.node(0).now, &here, State::Asleep);
    nodes.settle();
    nodes.send(0, &crm, &dial).unwrap();
    assert_eq!((nodes.take(0, &here).len(), nodes.take(1, &there).len()), (0, 1));
    nodes.node(1).router.set_state(nodes.node(1).now, &there, State::Asleep);
    nodes.settle();
    nodes.send(0, &crm, &dial).unwrap();
    assert_eq!((nodes.take(0, &here).len(), nodes.take(1, &there).len()), (1, 0));
}

#[test]
fn a_handler_that_has_gone_when_the_request_arrives_is_replaced_by_the_next() {
    let nodes = nodes(3);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let first = handler(&nodes, 1, "first", Some("alice"), "Calls/Call/Dial");
    let second = handler(&nodes, 2, "second", Some("alice"), "Calls/Call/Dial");
    // The request and the news that the handler has gone cross each other.
    nodes.node(0).send(&crm, &event("Calls/Call/Dial", r#","id":"r""#)).unwrap();
    nodes.node(1).router.detach(nodes.node(1).now, &first);
    nodes.settle();
    assert_eq!(nodes.take(2, &second).len(), 1);
    nodes.node(2).router.detach(nodes.node(2).now, &second);
    nodes.settle();
    assert_eq!(only(&nodes, 0, &crm)["data"]["ErrorCode"], "HANDLER_GONE");
    assert_eq!(nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"s","timeout":50"#)), Err("NO_HANDLER"));
    assert_idle(&nodes);
}

#[test]
fn a_lost_node_ends_the_requests_that_it_handles_and_those_that_it_asked() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let phone = handler(&nodes, 1, "phone", Some("alice"), "Calls/Call/Dial");
    let screen = handler(&nodes, 0, "screen", Some("alice"), "Calls/Call/Show");
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"r""#)).unwrap();
    nodes.send(1, &phone, &event("Calls/Call/Show", r#","id":"s""#)).unwrap();
    assert_eq!((nodes.take(0, &screen).len(), nodes.take(1, &phone).len()), (1, 1));
    nodes.lose(1);
    assert_eq!(only(&nodes, 0, &crm)["data"]["ErrorCode"], "HANDLER_GONE");
    assert_eq!(only(&nodes, 0, &screen)["subtopic"], "Cancelled");
    assert_eq!(only_code(&nodes.take(1, &phone)), "HANDLER_GONE");
    assert_idle(&nodes);
    nodes.find(1);
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"again""#)).unwrap();
    assert_eq!(nodes.take(1, &phone).len(), 1, "it is known again");
}

/// The code of the only failure among some messages.
#[track_caller]
pub(super) fn only_code(messages: &[Value]) -> &str {
    let mut codes = messages.iter().filter_map(|message| message["data"]["ErrorCode"].as_str());
    let code = codes.next().unwrap();
    assert_eq!(codes.next(), None, "{messages:?}");
    code
}

#[test]
fn a_request_that_is_cancelled_or_too_late_ends_at_its_handler() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let phone = handler(&nodes, 1, "phone", Some("alice"), "Calls/Call/Dial");
    let (router, now) = (&nodes.node(0).router, nodes.node(0).now);
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"r""#)).unwrap();
    router.cancel(now, &crm, "r").unwrap();
    nodes.settle();
    assert_eq!(nodes.take(1, &phone)[1]["subtopic"], "Cancelled");
    assert_eq!(only_code(&nodes.take(0, &crm)), "REQUEST_CANCELLED");
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"late","timeout":100"#)).unwrap();
    router.expire(now + Duration::from_millis(100));
    nodes.settle();
    assert_eq!(only_code(&nodes.take(0, &crm)), "REQUEST_TIMEOUT");
    assert_idle(&nodes);
    // The handler is late on both nodes, so another one comes first, wherever it is.
    let other = handler(&nodes, 1, "other", Some("alice"), "Calls/Call/Dial");
    nodes.take(1, &phone);
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"again""#)).unwrap();
    assert_eq!((nodes.take(1, &phone).len(), nodes.take(1, &other).len()), (0, 1));
}

/// `crm` of node 0 has asked for something that may be repeated. The handler of node 1 has it, the one of node 2 came later.
fn asked_of_the_first_of_two() -> (Nodes, Arc<Session>, Arc<Session>, Arc<Session>) {
    let nodes = nodes(3);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let first = handler(&nodes, 1, "first", Some("alice"), "Calls/Call/Dial");
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"r","idempotent":true"#)).unwrap();
    assert_eq!(nodes.take(1, &first).len(), 1);
    let second = handler(&nodes, 2, "second", Some("alice"), "Calls/Call/Dial");
    (nodes, crm, first, second)
}

#[test]
fn an_idempotent_request_of_a_lost_node_goes_to_another_handler() {
    let (nodes, crm, _, second) = asked_of_the_first_of_two();
    nodes.lose(1);
    nodes.settle();
    assert_eq!(nodes.take(2, &second).len(), 1);
    assert!(nodes.take(0, &crm).is_empty());
}

#[test]
fn an_idempotent_request_goes_to_another_handler_when_a_session_elsewhere_leaves() {
    let (nodes, crm, first, second) = asked_of_the_first_of_two();
    nodes.node(1).router.detach(nodes.node(1).now, &first);
    nodes.settle();
    let id = only(&nodes, 2, &second)["id"].as_str().unwrap().to_owned();
    nodes.send(2, &second, &event("Calls/Call/Dial", &format!(r#","inReplyTo":"{id}""#))).unwrap();
    assert_eq!(only(&nodes, 0, &crm)["inReplyTo"], "r");
    assert_idle(&nodes);
}

#[test]
fn a_gather_asks_the_handlers_of_all_nodes() {
    let nodes = nodes(3);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let handlers: Vec<_> = (0..3).map(|it| handler(&nodes, it, &format!("h{it}"), Some("alice"), "A/b/c")).collect();
    nodes.send(0, &crm, &event("A/b/c", r#","id":"g","gather":true"#)).unwrap();
    for (node, handler) in handlers.iter().enumerate() {
        let id = only(&nodes, node, handler)["id"].as_str().unwrap().to_owned();
        nodes.send(node, handler, &event("A/b/c", &format!(r#","inReplyTo":"{id}""#))).unwrap();
    }
    let replies = nodes.take(0, &crm);
    assert_eq!(replies.len(), 4, "{replies:?}");
    let end = &replies[3]["data"];
    assert_eq!((&end["Expected"], &end["Answered"]), (&json!(3), &json!(3)));
    assert!(replies[..3].iter().all(|reply| reply["more"] == json!(true) && reply["inReplyTo"] == "g"));
    assert_idle(&nodes);
}

#[test]
fn an_ordered_handler_of_another_node_takes_requests_one_after_the_other() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let phone = nodes.node(1).attach("phone", Some("alice"));
    let ordered = Role::Handler { answers: true, ordered: true, replies: Vec::new() };
    nodes.node(1).subscribe_as(&phone, &Subscribe::new("A/b/c".parse().unwrap(), ordered));
    nodes.settle();
    for id in ["one", "two"] {
        nodes.send(0, &crm, &event("A/b/c", &format!(r#","id":"{id}""#))).unwrap();
    }
    for id in ["one", "two"] {
        assert_eq!(only(&nodes, 1, &phone)["requestId"], id);
        nodes.send(1, &phone, &event("A/b/c", "")).unwrap();
        assert_eq!(only(&nodes, 0, &crm)["inReplyTo"], id);
    }
    assert_idle(&nodes);
}

#[test]
fn one_member_of_a_group_gets_an_event_wherever_it_is() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let member = |node: usize, source: &str| {
        let session = nodes.node(node).attach(source, None);
        let pattern = "Calls/*/*".parse().unwrap();
        let wanted = Subscribe { group: Some("workers".to_owned()), ..Subscribe::new(pattern, Role::Subscriber) };
        nodes.node(node).subscribe_as(&session, &wanted);
        nodes.settle();
        session
    };
    let members = [member(0, "w0"), member(1, "w1"), member(1, "w2")];
    for _ in 0..6 {
        nodes.send(0, &phone, &event("Calls/Call/Ringing", "")).unwrap();
    }
    let got: Vec<_> =
        [0, 1, 1].into_iter().zip(&members).map(|(node, member)| nodes.take(node, member).len()).collect();
    assert_eq!(got.iter().sum::<usize>(), 6, "{got:?}");
    assert!(got.iter().all(|count| *count > 0), "they take turns: {got:?}");
    // A member that leaves while an event is under way: another one of its node gets it.
    nodes.node(0).router.detach(nodes.node(0).now, &members[0]);
    nodes.settle();
    nodes.node(0).send(&phone, &event("Calls/Call/Ringing", "")).unwrap();
    let (now, router) = (nodes.node(1).now, &nodes.node(1).router);
    router.detach(now, &members[1]);
    nodes.settle();
    let first = nodes.take(1, &members[2]).len();
    nodes.node(0).send(&phone, &event("Calls/Call/Ringing", "")).unwrap();
    nodes.settle();
    assert_eq!((first, nodes.take(1, &members[2]).len()), (1, 1));
    // The last one of its node: a member of another node gets it.
    let last = member(0, "w3");
    for _ in 0..2 {
        nodes.node(0).send(&phone, &event("Calls/Call/Ringing", "")).unwrap();
    }
    router.detach(now, &members[2]);
    nodes.settle();
    assert_eq!(nodes.take(0, &last).len() + nodes.take(1, &members[2]).len(), 2);
}

#[test]
fn applications_of_other_nodes_join_leave_and_are_listed() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach_as("crm", Some("alice"), Permissions::default());
    nodes.node(0).subscribe(&crm, "Broker/Application/*");
    nodes.take(0, &crm);
    let phone = nodes.node(1).attach("phone", Some("alice"));
    let stranger = nodes.node(1).attach("phone", Some("bob"));
    nodes.settle();
    let joined = only(&nodes, 0, &crm);
    assert_eq!((&joined["subtopic"], &joined["data"]["Source"]), (&json!("Joined"), &json!("phone")));
    let sources = || -> Vec<String> {
        nodes.node(0).router.applications(&crm).into_iter().map(|it| format!("{} {}", it.source, it.sessions)).collect()
    };
    assert_eq!(sources(), ["crm 1", "phone 1"]);
    nodes.node(0).attach("phone", Some("alice"));
    assert_eq!(sources(), ["crm 1", "phone 2"], "one row for both nodes");
    assert!(!nodes.node(0).router.applications_are_partial());
    nodes.set_complete(0, false);
    assert!(nodes.node(0).router.applications_are_partial(), "a live node is silent");
    nodes.set_complete(0, true);
    nodes.take(0, &crm);
    nodes.node(1).router.detach(nodes.node(1).now, &phone);
    nodes.node(1).router.detach(nodes.node(1).now, &stranger);
    nodes.settle();
    assert_eq!(only(&nodes, 0, &crm)["subtopic"], "Left");
}

#[test]
fn a_broken_link_is_told_to_those_who_asked_for_it_by_name() {
    let nodes = nodes(2);
    let crm = subscriber(&nodes, 0, "crm", Some("alice"), "Broker/Cluster/Gap");
    let other = subscriber(&nodes, 0, "other", Some("alice"), "Broker/*/*");
    nodes.take(0, &other);
    nodes.lose(1);
    let gap = only(&nodes, 0, &crm);
    assert_eq!((&gap["topic"], &gap["data"]["Since"]), (&json!("Cluster"), &json!("1970-01-01T00:00:00.000Z")));
    assert!(nodes.take(0, &other).is_empty());
}

#[test]
fn a_subscription_is_answered_when_the_other_nodes_know_it() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    nodes.settle();
    let (core, wanted) = (nodes.node(0), Subscribe::new("A/*/*".parse().unwrap(), Role::Subscriber));
    let told = |_| Some(switchboard::websocket::Frame::new("{}"));
    core.router.subscribe(core.now, &crm, &wanted, told).unwrap();
    let taken = || {
        let mut frames = Vec::new();
        core.take_some(&crm, 16, &mut frames);
        frames.len()
    };
    assert_eq!(taken(), 0, "the other node does not know it");
    nodes.settle();
    assert_eq!(taken(), 1);
    // Nobody waits for a node that is lost.
    let wanted = Subscribe::new("B/*/*".parse().unwrap(), HANDLER);
    core.router.subscribe(core.now, &crm, &wanted, told).unwrap();
    assert_eq!(taken(), 0);
    nodes.lose(1);
    assert_eq!(taken(), 1);
}

/// Nothing is left of requests, on any node.
#[track_caller]
pub(super) fn assert_idle(nodes: &Nodes) {
    for node in 0..2 {
        let size = nodes.node(node).router.size();
        assert_eq!((size.requests, size.asked, size.given, size.turns), (0, 0, 0, 0), "node {node}");
    }
}

#[test]
fn a_node_that_is_cut_off_does_not_take_requests_for_events() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let other = nodes.node(0).attach("crm", Some("bob"));
    handler(&nodes, 1, "phone", Some("alice"), "Calls/Call/Dial");
    let (router, now) = (&nodes.node(0).router, nodes.node(0).now);
    let dial = event("Calls/Call/Dial", "");
    nodes.lose(1);
    nodes.send(0, &crm, &dial).unwrap();
    router.set_cut_off(now, true);
    assert_eq!(nodes.send(0, &crm, &dial), Err("UPSTREAM_UNAVAILABLE"));
    nodes.send(0, &other, &dial).unwrap();
    nodes.send(0, &crm, &event("Calls/Call/Ringing", "")).unwrap();
    // Handlers here answer as ever.
    let here = handler(&nodes, 0, "here", Some("alice"), "Calls/Call/Dial");
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"r""#)).unwrap();
    assert_eq!(nodes.take(0, &here).len(), 1);
    router.detach(now, &here);
    // After a minute, nobody remembers what others handled.
    let later = now + Duration::from_mins(1);
    assert_eq!(router.deadline(), Some(later));
    router.expire(later);
    nodes.send(0, &crm, &dial).unwrap();
    // A node that is found again says itself what it handles.
    router.set_cut_off(now, true);
    nodes.find(1);
    nodes.lose(1);
    assert_eq!(nodes.send(0, &crm, &dial), Err("UPSTREAM_UNAVAILABLE"));
    router.set_cut_off(now, false);
    nodes.send(0, &crm, &dial).unwrap();
}
