//! Sessions of exclusive sources that return to another node, in one thread: the lease goes with them, and never are two at
//! work.

use std::task::{Context, Waker};

use serde_json::{Value, json};
use switchboard::auth::Identity;
use switchboard::config::Config;
use switchboard::connection::Input;

use super::nodes::Nodes;
use crate::support::client::{Client, alice};
use crate::support::core::event;

const PHONE: &str = "softphone";

fn nodes(count: usize) -> Nodes {
    Nodes::new(count, &Config::default())
}

/// Registers alice's exclusive softphone on a node. Returns `data` of the reply, too.
fn register(nodes: &Nodes, node: usize) -> (Client, Value) {
    let identity = Identity { exclusive: true, ..alice() };
    let mut client = nodes.desk(node).client(identity, PHONE);
    client.ask_to_register(nodes.desk(node), &json!({"resume": true}));
    go_on(nodes, node, &mut client);
    let data = client.registered(nodes.desk(node));
    (client, data)
}

/// Lets a Register go on that waits for its session, then for its lease.
fn go_on(nodes: &Nodes, node: usize, client: &mut Client) {
    let desk = nodes.desk(node);
    nodes.settle();
    while client.poll_fetch(desk) || poll_lease(nodes, node, client) {
        nodes.settle();
    }
}

fn poll_lease(nodes: &Nodes, node: usize, client: &mut Client) -> bool {
    let is_ready = client.connection.poll_lease(&mut Context::from_waker(Waker::noop())).is_ready();
    if is_ready {
        client.handle(nodes.desk(node), Input::Leased);
    }
    is_ready
}

fn move_to(nodes: &Nodes, node: usize, client: &mut Client) -> Value {
    client.return_to(nodes.desk(node));
    go_on(nodes, node, client);
    client.returned(nodes.desk(node))
}

fn holder(nodes: &Nodes) -> Option<String> {
    nodes.storage.holder("alice", PHONE)
}

#[test]
fn the_lease_of_a_session_goes_with_it() {
    let nodes = nodes(3);
    let (mut phone, data) = register(&nodes, 0);
    assert_eq!((&data["Resumed"], holder(&nodes).as_deref()), (&json!(false), Some("node-0")), "{data}");
    for (round, node) in [1, 2, 0, 1].into_iter().enumerate() {
        if round % 2 == 0 {
            let before = nodes.desk([0, 1, 2, 0][round]);
            phone.lose(before);
        }
        let data = move_to(&nodes, node, &mut phone);
        assert_eq!(data["Resumed"], true, "to node {node}: {data}");
        assert_eq!(holder(&nodes), Some(format!("node-{node}")));
        for other in 0..3 {
            let (_, refused) = register(&nodes, other);
            assert_eq!(refused["ErrorCode"], "SOURCE_IN_USE", "on node {other}: {refused}");
        }
        phone.say(nodes.desk(node), &event("Phone/Call/Ring", r#","id":"e""#));
        assert_eq!(phone.take(nodes.desk(node), usize::MAX)[0]["subtopic"], "Receipt");
    }
    phone.command(nodes.desk(1), "Application", "Unregister", &json!({}));
    nodes.settle();
    assert_eq!(holder(&nodes), None);
}

#[test]
fn a_session_that_has_moved_and_is_away_gives_way_to_another() {
    let nodes = nodes(3);
    let (mut phone, _) = register(&nodes, 0);
    phone.lose(nodes.desk(0));
    phone.return_to(nodes.desk(1));
    nodes.settle();
    // Its connection is lost before it is told.
    let token = phone.token.clone();
    phone.lose(nodes.desk(1));
    assert_eq!(holder(&nodes).as_deref(), Some("node-1"), "it has the lease also while it is away");
    let (other, data) = register(&nodes, 2);
    assert_eq!(data["Resumed"], false, "{data}");
    assert_eq!(holder(&nodes).as_deref(), Some("node-2"));
    phone.token = token;
    phone.return_to(nodes.desk(1));
    go_on(&nodes, 1, &mut phone);
    let refused = phone.registered(nodes.desk(1));
    assert_eq!(refused["ErrorCode"], "SOURCE_IN_USE", "{refused}");
    assert_eq!(nodes.node(1).router.size().sessions, 0, "it has ended");
    drop(other);
}

#[test]
fn a_move_that_is_interrupted_leaves_one_session_at_work_or_none() {
    let mut at_work = [0; 3];
    // After each number of steps between the nodes, the link breaks.
    for steps in 0..24 {
        let nodes = nodes(2);
        let (mut phone, _) = register(&nodes, 0);
        phone.lose(nodes.desk(0));
        phone.return_to(nodes.desk(1));
        for step in 0..steps {
            nodes.deliver_one(step % 2);
            nodes.answer_one(1);
        }
        nodes.lose(0);
        let token = phone.token.clone();
        go_on(&nodes, 1, &mut phone);
        phone.registered(nodes.desk(1));
        let mut again = nodes.desk(0).client(Identity { exclusive: true, ..alice() }, PHONE);
        again.token = token;
        again.return_to(nodes.desk(0));
        go_on(&nodes, 0, &mut again);
        again.registered(nodes.desk(0));
        let works = |client: &Client| usize::from(client.connection.session().is_some());
        let count = works(&phone) + works(&again);
        at_work[count] += 1;
        assert!(count <= 1, "after {steps} steps");
        let has_lease = holder(&nodes).map(|node| usize::from(node == "node-1"));
        if count == 1 {
            assert_eq!(has_lease, Some(works(&phone)), "after {steps} steps");
        }
    }
    assert!(at_work[1] > 20, "{at_work:?}");
}
