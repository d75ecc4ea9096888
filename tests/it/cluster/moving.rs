//! Sessions that return to another node, in one thread.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::connection::{Effect, Input};
use wire::CloseCode;
use wire::command::{Role, Subscribe};

use super::nodes::Nodes;
use crate::support::client::Client;
use crate::support::core::event;

const HANDLER: Role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
const GRACE: Duration = Duration::from_secs(31);

fn nodes(count: usize) -> Nodes {
    Nodes::new(count, &Config::default())
}

/// Continues the session on a node. Returns `data` of the reply.
#[track_caller]
fn move_to(nodes: &Nodes, node: usize, client: &mut Client) -> Value {
    client.return_to(nodes.desk(node));
    nodes.settle();
    client.poll_fetch(nodes.desk(node));
    let data = client.returned(nodes.desk(node));
    nodes.settle();
    data
}

/// Subscribes a client, and takes the reply.
fn subscribe(nodes: &Nodes, node: usize, client: &mut Client, pattern: &str) {
    let [channel, topic, subtopic]: [&str; 3] = pattern.split('/').collect::<Vec<_>>().try_into().unwrap();
    let data = json!({"channel": channel, "topic": topic, "subtopic": subtopic});
    client.command(nodes.desk(node), "Subscription", "Subscribe", &data);
    nodes.settle();
    assert_eq!(client.take(nodes.desk(node), usize::MAX)[0]["data"]["Success"], true);
}

/// The payloads of the events that a client gets.
fn payloads(nodes: &Nodes, node: usize, client: &mut Client) -> Vec<i64> {
    client.take(nodes.desk(node), usize::MAX).iter().filter_map(|it| it["data"].as_i64()).collect()
}

