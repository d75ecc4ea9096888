//! Sessions that move on, and back to nodes where they were, while requests are open, in one thread.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::router::Session;
use wire::command::{Role, Subscribe};

use super::logs;
use super::nodes::Nodes;
use crate::support::client::Client;
use crate::support::core::event;

const DIAL: &str = "Calls/Call/Dial";
const FIND: &str = "Notes/Note/Find";
const HANDLER: Role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };

/// The node of the applications that do not move. The others are 0 and 1, and sometimes 2.
const OTHERS: usize = 3;

/// A session that moves, which handles `DIAL`, an application that asks it, and one that handles `FIND`.
struct Case {
    nodes: Nodes,
    gadget: Client,
    node: usize,
    crm: Arc<Session>,
    notes: Arc<Session>,
}

impl Case {
    fn new() -> Self {
        Self::on(Nodes::new(OTHERS + 1, &Config::default()))
    }

    fn on(nodes: Nodes) -> Self {
        let mut gadget = nodes.desk(0).begin("gadget");
        let wanted = json!({"channel": "Calls", "topic": "Call", "subtopic": "Dial", "role": "handler"});
        gadget.command(nodes.desk(0), "Subscription", "Subscribe", &wanted);
        let (crm, notes) = (nodes.node(OTHERS).attach("crm", None), nodes.node(OTHERS).attach("notes", Some("alice")));
        nodes.node(OTHERS).subscribe_as(&notes, &Subscribe::new(FIND.parse().unwrap(), HANDLER));
        nodes.settle();
        gadget.take(nodes.desk(0), usize::MAX);
        Self { nodes, gadget, node: 0, crm, notes }
    }

    /// Continues the session on a node. Returns `data` of the reply.
    fn try_to_move(&mut self, node: usize) -> Value {
        let desk = self.nodes.desk(node);
        self.gadget.lose(self.nodes.desk(self.node));
        self.gadget.return_to(desk);
        self.nodes.settle();
        self.gadget.poll_fetch(desk);
        let data = self.gadget.returned(desk);
        self.nodes.settle();
        self.node = node;
        data
    }

    #[track_caller]
    fn move_to(&mut self, node: usize) {
        let data = self.try_to_move(node);
        assert_eq!(data["Resumed"], true, "{data}");
    }

    fn received(&mut self) -> Vec<Value> {
        self.gadget.take(self.nodes.desk(self.node), usize::MAX)
    }

    fn say(&mut self, text: &str) {
        self.gadget.say(self.nodes.desk(self.node), text);
        self.nodes.settle();
    }

