//! A session moves between two nodes again and again while requests are open: those that applications of three nodes ask it, and
//! those that it asks. Each gets its replies once and in order, and nothing is left in the end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use switchboard::config::Config;
use wire::command::{Role, Subscribe};

use super::nodes::{Nodes, Over};
use crate::support::client::Client;
use crate::support::core::event;

const NODES: usize = 3;
/// Requests of each asker, and how many of them are open at once.
const REQUESTS: usize = 300;
const AT_ONCE: usize = 8;
const DIAL: &str = "Calls/Call/Dial";
const FIND: &str = "Notes/Note/Find";
/// After this number of moves, all requests end: a session with an open one does not move without end.
const PAUSE: usize = 16;

/// The session that moves.
struct Mover<'a> {
    nodes: &'a Nodes,
    client: Client,
    /// All that it has sent.
    said: Vec<String>,
    moves: usize,
}

impl<'a> Mover<'a> {
    fn new(nodes: &'a Nodes) -> Self {
        Self { nodes, client: nodes.desk(0).begin("gadget"), said: Vec::new(), moves: 0 }
    }

    fn node(&self) -> usize {
        self.moves % 2
    }

    fn say(&mut self, text: String) {
        self.client.say(self.nodes.desk(self.node()), &text);
        self.said.push(text);
    }

    fn take(&mut self) -> Vec<Value> {
        self.client.take(self.nodes.desk(self.node()), usize::MAX)
    }

    /// Continues on the other node, and sends again what was not taken in. Sometimes the old connection is still there.
    fn move_on(&mut self) {
        if self.moves.is_multiple_of(3) {
            self.client.lose(self.nodes.desk(self.node()));
        }
        self.moves += 1;
        let desk = self.nodes.desk(self.node());
        self.client.return_to(desk);
        while self.client.connection.session().is_none() && !self.client.poll_fetch(desk) {
            thread::yield_now();
        }
        let data = self.client.returned(desk);
        assert_eq!(data["Resumed"], true, "move {}: {data}", self.moves);
        let taken_in = usize::try_from(data["Received"].as_u64().unwrap()).unwrap();
        for text in self.said.split_off(taken_in) {
            self.say(text);
        }
    }

    /// Ends the session. Nothing is left then.
    fn finish(mut self) {
        assert!(self.moves > 20, "{} moves", self.moves);
        self.client.command(self.nodes.desk(self.node()), "Application", "Unregister", &json!({}));
        self.nodes.expect_nothing_left(0..NODES);
    }
}

fn nodes() -> Nodes {
    let mut config = Config::default();
    (config.limits.rate, config.limits.outbound_messages) = (0, 100_000);
    Nodes::new(NODES, &config)
}

/// Takes requests, and sends replies: of some requests only the first one, so that the last one follows a move. `open` are
/// those that it has yet to answer, and whether it has sent a first reply.
fn reply(mover: &mut Mover<'_>, open: &mut VecDeque<(Value, bool)>) {
    let requests = mover.take();
    assert!(requests.iter().all(|it| it["topic"] == "Call"), "{requests:?}");
    open.extend(requests.into_iter().map(|it| (it, false)));
    for _ in 0..open.len() / 2 + mover.moves % 3 {
        let Some((request, was_first)) = open.pop_front() else { break };
        let more = if was_first { "" } else { r#","more":true"# };
        let (id, data) = (&request["id"], &request["data"]);
        mover.say(event(DIAL, &format!(r#","inReplyTo":{id},"data":{data}{more}"#)));
        if !was_first {
            open.push_back((request, true));
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
    let nodes = &nodes();
    let mut mover = Mover::new(nodes);
    let data = json!({"channel": "Calls", "topic": "Call", "subtopic": "Dial", "role": "handler"});
    mover.client.command(nodes.desk(0), "Subscription", "Subscribe", &data);
    nodes.settle();
    assert_eq!(mover.take().len(), 1);
    mover.said.push(String::new());
    let mut open = VecDeque::new();
    let (is_over, asking) = (&AtomicBool::new(false), &AtomicUsize::new(NODES));
    thread::scope(|scope| {
        for node in 0..NODES {
            scope.spawn(move || nodes.deliver_until(node, is_over));
            scope.spawn(move || {
                ask(nodes, node, is_over);
                asking.fetch_sub(1, Ordering::AcqRel);
            });
        }
        let _over = Over(is_over);
        while asking.load(Ordering::Acquire) > 0 {
            mover.move_on();
            reply(&mut mover, &mut open);
        }
    });
    assert!(open.is_empty(), "{open:?}");
    mover.finish();
}

/// Answers requests as a handler of this node: each time half of those that wait.
fn answer(nodes: &Nodes, node: usize, is_over: &AtomicBool) {
    let core = nodes.node(node);
    let notes = core.attach("notes", Some("alice"));
    let handler = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
    core.subscribe_as(&notes, &Subscribe::new(FIND.parse().unwrap(), handler));
    let mut open = VecDeque::new();
    while !is_over.load(Ordering::Acquire) {
        open.extend(core.take(&notes));
        for request in open.drain(..open.len().div_ceil(2)) {
            let (id, data) = (&request["id"], &request["data"]);
            core.send(&notes, &event(FIND, &format!(r#","inReplyTo":{id},"data":{data}"#))).unwrap();
        }
        thread::yield_now();
    }
    assert!(open.is_empty(), "{open:?}");
    core.router.detach(core.now, &notes);
}

#[test]
fn a_requester_that_moves_again_and_again_gets_each_answer_once() {
    let nodes = &nodes();
    let mut mover = Mover::new(nodes);
    let (mut asked, mut answers) = (0, vec![0; REQUESTS]);
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| {
        for node in 0..NODES {
            scope.spawn(move || nodes.deliver_until(node, is_over));
        }
        scope.spawn(move || answer(nodes, NODES - 1, is_over));
        let _over = Over(is_over);
        while nodes.node(0).router.size().handlers == 0 || nodes.node(1).router.size().handlers == 0 {
            thread::yield_now();
        }
        let mut ended = 0;
        while ended < REQUESTS {
            mover.move_on();
            let pauses = mover.moves.is_multiple_of(PAUSE);
            while !pauses && asked < REQUESTS && asked < ended + AT_ONCE {
                mover.say(event(FIND, &format!(r#","id":"{asked}","timeout":20000,"data":{asked}"#)));
                asked += 1;
            }
            loop {
                for reply in mover.take() {
                    let number: usize = reply["inReplyTo"].as_str().unwrap().parse().unwrap();
                    assert_eq!(reply["data"], number, "{reply}");
                    answers[number] += 1;
                    ended += 1;
                }
                if !pauses || ended == asked {
                    break;
                }
                thread::yield_now();
            }
        }
    });
    nodes.settle();
    assert!(mover.take().is_empty());
    assert_eq!(answers, vec![1; REQUESTS]);
    mover.finish();
}