fn ring(number: usize) -> String {
    event("Phone/Call/Ring", &format!(r#","data":{number}"#))
}

/// Ends the memory of sessions that have moved, and the graces of those that are away, on the first nodes.
fn forget(nodes: &Nodes, count: usize) {
    for _ in 0..3 {
        for node in 0..count {
            let core = nodes.node(node);
            core.router.expire(core.now + 10 * GRACE);
        }
        nodes.settle();
    }
}

#[test]
fn a_session_continues_on_another_node_with_everything_it_had() {
    let nodes = nodes(3);
    let phone = nodes.node(2).attach("phone", Some("alice"));
    let watcher = nodes.node(1).attach("watcher", Some("alice"));
    nodes.node(1).subscribe(&watcher, "Broker/Application/*");
    nodes.settle();
    let mut gadget = nodes.desk(0).begin("gadget");
    subscribe(&nodes, 0, &mut gadget, "Phone/Call/Ring");
    assert_eq!(nodes.take(1, &watcher)[0]["subtopic"], "Joined");
    for number in 0..3 {
        nodes.send(2, &phone, &ring(number)).unwrap();
    }
    assert_eq!(payloads(&nodes, 0, &mut gadget), [0, 1, 2]);
    // Two of them did not arrive.
    gadget.received -= 2;
    gadget.lose(nodes.desk(0));
    nodes.send(2, &phone, &ring(3)).unwrap();
    let id = nodes.node(1).router.applications(&watcher).len();
    let data = move_to(&nodes, 1, &mut gadget);
    assert_eq!(
        (&data["Resumed"], &data["Replayed"], &data["Received"]),
        (&json!(true), &json!(2), &json!(1)),
        "{data}"
    );
    nodes.send(2, &phone, &ring(4)).unwrap();
    assert_eq!(payloads(&nodes, 1, &mut gadget), [1, 2, 3, 4]);
    assert_eq!(nodes.node(1).router.applications(&watcher).len(), id);
    assert!(nodes.take(1, &watcher).is_empty(), "it neither left nor joined");
    // It is alive there.
    gadget.say(nodes.desk(1), &event("Phone/Note/New", r#","id":"n""#));
    assert_eq!(gadget.take(nodes.desk(1), usize::MAX)[0]["subtopic"], "Receipt");
    // And goes back.
    gadget.lose(nodes.desk(1));
    nodes.send(2, &phone, &ring(5)).unwrap();
    let data = move_to(&nodes, 0, &mut gadget);
    assert_eq!((&data["Resumed"], &data["Received"]), (&json!(true), &json!(2)), "{data}");
    assert_eq!(payloads(&nodes, 0, &mut gadget), [5]);
    gadget.command(nodes.desk(0), "Application", "Unregister", &json!({}));
    nodes.settle();
    assert_eq!(nodes.take(1, &watcher)[0]["subtopic"], "Left");
    nodes.node(2).router.detach(nodes.node(2).now, &phone);
    nodes.node(1).router.detach(nodes.node(1).now, &watcher);
    nodes.expect_nothing_left(0..3);
}

#[test]
fn the_connection_that_the_session_had_is_replaced() {
    let nodes = nodes(2);
    let mut gadget = nodes.desk(0).begin("gadget");
    let mut old = nodes.desk(0).begin("other");
    std::mem::swap(&mut old.connection, &mut gadget.connection);
    // `old` has the connection of the gadget's session.
    let data = move_to(&nodes, 1, &mut gadget);
    assert_eq!(data["Resumed"], true, "{data}");
    let end = old.connection.ended().unwrap();
    old.handle(nodes.desk(0), Input::Ended(end));
    assert_eq!(old.closed, Some(CloseCode::Replaced));
}

#[test]
fn a_used_token_is_replaced_on_every_node_and_a_lost_reply_does_no_harm() {
    let nodes = nodes(3);
    let mut gadget = nodes.desk(0).begin("gadget");
    let first = gadget.token.clone();
    assert_eq!(move_to(&nodes, 1, &mut gadget)["Resumed"], true);
    // The reply was lost: the first token is still good, on any node.
    gadget.token = first.clone();
    assert_eq!(move_to(&nodes, 2, &mut gadget)["Resumed"], true);
    let newest = gadget.token.clone();
    gadget.command(nodes.desk(2), "Connection", "Acknowledge", &json!({ "received": 0 }));
    let mut other = nodes.desk(0).begin("gadget");
    for node in 0..3 {
        other.token = first.clone();
        let data = move_to(&nodes, node, &mut other);
        assert_eq!((&data["Resumed"], &data["ResumeReason"]), (&json!(false), &json!("REPLACED")), "node {node}");
    }
    gadget.token = newest;
    assert_eq!(move_to(&nodes, 0, &mut gadget)["Resumed"], true);
}

#[test]
fn a_session_of_a_lost_node_is_unknown_and_one_of_another_client_stays() {
    let nodes = nodes(3);
    let mut gadget = nodes.desk(0).begin("gadget");
    let mut thief = nodes.desk(1).begin("thief");
    thief.token = gadget.token.clone();
    assert_eq!(move_to(&nodes, 1, &mut thief)["ResumeReason"], "IDENTITY");
    nodes.lose(0);
    assert_eq!(move_to(&nodes, 1, &mut gadget)["ResumeReason"], "UNKNOWN");
}

#[test]
fn a_move_that_is_interrupted_leaves_one_owner_or_none() {
    // After each number of messages between the nodes, the link breaks.
    for steps in 0..12 {
        let nodes = nodes(2);
        let mut gadget = nodes.desk(0).begin("gadget");
        subscribe(&nodes, 0, &mut gadget, "Phone/Call/Ring");
        let phone = nodes.node(0).attach("phone", Some("alice"));
        nodes.send(0, &phone, &ring(0)).unwrap();
        gadget.lose(nodes.desk(0));
        gadget.return_to(nodes.desk(1));
        for step in 0..steps {
            nodes.deliver_one(step % 2);
        }
        nodes.lose(0);
        let token = gadget.token.clone();
        assert!(gadget.poll_fetch(nodes.desk(1)), "after {steps} steps");
        let there = gadget.returned(nodes.desk(1));
        let mut again = nodes.desk(0).begin("gadget");
        again.token = token;
        again.received = 1;
        let here = {
            again.return_to(nodes.desk(0));
            again.poll_fetch(nodes.desk(0));
            again.returned(nodes.desk(0))
        };
        let owners = [&there, &here].iter().filter(|data| data["Resumed"] == true).count();
        assert!(owners <= 1, "after {steps} steps: {there} {here}");
        if here["Resumed"] == true {
            assert_eq!(payloads(&nodes, 0, &mut again), [0], "after {steps} steps");
        }
    }
}

#[test]
fn requests_of_both_kinds_outlive_the_move() {
    let nodes = nodes(3);
    let crm = nodes.node(2).attach("crm", Some("alice"));
    let mut gadget = nodes.desk(0).begin("gadget");
    let wanted = json!({"channel": "Calls", "topic": "Call", "subtopic": "Dial", "role": "handler"});
    gadget.command(nodes.desk(0), "Subscription", "Subscribe", &wanted);
    nodes.settle();
    gadget.take(nodes.desk(0), usize::MAX);
    let notes = nodes.node(2).attach("notes", Some("alice"));
    nodes.node(2).subscribe_as(&notes, &Subscribe::new("Notes/Note/Find".parse().unwrap(), HANDLER));
    nodes.settle();
    nodes.send(2, &crm, &event("Calls/Call/Dial", r#","id":"given","timeout":20000"#)).unwrap();
    let given = gadget.take(nodes.desk(0), usize::MAX).remove(0);
    gadget.say(nodes.desk(0), &event("Notes/Note/Find", r#","id":"asked","timeout":20000"#));
    nodes.settle();
    let asked = nodes.take(2, &notes).remove(0);
    gadget.lose(nodes.desk(0));
    assert_eq!(move_to(&nodes, 1, &mut gadget)["Resumed"], true);
    // It answers from its new node, and is answered there.
    let reply = |triple: &str, to: &Value| event(triple, &format!(r#","inReplyTo":{to},"data":7"#));
    gadget.say(nodes.desk(1), &reply("Calls/Call/Dial", &given["id"]));
    nodes.settle();
    assert_eq!(nodes.take(2, &crm)[0]["inReplyTo"], "given");
    nodes.send(2, &notes, &reply("Notes/Note/Find", &asked["id"])).unwrap();
    assert_eq!(gadget.take(nodes.desk(1), usize::MAX)[0]["inReplyTo"], "asked");
    // The next request goes to the new node.
    nodes.send(2, &crm, &event("Calls/Call/Dial", r#","id":"next""#)).unwrap();
    let next = gadget.take(nodes.desk(1), usize::MAX).remove(0);
    gadget.say(nodes.desk(1), &reply("Calls/Call/Dial", &next["id"]));
    nodes.settle();
    assert_eq!(nodes.take(2, &crm)[0]["inReplyTo"], "next");
}

#[test]
fn a_request_is_answered_once_also_if_the_old_node_is_lost() {
    let nodes = nodes(3);
    let mut gadget = nodes.desk(0).begin("gadget");
    let notes = nodes.node(2).attach("notes", Some("alice"));
    nodes.node(2).subscribe_as(&notes, &Subscribe::new("Notes/Note/Find".parse().unwrap(), HANDLER));
    nodes.settle();
    for id in ["answered", "open"] {
        gadget.say(nodes.desk(0), &event("Notes/Note/Find", &format!(r#","id":"{id}","timeout":20000"#)));
    }
    nodes.settle();
    let asked = nodes.take(2, &notes);
    gadget.lose(nodes.desk(0));
    assert_eq!(move_to(&nodes, 1, &mut gadget)["Resumed"], true);
    nodes.send(2, &notes, &event("Notes/Note/Find", &format!(r#","inReplyTo":{}"#, asked[0]["id"]))).unwrap();
    assert_eq!(gadget.take(nodes.desk(1), usize::MAX)[0]["inReplyTo"], "answered");
    nodes.lose(0);
    let failed = gadget.take(nodes.desk(1), usize::MAX);
    assert_eq!((failed.len(), &failed[0]["inReplyTo"]), (1, &json!("open")), "{failed:?}");
    assert_eq!(failed[0]["data"]["ErrorCode"], "HANDLER_GONE");
}

#[test]
fn a_session_that_has_moved_is_found_also_if_the_node_of_the_token_is_lost() {
    let nodes = nodes(4);
    let mut gadget = nodes.desk(0).begin("gadget");
    let first = gadget.token.clone();
    assert_eq!(move_to(&nodes, 1, &mut gadget)["Resumed"], true);
    nodes.lose(0);
    // The reply was lost.
    gadget.token = first;
    assert_eq!(move_to(&nodes, 2, &mut gadget)["Resumed"], true);
}

#[test]
fn a_register_waits_for_as_long_as_parts_of_its_session_arrive() {
    let nodes = nodes(2);
    let mut gadget = nodes.desk(0).begin("gadget");
    subscribe(&nodes, 0, &mut gadget, "Phone/Call/Ring");
    let phone = nodes.node(0).attach("phone", Some("alice"));
    gadget.lose(nodes.desk(0));
    let text = event("Phone/Call/Ring", &format!(r#","data":"{}""#, "x".repeat(30_000)));
    (0..100).for_each(|_| nodes.send(0, &phone, &text).unwrap());
    gadget.return_to(nodes.desk(1));
    for step in 0..8 {
        nodes.deliver_one(step % 2);
    }
    let mut later = |seconds| {
        let desk = nodes.desk(1);
        let effect =
            gadget.connection.handle(desk.now() + Duration::from_secs(seconds), Input::Timeout, &desk.core.router);
        assert!(effect.is_none(), "{effect:?}");
        gadget.take(desk, usize::MAX)
    };
    assert!(later(4).is_empty(), "it waits on: something has arrived");
    assert_eq!(later(8)[0]["data"]["ResumeReason"], "UNKNOWN");
}

#[test]
fn a_node_that_drains_closes_each_connection_at_its_time() {
    let nodes = nodes(2);
    let desk = nodes.desk(0);
    let mut gadget = desk.begin_with("gadget", &json!({ "resume": true, "will": will() }));
    assert!(gadget.handle(desk, Input::MoveAfter(Duration::ZERO)).is_none());
    assert!(matches!(gadget.handle(desk, Input::Timeout), Some(Effect::Close(_))));
    assert_eq!(gadget.closed, Some(CloseCode::Restart));
    let told = gadget.take(desk, usize::MAX).remove(0);
    assert_eq!((&told["subtopic"], &told["data"]["ReconnectAfterMs"]), (&json!("Draining"), &json!(0)));
    let data = move_to(&nodes, 1, &mut gadget);
    assert_eq!((&data["Resumed"], &data["Replayed"]), (&json!(true), &json!(0)), "{data}");
}

#[test]
fn a_will_is_published_where_the_session_ends_and_not_where_it_was() {
    let nodes = nodes(2);
    let watcher = nodes.node(0).attach("watcher", Some("alice"));
    nodes.node(0).subscribe(&watcher, "Phone/Call/Gone");
    nodes.settle();
    let mut gadget = nodes.desk(0).begin_with("gadget", &json!({ "resume": true, "will": will() }));
    gadget.lose(nodes.desk(0));
    assert_eq!(move_to(&nodes, 1, &mut gadget)["Resumed"], true);
    forget(&nodes, 1);
    assert!(nodes.take(0, &watcher).is_empty());
    gadget.lose(nodes.desk(1));
    forget(&nodes, 2);
    assert_eq!(nodes.take(0, &watcher).len(), 1);
    // A node that drains publishes none.
    let mut gadget = nodes.desk(1).begin_with("gadget", &json!({ "resume": true, "will": will() }));
    nodes.node(1).router.set_draining();
    gadget.lose(nodes.desk(1));
    forget(&nodes, 2);
    assert!(nodes.take(0, &watcher).is_empty());
}

fn will() -> Value {
    json!({ "channel": "Phone", "topic": "Call", "subtopic": "Gone" })
}

#[test]
fn a_requester_is_told_since_when_its_handler_on_another_node_is_away() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let mut gadget = nodes.desk(1).begin("gadget");
    let wanted = json!({"channel": "Calls", "topic": "Call", "subtopic": "Dial", "role": "handler"});
    gadget.command(nodes.desk(1), "Subscription", "Subscribe", &wanted);
    nodes.settle();
    let failure = || {
        nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"r","timeout":500"#)).unwrap();
        let core = nodes.node(0);
        core.router.expire(core.now + Duration::from_millis(600));
        nodes.settle();
        nodes.take(0, &crm)[0]["data"]["ErrorMessage"].clone()
    };
    assert_eq!(failure(), "'gadget' did not answer within 500 ms");
    gadget.lose(nodes.desk(1));
    nodes.settle();
    let since = "'gadget' did not answer within 500 ms; it has had no connection since 1970-01-01T00:00:00Z";
    assert_eq!(failure(), since);
    // Also on a new link.
    nodes.lose(1);
    nodes.find(1);
    nodes.settle();
    assert_eq!(failure(), since);
}
