//! Ordered handlers that return to another node, in one thread: each request that they were given is answered once, and they
//! have one at a time.

use serde_json::{Value, json};
use switchboard::config::Config;

use super::nodes::Nodes;
use crate::support::client::Client;
use crate::support::core::event;

const DIAL: &str = "Calls/Call/Dial";

fn nodes(count: usize) -> Nodes {
    Nodes::new(count, &Config::default())
}

/// Begins an ordered handler on a node.
fn handler(nodes: &Nodes, node: usize) -> Client {
    let mut client = nodes.desk(node).begin("gadget");
    let wanted = json!({"channel": "Calls", "topic": "Call", "subtopic": "Dial", "role": "handler", "ordered": true});
    client.command(nodes.desk(node), "Subscription", "Subscribe", &wanted);
    nodes.settle();
    assert_eq!(client.take(nodes.desk(node), usize::MAX)[0]["data"]["Success"], true);
    client
}

fn move_to(nodes: &Nodes, node: usize, client: &mut Client) {
    client.return_to(nodes.desk(node));
    nodes.settle();
    client.poll_fetch(nodes.desk(node));
    let data = client.returned(nodes.desk(node));
    assert_eq!(data["Resumed"], true, "{data}");
    nodes.settle();
}

fn request(id: &str) -> String {
    event(DIAL, &format!(r#","id":"{id}","timeout":20000,"data":"{id}""#))
}

/// The one request that a handler gets.
fn next(nodes: &Nodes, node: usize, client: &mut Client) -> String {
    let got = client.take(nodes.desk(node), usize::MAX);
    assert_eq!(got.len(), 1, "{got:?}");
    got[0]["data"].as_str().unwrap().to_owned()
}

/// Replies as an ordered handler does, without naming the request.
fn reply(nodes: &Nodes, node: usize, client: &mut Client, data: &str) {
    client.say(nodes.desk(node), &event(DIAL, &format!(r#","data":"to {data}""#)));
    nodes.settle();
}

/// The answers that a requester gets.
fn answers(received: &[Value]) -> Vec<(&str, &str)> {
    received.iter().map(|it| (it["inReplyTo"].as_str().unwrap(), it["data"].as_str().unwrap())).collect()
}

#[test]
fn an_ordered_handler_takes_its_turns_along() {
    for asker_node in 0..3 {
        let nodes = nodes(3);
        let mut gadget = handler(&nodes, 0);
        let crm = nodes.node(asker_node).attach("crm", Some("alice"));
        for id in ["a", "b"] {
            nodes.send(asker_node, &crm, &request(id)).unwrap();
        }
        assert_eq!(next(&nodes, 0, &mut gadget), "a");
        gadget.lose(nodes.desk(0));
        nodes.send(asker_node, &crm, &request("c")).unwrap();
        move_to(&nodes, 1, &mut gadget);
        let other = nodes.node(2).attach("other", Some("alice"));
        nodes.send(2, &other, &request("d")).unwrap();
        assert!(gadget.take(nodes.desk(1), usize::MAX).is_empty(), "it has one request at a time");
        let mut seen = Vec::new();
        let mut current = "a".to_owned();
        loop {
            reply(&nodes, 1, &mut gadget, &current);
            seen.push(current);
            if seen.len() == 4 {
                break;
            }
            current = next(&nodes, 1, &mut gadget);
        }
        assert_eq!(seen, ["a", "b", "c", "d"], "asked on node {asker_node}");
        let received = nodes.take(asker_node, &crm);
        assert_eq!(answers(&received), [("a", "to a"), ("b", "to b"), ("c", "to c")], "asked on node {asker_node}");
        assert_eq!(answers(&nodes.take(2, &other)), [("d", "to d")]);
        // What it sends next is an event.
        gadget.say(nodes.desk(1), &event(DIAL, r#","id":"e""#));
        nodes.settle();
        assert_eq!(gadget.take(nodes.desk(1), usize::MAX)[0]["subtopic"], "Receipt");
    }
}

#[test]
fn a_requester_and_its_ordered_handler_both_move() {
    let nodes = nodes(3);
    let mut gadget = handler(&nodes, 0);
    let mut crm = nodes.desk(0).begin("crm");
    for id in ["a", "b"] {
        crm.say(nodes.desk(0), &request(id));
    }
    assert_eq!(next(&nodes, 0, &mut gadget), "a");
    move_to(&nodes, 1, &mut crm);
    move_to(&nodes, 2, &mut gadget);
    assert!(nodes.node(0).router.has_sessions_to_move(), "the node stays for the requests");
    reply(&nodes, 2, &mut gadget, "a");
    assert_eq!(next(&nodes, 2, &mut gadget), "b");
    reply(&nodes, 2, &mut gadget, "b");
    let received = crm.take(nodes.desk(1), usize::MAX);
    assert_eq!(answers(&received), [("a", "to a"), ("b", "to b")]);
    assert!(!nodes.node(0).router.has_sessions_to_move(), "nothing is left to relay");
}

#[test]
fn a_reply_that_is_owed_is_never_taken_for_the_next_one() {
    let nodes = nodes(3);
    let mut gadget = handler(&nodes, 0);
    let crm = nodes.node(2).attach("crm", Some("alice"));
    nodes.send(2, &crm, &request("late")).unwrap();
    assert_eq!(next(&nodes, 0, &mut gadget), "late");
    nodes.node(2).router.cancel(nodes.node(2).now, &crm, "late").unwrap();
    nodes.settle();
    assert_eq!(nodes.take(2, &crm)[0]["data"]["ErrorCode"], "REQUEST_CANCELLED");
    gadget.take(nodes.desk(0), usize::MAX);
    move_to(&nodes, 1, &mut gadget);
    nodes.send(2, &crm, &request("next")).unwrap();
    assert!(gadget.take(nodes.desk(1), usize::MAX).is_empty(), "it owes a reply");
    reply(&nodes, 1, &mut gadget, "late");
    assert!(nodes.take(2, &crm).is_empty(), "it is discarded");
    assert_eq!(next(&nodes, 1, &mut gadget), "next");
    reply(&nodes, 1, &mut gadget, "next");
    assert_eq!(answers(&nodes.take(2, &crm)), [("next", "to next")]);
}

#[test]
fn the_turns_of_a_session_go_on_if_its_old_node_is_lost() {
    let nodes = nodes(3);
    let mut gadget = handler(&nodes, 0);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    for id in ["a", "b"] {
        nodes.send(0, &crm, &request(id)).unwrap();
    }
    assert_eq!(next(&nodes, 0, &mut gadget), "a");
    move_to(&nodes, 1, &mut gadget);
    let other = nodes.node(2).attach("other", Some("alice"));
    nodes.send(2, &other, &request("c")).unwrap();
    nodes.lose(0);
    let failed: Vec<_> = nodes.take(0, &crm).iter().map(|it| it["data"]["ErrorCode"].clone()).collect();
    assert_eq!(failed, ["HANDLER_GONE", "HANDLER_GONE"]);
    // The reply to what it was given is discarded.
    reply(&nodes, 1, &mut gadget, "a");
    assert_eq!(next(&nodes, 1, &mut gadget), "c");
    reply(&nodes, 1, &mut gadget, "c");
    assert_eq!(answers(&nodes.take(2, &other)), [("c", "to c")]);
}
