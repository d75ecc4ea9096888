//! Requests that follow the session that handles them to another node, in one thread.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::router::{Session, Size};
use wire::command::{Role, Subscribe};

use super::nodes::Nodes;
use crate::support::client::Client;
use crate::support::core::event;

const DIAL: &str = "Calls/Call/Dial";

/// The node that the handler leaves, and the one that it goes to.
const OLD: usize = 0;
const NEW: usize = 1;

fn nodes(count: usize) -> Nodes {
    Nodes::new(count, &Config::default())
}

/// A handler on the old node with a request of a requester on another one. Returns both, and the request.
fn asked(nodes: &Nodes, asker_node: usize) -> (Client, Arc<Session>, Value) {
    let desk = nodes.desk(OLD);
    let mut handler = desk.begin("gadget");
    let wanted = json!({"channel": "Calls", "topic": "Call", "subtopic": "Dial", "role": "handler"});
    handler.command(desk, "Subscription", "Subscribe", &wanted);
    nodes.settle();
    assert_eq!(handler.take(desk, usize::MAX)[0]["data"]["Success"], true);
    let asker = nodes.node(asker_node).attach("crm", Some("alice"));
    nodes.send(asker_node, &asker, &event(DIAL, r#","id":"mine","timeout":20000"#)).unwrap();
    let request = handler.take(desk, usize::MAX).remove(0);
    (handler, asker, request)
}

/// Continues a session on a node, without what follows.
fn return_to(nodes: &Nodes, node: usize, client: &mut Client) {
    client.return_to(nodes.desk(node));
    while !client.poll_fetch(nodes.desk(node)) {
        assert!((0..3).any(|node| nodes.deliver_one(node)), "the session arrives");
    }
    assert_eq!(client.returned(nodes.desk(node))["Resumed"], true);
}

fn reply(nodes: &Nodes, node: usize, client: &mut Client, request: &Value, more: &str) {
    client.say(nodes.desk(node), &event(DIAL, &format!(r#","inReplyTo":{}{more}"#, request["id"])));
}

/// What a requester got, in short: the data of replies, or the code of a failure.
fn answers(received: &[Value]) -> Vec<String> {
    let short = |it: &Value| {
        assert_eq!(it["inReplyTo"], "mine", "{it}");
        it["data"].get("ErrorCode").unwrap_or(&it["data"]).to_string()
    };
    received.iter().map(short).collect()
}

#[track_caller]
fn expect_no_request(nodes: &Nodes, when: &str) {
    for node in 0..3 {
        let Size { requests, given, .. } = nodes.node(node).router.size();
        assert_eq!((requests, given), (0, 0), "node {node} {when}");
    }
}

/// Continues a handler on its new node, with this number of messages of what follows.
fn return_in_steps(nodes: &Nodes, handler: &mut Client, steps: usize) {
    return_to(nodes, NEW, handler);
    for step in 0..steps {
        nodes.deliver_one(step % 3);
    }
}

#[test]
fn an_answer_arrives_also_if_the_old_node_is_lost_after_the_move() {
    for asker_node in 1..3 {
        let nodes = nodes(3);
        let (mut handler, asker, request) = asked(&nodes, asker_node);
        return_to(&nodes, NEW, &mut handler);
        nodes.settle();
        assert_eq!(nodes.node(OLD).router.size().given, 0, "the old node has nothing left");
        assert!(!nodes.node(OLD).router.has_sessions_to_move(), "it may exit");
        nodes.lose(OLD);
        reply(&nodes, NEW, &mut handler, &request, r#","data":7"#);
        nodes.settle();
        assert_eq!(answers(&nodes.take(asker_node, &asker)), ["7"], "asked on node {asker_node}");
        assert_eq!(nodes.node(NEW).router.size().requests, 0);
    }
}

#[test]
fn the_request_of_a_session_of_the_old_node_is_answered_from_the_new_one() {
    let nodes = nodes(3);
    let (mut handler, asker, request) = asked(&nodes, OLD);
    return_to(&nodes, NEW, &mut handler);
    nodes.settle();
    assert!(!nodes.node(OLD).router.has_sessions_to_move());
    // And goes on to a third node, and back to the first.
    for node in [2, OLD] {
        return_to(&nodes, node, &mut handler);
        nodes.settle();
    }
    reply(&nodes, OLD, &mut handler, &request, r#","data":7"#);
    nodes.settle();
    assert_eq!(answers(&nodes.take(OLD, &asker)), ["7"]);
    expect_no_request(&nodes, "in the end");
}

#[test]
fn replies_stay_in_order_at_every_step_of_the_move() {
    for asker_node in 0..3 {
        for steps in 0..40 {
            let nodes = nodes(3);
            let (mut handler, asker, request) = asked(&nodes, asker_node);
            reply(&nodes, OLD, &mut handler, &request, r#","more":true,"data":0"#);
            return_in_steps(&nodes, &mut handler, steps);
            reply(&nodes, NEW, &mut handler, &request, r#","more":true,"data":1"#);
            for node in 0..3 {
                nodes.deliver_one(node);
            }
            reply(&nodes, NEW, &mut handler, &request, r#","data":2"#);
            nodes.settle();
            let got = nodes.take(asker_node, &asker);
            assert_eq!(answers(&got), ["0", "1", "2"], "asked on node {asker_node}, after {steps} steps");
            expect_no_request(&nodes, &format!("after {steps} steps"));
        }
    }
}

#[test]
fn there_is_one_answer_whichever_node_is_lost_at_whichever_step() {
    for (asker_node, lost) in [(1, OLD), (2, OLD), (0, NEW), (2, NEW)] {
        for steps in 0..40 {
            let nodes = nodes(3);
            let (mut handler, asker, request) = asked(&nodes, asker_node);
            return_in_steps(&nodes, &mut handler, steps);
            nodes.lose(lost);
            if lost == OLD {
                reply(&nodes, NEW, &mut handler, &request, r#","data":7"#);
            }
            nodes.settle();
            let got = nodes.take(asker_node, &asker);
            let got = answers(&got);
            assert_eq!(got.len(), 1, "node {lost} lost after {steps} steps, asked on node {asker_node}: {got:?}");
            assert!(got[0] == "7" || got[0] == r#""HANDLER_GONE""#, "{got:?}");
        }
    }
}

#[test]
fn a_request_is_cancelled_at_every_step_of_the_move() {
    for asker_node in 0..3 {
        for steps in 0..40 {
            let nodes = nodes(3);
            let (mut handler, asker, request) = asked(&nodes, asker_node);
            return_in_steps(&nodes, &mut handler, steps);
            let core = nodes.node(asker_node);
            core.router.cancel(core.now, &asker, "mine").unwrap();
            nodes.settle();
            let told = handler.take(nodes.desk(NEW), usize::MAX);
            assert_eq!((told.len(), &told[0]["subtopic"]), (1, &json!("Cancelled")), "after {steps} steps: {told:?}");
            assert_eq!(told[0]["inReplyTo"], request["id"], "{told:?}");
            assert_eq!(answers(&nodes.take(asker_node, &asker)), [r#""REQUEST_CANCELLED""#]);
            expect_no_request(&nodes, &format!("after {steps} steps"));
        }
    }
}

#[test]
fn a_request_that_has_followed_its_handler_still_has_its_time_limit() {
    for asker_node in 0..3 {
        let nodes = nodes(3);
        let (mut handler, asker, request) = asked(&nodes, asker_node);
        return_to(&nodes, NEW, &mut handler);
        nodes.settle();
        let core = nodes.node(asker_node);
        core.router.expire(core.now + Duration::from_millis(9_999));
        assert!(nodes.take(asker_node, &asker).is_empty());
        core.router.expire(core.now + Duration::from_millis(10_001));
        nodes.settle();
        assert_eq!(answers(&nodes.take(asker_node, &asker)), [r#""REQUEST_TIMEOUT""#], "asked on node {asker_node}");
        reply(&nodes, NEW, &mut handler, &request, r#","id":"late""#);
        nodes.settle();
        let told = handler.take(nodes.desk(NEW), usize::MAX);
        assert_eq!(told.last().unwrap()["data"]["ErrorCode"], "NO_SUCH_REQUEST", "{told:?}");
        expect_no_request(&nodes, "in the end");
    }
}

#[test]
fn a_part_of_a_gather_follows_its_handler() {
    let nodes = nodes(3);
    let (mut handler, asker, request) = asked(&nodes, 2);
    reply(&nodes, OLD, &mut handler, &request, "");
    let other = nodes.node(2).attach("other", Some("alice"));
    let answering = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
    nodes.node(2).subscribe_as(&other, &Subscribe::new(DIAL.parse().unwrap(), answering));
    nodes.settle();
    nodes.take(2, &asker);
    nodes.send(2, &asker, &event(DIAL, r#","id":"all","gather":true,"timeout":20000"#)).unwrap();
    let (part, other_part) = (handler.take(nodes.desk(OLD), usize::MAX).remove(0), nodes.take(2, &other).remove(0));
    return_to(&nodes, NEW, &mut handler);
    nodes.settle();
    nodes.lose(OLD);
    nodes.settle();
    reply(&nodes, NEW, &mut handler, &part, r#","data":7"#);
    nodes.settle();
    nodes.send(2, &other, &event(DIAL, &format!(r#","inReplyTo":{},"data":8"#, other_part["id"]))).unwrap();
    let received = nodes.take(2, &asker);
    let [one, two, end] = &received[..] else { panic!("{received:?}") };
    assert_eq!((&one["data"], &two["data"], &one["more"]), (&json!(7), &json!(8), &json!(true)));
    assert_eq!((&end["data"]["Expected"], &end["data"]["Answered"]), (&json!(2), &json!(2)), "{end}");
}

#[test]
fn replies_that_wait_for_their_requests_have_a_limit() {
    let mut config = Config::default();
    config.limits.rate = 0;
    // One more than are held: 1,024 to one request, and 4 MiB of one session.
    for (replies, bytes) in [(1024 + 1, 0), (64, 1 << 16)] {
        let text = format!(r#","more":true,"data":"{}""#, "x".repeat(bytes));
        let refusals = |steps: usize| {
            let nodes = Nodes::new(3, &config);
            let (mut handler, asker, request) = asked(&nodes, 2);
            nodes.send(2, &asker, &event(DIAL, r#","id":"mine","timeout":20000"#)).unwrap();
            let other = handler.take(nodes.desk(OLD), usize::MAX).remove(0);
            return_in_steps(&nodes, &mut handler, steps);
            for number in 0..replies {
                // The bytes of both requests count together.
                let to = if bytes > 0 && number % 2 == 0 { &other } else { &request };
                reply(&nodes, NEW, &mut handler, to, &text);
            }
            let refused = handler.take(nodes.desk(NEW), usize::MAX);
            refused.iter().map(|it| it["data"]["ErrorCode"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        // Before replies wait, they go to the old node, and when the request has arrived, to the requester.
        let refused: Vec<_> = (0..40).map(refusals).collect();
        assert!(refused[0].is_empty() && refused[39].is_empty(), "{refused:?}");
        assert!(refused.iter().any(|it| *it == ["TOO_MANY_REQUESTS"]), "{refused:?}");
        assert!(refused.iter().all(|it| it.len() <= 1), "{refused:?}");
    }
}