    /// Gives the session a request. Returns the id by which it knows it.
    fn give(&mut self, id: &str) -> Value {
        let request = event(DIAL, &format!(r#","user":"alice","id":"{id}","timeout":20000"#));
        self.nodes.send(OTHERS, &self.crm, &request).unwrap();
        self.received()[0]["id"].clone()
    }

    fn reply(&mut self, request: &Value, rest: &str) {
        self.say(&event(DIAL, &format!(r#","inReplyTo":{request}{rest}"#)));
    }

    /// Sends a request of the session. Returns the id by which its handler knows it.
    fn ask(&mut self, id: &str) -> Value {
        self.say(&event(FIND, &format!(r#","id":"{id}","timeout":20000"#)));
        self.nodes.take(OTHERS, &self.notes)[0]["id"].clone()
    }

    fn answer(&self, request: &Value) {
        self.nodes.send(OTHERS, &self.notes, &event(FIND, &format!(r#","inReplyTo":{request}"#))).unwrap();
    }

    /// The ids of the requests that have ended for an application, and the data or the codes with which they did.
    fn ends(received: &[Value]) -> Vec<(String, Value)> {
        let end = |it: &Value| (it["inReplyTo"].as_str().unwrap().to_owned(), it["data"]["ErrorCode"].clone());
        received.iter().map(end).collect()
    }

    fn asked_ends(&self) -> Vec<(String, Value)> {
        Self::ends(&self.nodes.take(OTHERS, &self.crm))
    }

    /// Ends all sessions and all memory of them. Nothing is left.
    #[track_caller]
    fn finish(mut self, lost: Option<usize>) {
        self.gadget.command(self.nodes.desk(self.node), "Application", "Unregister", &json!({}));
        for session in [&self.crm, &self.notes] {
            self.nodes.node(OTHERS).router.detach(self.nodes.node(OTHERS).now, session);
        }
        self.nodes.expect_nothing_left((0..=OTHERS).filter(|node| Some(*node) != lost));
    }
}

#[test]
fn replies_find_the_requests_of_every_node_where_the_session_was() {
    let mut case = Case::new();
    let mut open = Vec::new();
    for (number, node) in [1, 0, 1, 2, 0, 2].into_iter().enumerate() {
        open.push(case.give(&number.to_string()));
        case.move_to(node);
    }
    for request in &open {
        case.reply(request, r#","more":true"#);
    }
    case.move_to(1);
    for request in open.iter().rev() {
        case.reply(request, "");
    }
    let received = case.nodes.take(OTHERS, &case.crm);
    let in_order: Vec<_> = received.iter().map(|it| (it["inReplyTo"].as_str().unwrap(), it["more"] == true)).collect();
    let first = ["0", "1", "2", "3", "4", "5"].map(|id| (id, true));
    let last = ["5", "4", "3", "2", "1", "0"].map(|id| (id, false));
    assert_eq!(in_order, [first, last].concat());
    // Those are all. One more reply to any of them is refused.
    case.reply(&open[0], r#","id":"late""#);
    let refused = case.received();
    assert_eq!((refused.len(), &refused[0]["data"]["ErrorCode"]), (1, &json!("NO_SUCH_REQUEST")), "{refused:?}");
    case.finish(None);
}

#[test]
fn answers_follow_the_session_wherever_it_goes() {
    let mut case = Case::new();
    let mut open = Vec::new();
    for (number, node) in [1, 0, 1, 2, 0].into_iter().enumerate() {
        open.push(case.ask(&number.to_string()));
        case.move_to(node);
    }
    for request in &open[..3] {
        case.answer(request);
    }
    case.move_to(1);
    case.answer(&open[3]);
    let ends = Case::ends(&case.received());
    assert_eq!(ends, ["0", "1", "2", "3"].map(|id| (id.to_owned(), Value::Null)));
    // And it cancels what it has asked elsewhere.
    let cancel = json!({"id": "4"});
    case.gadget.command(case.nodes.desk(1), "Request", "Cancel", &cancel);
    case.nodes.settle();
    assert_eq!(case.received()[0]["data"]["Success"], true);
    assert_eq!(case.nodes.take(OTHERS, &case.notes)[0]["subtopic"], "Cancelled");
    case.finish(None);
}

#[test]
fn the_end_of_the_session_ends_its_requests_on_every_node() {
    let mut case = Case::new();
    for (number, node) in [1, 2, 0, 1].into_iter().enumerate() {
        case.give(&number.to_string());
        case.ask(&number.to_string());
        case.move_to(node);
    }
    case.gadget.command(case.nodes.desk(1), "Application", "Unregister", &json!({}));
    case.nodes.settle();
    let ends: BTreeSet<_> = case.asked_ends().into_iter().map(|(id, code)| (id, code.to_string())).collect();
    assert_eq!(ends, BTreeSet::from(["0", "1", "2", "3"].map(|id| (id.to_owned(), r#""HANDLER_GONE""#.to_owned()))));
    let cancelled = case.nodes.take(OTHERS, &case.notes);
    assert_eq!(cancelled.iter().filter(|it| it["subtopic"] == "Cancelled").count(), 4, "{cancelled:?}");
    for node in 0..=OTHERS {
        let size = case.nodes.node(node).router.size();
        assert_eq!((size.requests, size.given, size.asked), (0, 0, 0), "node {node}");
    }
    case.finish(None);
}

#[test]
fn a_lost_node_ends_what_needs_it_once_and_nothing_else() {
    for lost in [0, 1] {
        let mut case = Case::new();
        // Asked and given on node 0 and on node 2, which it has reached by node 1.
        let (given, asked) = (case.give("0"), case.ask("0"));
        case.move_to(1);
        case.move_to(2);
        let (later_given, later_asked) = (case.give("2"), case.ask("2"));
        case.nodes.lose(lost);
        case.nodes.settle();
        let failed = Case::ends(&case.received());
        assert_eq!(failed, [("0".to_owned(), json!("HANDLER_GONE"))], "without node {lost}");
        // What it was given is where it is.
        for request in [&later_given, &given] {
            case.reply(request, "");
        }
        assert_eq!(case.asked_ends(), ["2", "0"].map(|id| (id.to_owned(), Value::Null)), "without node {lost}");
        case.nodes.take(OTHERS, &case.notes);
        case.answer(&later_asked);
        assert_eq!(Case::ends(&case.received()), [("2".to_owned(), Value::Null)]);
        // What is late is refused, and reaches nobody.
        case.reply(&given, r#","id":"late""#);
        assert_eq!(case.received()[0]["data"]["ErrorCode"], "NO_SUCH_REQUEST");
        assert!(case.nodes.send(OTHERS, &case.notes, &event(FIND, &format!(r#","inReplyTo":{asked}"#))).is_err());
        assert!(case.received().is_empty());
        case.finish(Some(lost));
    }
}

#[test]
fn a_request_that_is_answered_in_the_middle_of_a_move_ends_once() {
    for steps in 0..24 {
        let mut case = Case::on(logs::nodes(OTHERS + 1));
        let (asked, desks) = (case.ask("0"), [0, 1].map(|node| case.nodes.desk(node)));
        // The session does not go before its event is in the log.
        case.gadget.say(desks[0], &event("Phone/Call/Ringing", r#","data":1"#));
        case.gadget.lose(desks[0]);
        case.gadget.return_to(desks[1]);
        for step in 0..steps {
            case.nodes.deliver_one(step % (OTHERS + 1));
        }
        let answer = event(FIND, &format!(r#","inReplyTo":{asked}"#));
        case.nodes.node(OTHERS).send(&case.notes, &answer).unwrap();
        // It arrives before the event is stored.
        case.nodes.deliver_one(0);
        case.nodes.settle();
        case.gadget.poll_fetch(desks[1]);
        assert_eq!(case.gadget.returned(desks[1])["Resumed"], true);
        case.node = 1;
        assert_eq!(Case::ends(&case.received()), [("0".to_owned(), Value::Null)], "after {steps} steps");
        case.nodes.lose(0);
        case.nodes.settle();
        assert_eq!(case.received(), [Value::Null; 0], "after {steps} steps");
    }
}

#[test]
fn a_node_in_between_waits_for_the_requests_that_need_it() {
    let mut case = Case::new();
    let waits = |case: &Case| [0, 1].map(|node| case.nodes.node(node).router.has_sessions_to_move());
    let request = case.ask("0");
    case.move_to(1);
    case.move_to(2);
    assert_eq!(waits(&case), [true, true]);
    case.answer(&request);
    assert_eq!(Case::ends(&case.received()), [("0".to_owned(), Value::Null)]);
    // The first one looks every second whether its requests have ended.
    let core = case.nodes.node(0);
    core.router.expire(core.now + std::time::Duration::from_millis(1_100));
    case.nodes.settle();
    assert_eq!(waits(&case), [false, false]);
    // One without requests does not wait at all.
    case.move_to(1);
    case.move_to(0);
    assert_eq!([1, 2].map(|node| case.nodes.node(node).router.has_sessions_to_move()), [false, false]);
    case.finish(None);
}

#[test]
fn a_session_whose_request_stays_open_does_not_move_without_end() {
    let mut case = Case::new();
    for number in 1..=300 {
        case.move_to(number % 2);
    }
    let request = case.ask("0");
    let first = (1..1_000).find(|number| case.try_to_move(number % 2)["Resumed"] == false);
    // 64 times from each of the two nodes.
    assert_eq!(first, Some(129));
    // The answer is for the session that did not move.
    case.answer(&request);
    assert!(case.received().is_empty());
    case.finish(None);
}
