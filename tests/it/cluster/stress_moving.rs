//! One session moves between two nodes again and again, while others publish to it on three, and it publishes itself. What
//! arrives in both directions is complete and in each publisher's order, and nothing is left in the end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use switchboard::config::Config;

use super::nodes::{Nodes, Over};
use crate::support::client::Client;
use crate::support::core::event;

const NODES: usize = 3;
/// Events of each publisher.
const EVENTS: usize = 500;
/// Messages of the session that moves.
const NOTES: usize = 500;

/// The application that moves.
struct Mover<'a> {
    nodes: &'a Nodes,
    client: Client,
    /// What it has received from the publisher of each node.
    received: [Vec<i64>; NODES],
    /// What it has sent: notes by their number, and other messages.
    said: Vec<Option<usize>>,
    moves: usize,
}

impl Mover<'_> {
    fn is_done(&self) -> bool {
        self.notes() >= NOTES && self.received.iter().all(|it| it.len() >= EVENTS)
    }

    /// How many of its notes the broker has, or may have.
    fn notes(&self) -> usize {
        self.said.iter().flatten().count()
    }

    /// Continues on a node.
    fn move_to(&mut self, node: usize) {
        let desk = self.nodes.desk(node);
        self.client.return_to(desk);
        while self.client.connection.session().is_none() && !self.client.poll_fetch(desk) {
            thread::yield_now();
        }
        let data = self.client.returned(desk);
        assert_eq!(data["Resumed"], true, "move {}: {data}", self.moves);
        // What follows was not taken in.
        self.said.truncate(usize::try_from(data["Received"].as_u64().unwrap()).unwrap());
        self.moves += 1;
    }

    fn use_session(&mut self, node: usize) {
        let desk = self.nodes.desk(node);
        for step in 0..3 + self.moves % 17 {
            let next = self.notes();
            if next < NOTES {
                self.client.say(desk, &event("Phone/Note/New", &format!(r#","data":{next}"#)));
                self.said.push(Some(next));
            }
            for message in self.client.take(desk, 1 + step) {
                if let (Some(number), Some(source)) = (message["data"].as_i64(), message["source"].as_str()) {
                    let from: usize = source.strip_prefix("phone-").unwrap().parse().unwrap();
                    self.received[from].push(number);
                }
            }
            if self.moves.is_multiple_of(5) {
                self.client.command(desk, "Connection", "Acknowledge", &json!({ "received": self.client.received }));
                self.said.push(None);
            }
        }
        // Messages that were taken and not received are sent again.
        if self.moves % 4 == 1 {
            let lost = self.client.take(desk, 3).len() as u64;
            self.client.received -= lost;
        }
        // Sometimes the old connection is still there when the session moves.
        if self.moves.is_multiple_of(3) {
            self.client.lose(desk);
        }
    }
}

fn publish(nodes: &Nodes, node: usize) {
    let core = nodes.node(node);
    let phone = core.attach(&format!("phone-{node}"), Some("alice"));
    for number in 0..EVENTS {
        core.send(&phone, &event("Phone/Call/Ring", &format!(r#","data":{number}"#))).unwrap();
        if number % 8 == 0 {
            thread::yield_now();
        }
    }
    core.router.detach(core.now, &phone);
}

fn begin(nodes: &Nodes) -> Mover<'_> {
    let mut client = nodes.desk(0).begin("gadget");
    let data = json!({"channel": "Phone", "topic": "Call", "subtopic": "Ring"});
    client.command(nodes.desk(0), "Subscription", "Subscribe", &data);
    nodes.settle();
    assert_eq!(client.take(nodes.desk(0), 1).len(), 1);
    Mover { nodes, client, received: Default::default(), said: vec![None], moves: 0 }
}

#[test]
fn a_session_that_moves_again_and_again_loses_nothing_and_gets_nothing_twice() {
    let mut config = Config::default();
    (config.limits.rate, config.limits.outbound_messages) = (0, 100_000);
    let nodes = &Nodes::new(NODES, &config);
    let notes = nodes.node(2).attach("notes", Some("alice"));
    nodes.node(2).subscribe(&notes, "Phone/Note/New");
    nodes.settle();
    let mut mover = begin(nodes);
    let (is_over, publishing) = (&AtomicBool::new(false), &AtomicUsize::new(NODES));
    thread::scope(|scope| {
        for node in 0..NODES {
            scope.spawn(move || nodes.deliver_until(node, is_over));
            scope.spawn(move || {
                publish(nodes, node);
                publishing.fetch_sub(1, Ordering::AcqRel);
            });
        }
        let _over = Over(is_over);
        while !mover.is_done() || publishing.load(Ordering::Acquire) > 0 {
            let node = (mover.moves + 1) % 2;
            mover.move_to(node);
            mover.use_session(node);
        }
    });
    nodes.settle();
    let Mover { received, mut client, moves, .. } = mover;
    let expected: Vec<i64> = (0..).take(EVENTS).collect();
    for (node, received) in received.iter().enumerate() {
        assert_eq!(received.len(), EVENTS, "of node {node}");
        assert_eq!(*received, expected, "of node {node}");
    }
    let taken: Vec<Value> = nodes.take(2, &notes).into_iter().map(|mut note| note["data"].take()).collect();
    assert_eq!(taken, (0..NOTES).map(Value::from).collect::<Vec<_>>());
    assert!(moves > 20, "{moves} moves");
    let node = moves % 2;
    client.command(nodes.desk(node), "Application", "Unregister", &json!({}));
    nodes.node(2).router.detach(nodes.node(2).now, &notes);
    nodes.expect_nothing_left(0..NODES);
}
