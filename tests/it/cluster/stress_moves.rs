//! A handler moves between two nodes again and again while applications of three nodes ask it. Each request gets its replies
//! once and in order, and nothing is left in the end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::router::Size;

use super::nodes::Nodes;
use crate::support::client::Client;
use crate::support::core::event;

const NODES: usize = 3;
/// Requests of each asker, and how many of them are open at once.
const REQUESTS: usize = 300;
const AT_ONCE: usize = 8;
const DIAL: &str = "Calls/Call/Dial";

/// Ends the other threads with the one that has it.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The handler that moves.
struct Mover<'a> {
    nodes: &'a Nodes,
    client: Client,
    /// The requests that it has yet to answer, and whether it has sent a first reply.
    open: VecDeque<(Value, bool)>,
    /// All that it has sent.
    said: Vec<String>,
    moves: usize,
}

impl Mover<'_> {
    fn say(&mut self, node: usize, text: String) {
        self.client.say(self.nodes.desk(node), &text);
        self.said.push(text);
    }

    /// Continues on a node, and sends again what was not taken in.
    fn move_to(&mut self, node: usize) {
        let desk = self.nodes.desk(node);
        self.client.return_to(desk);
        while self.client.connection.session().is_none() && !self.client.poll_fetch(desk) {
            thread::yield_now();
        }
        let data = self.client.returned(desk);
        assert_eq!(data["Resumed"], true, "move {}: {data}", self.moves);
        let taken_in = usize::try_from(data["Received"].as_u64().unwrap()).unwrap();
        for text in self.said.split_off(taken_in) {
            self.say(node, text);
        }
        self.moves += 1;
    }

    /// Takes requests, and sends replies: of some requests only the first one, so that the last one follows a move.
    fn answer(&mut self, node: usize) {
        let requests = self.client.take(self.nodes.desk(node), usize::MAX);
        assert!(requests.iter().all(|it| it["topic"] == "Call"), "{requests:?}");
        self.open.extend(requests.into_iter().map(|it| (it, false)));
        for _ in 0..self.open.len() / 2 + self.moves % 3 {
            let Some((request, was_first)) = self.open.pop_front() else { break };
            let more = if was_first { "" } else { r#","more":true"# };
            let (id, data) = (&request["id"], &request["data"]);
            self.say(node, event(DIAL, &format!(r#","inReplyTo":{id},"data":{data}{more}"#)));
            if !was_first {
                self.open.push_back((request, true));
            }
        }
        if self.moves.is_multiple_of(3) {
            self.client.lose(self.nodes.desk(node));
        }
    }
}

/// Asks, and checks the replies: a first one and a last one to each request.
fn ask(nodes: &Nodes, node: usize, is_over: &AtomicBool) {
    let core = nodes.node(node);
    let asker = core.attach(&format!("crm-{node}"), Some("alice"));
    let (mut asked, mut answered, mut replies) = (0, 0, vec![0; REQUESTS]);
    while answered < REQUESTS && !is_over.load(Ordering::Acquire) {
        while asked < REQUESTS && asked < answered + AT_ONCE {
            let request = event(DIAL, &format!(r#","id":"{asked}","timeout":20000,"data":{asked}"#));
            core.send(&asker, &request).unwrap();
            asked += 1;
        }
        for reply in core.take(&asker) {
            let number: usize = reply["inReplyTo"].as_str().unwrap().parse().unwrap();
            assert_eq!(reply["data"], number, "{reply}");
            assert_eq!(
                (replies[number], reply["more"] == true),
                if replies[number] == 0 { (0, true) } else { (1, false) }
            );
            answered += replies[number];
            replies[number] += 1;
        }
        thread::yield_now();
    }
    assert_eq!(replies, vec![2; REQUESTS], "of node {node}");
    core.router.detach(core.now, &asker);
}

#[test]
fn a_handler_that_moves_again_and_again_answers_each_request_once() {
    let mut config = Config::default();
    (config.limits.rate, config.limits.outbound_messages) = (0, 100_000);
    let nodes = &Nodes::new(NODES, &config);
    let mut client = nodes.desk(0).begin("gadget");
    let data = json!({"channel": "Calls", "topic": "Call", "subtopic": "Dial", "role": "handler"});
    client.command(nodes.desk(0), "Subscription", "Subscribe", &data);
    nodes.settle();
    assert_eq!(client.take(nodes.desk(0), 1).len(), 1);
    let mut mover = Mover { nodes, client, open: VecDeque::new(), said: vec![String::new()], moves: 0 };
    let (is_over, asking) = (&AtomicBool::new(false), &AtomicUsize::new(NODES));
    thread::scope(|scope| {
        for node in 0..NODES {
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    if !nodes.deliver_one(node) {
                        thread::yield_now();
                    }
                }
            });
            scope.spawn(move || {
                ask(nodes, node, is_over);
                asking.fetch_sub(1, Ordering::AcqRel);
            });
        }
        // Also if it fails.
        let _over = Over(is_over);
        while asking.load(Ordering::Acquire) > 0 {
            let node = (mover.moves + 1) % 2;
            mover.move_to(node);
            mover.answer(node);
        }
    });
    nodes.settle();
    let Mover { mut client, moves, open, .. } = mover;
    assert!(open.is_empty() && moves > 20, "{open:?}, {moves} moves");
    client.command(nodes.desk(moves % 2), "Application", "Unregister", &json!({}));
    nodes.settle();
    for _ in 0..3 {
        for node in 0..NODES {
            let core = nodes.node(node);
            core.router.expire(core.now + std::time::Duration::from_mins(5));
        }
        nodes.settle();
    }
    for node in 0..NODES {
        assert_eq!(nodes.node(node).router.size(), Size::default(), "node {node}");
    }
}
