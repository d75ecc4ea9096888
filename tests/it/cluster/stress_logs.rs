//! Many threads on several nodes publish into logs: every subscriber sees one log without a gap, every publisher is told once, and
//! nothing is left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::router::{Session, Size};
use wire::command::Recover;

use super::logs::{nodes, offsets, take_replay, wanted};
use super::nodes::Nodes;
use crate::support::core::event;

const NODES: usize = 3;
const PUBLISHERS: usize = 6;
const ROUNDS: usize = 200;

const TRIPLES: [&str; 2] = ["Phone/Call/Ringing", "Queue/Call/Waiting"];

fn subscribe(nodes: &Nodes, node: usize, triple: &str, recover: Option<Recover>) -> (Arc<Session>, Arc<str>) {
    let session = nodes.node(node).attach("crm", Some("alice"));
    let subscribed = nodes.subscribe_logged(node, &session, &wanted(triple, recover), thread::yield_now).unwrap();
    (session, subscribed.position.unwrap().epoch)
}

/// Publishes to both logs in turn, and counts what it is told. Each fifth event is a retained value, each seventh has `once` and
/// is sent twice.
fn publish(nodes: &Nodes, publisher: usize, session: &Arc<Session>) -> (usize, usize) {
    let node = publisher % NODES;
    let core = nodes.node(node);
    let (mut receipts, mut duplicates) = (0, 0);
    let mut count = |told: Vec<Value>| {
        for told in told {
            assert_eq!(told["data"]["Success"], true, "{told}");
            receipts += 1;
            duplicates += usize::from(told["data"]["Duplicate"] == true);
        }
    };
    for round in 0..ROUNDS {
        let data = json!([publisher, round]);
        let more = match (round % 5, round % 7) {
            (0, _) => r#","retain":true"#,
            (_, 0) => r#","once":true"#,
            _ => "",
        };
        let text = event(TRIPLES[round % 2], &format!(r#","id":"{round}","data":{data}{more}"#));
        for _ in 0..if more.contains("once") { 2 } else { 1 } {
            core.send(session, &text).unwrap();
        }
        count(nodes.take(node, session));
    }
    while core.router.uncommitted() > 0 {
        thread::yield_now();
        count(nodes.take(node, session));
    }
    count(nodes.take(node, session));
    (receipts, duplicates)
}

/// Subscribes again and again, and checks that it sees the log from where it was.
fn come_and_go(nodes: &Nodes, node: usize, is_over: &AtomicBool) {
    let mut round = 0;
    let mut seen: HashMap<&str, (Arc<str>, u64)> = HashMap::new();
    while !is_over.load(Ordering::SeqCst) {
        round += 1;
        let triple = TRIPLES[round % 2];
        let recover =
            seen.get(triple).map(|(epoch, offset)| Recover::After { epoch: (**epoch).into(), offset: *offset });
        let recovers = recover.is_some();
        let (session, epoch) = subscribe(nodes, node, triple, recover);
        thread::yield_now();
        let found = live(&take_replay(nodes, node, &session));
        let before = seen.entry(triple).or_insert((epoch, 0));
        if let (Some(first), Some(last)) = (found.first(), found.last()) {
            assert!(!recovers || *first == before.1 + 1, "after {} came {first}", before.1);
            assert!(found.iter().copied().eq(*first..=*last), "{found:?}");
            before.1 = *last;
        }
        nodes.node(node).router.detach(nodes.node(node).now, &session);
    }
}

/// The offsets of events, without retained values.
fn live(messages: &[Value]) -> Vec<u64> {
    let events: Vec<_> = messages.iter().filter(|it| it["retained"] != true).cloned().collect();
    offsets(&events)
}

/// The threads of a node that run as long as something is published.
fn serve(nodes: &Nodes, node: usize, is_over: &AtomicBool, step: impl Fn(&Nodes, usize) -> bool) {
    while !is_over.load(Ordering::SeqCst) {
        if !step(nodes, node) {
            thread::yield_now();
        }
    }
}

/// What the subscribers saw that stayed, by triple: the same on all nodes.
fn check_seen(
    nodes: &Nodes,
    steady: &[(usize, &'static str, Arc<Session>)],
    kept: usize,
) -> HashMap<&'static str, Value> {
    let mut values = HashMap::new();
    let mut all = 0;
    for (node, triple, session) in steady {
        let seen = take_replay(nodes, *node, session);
        assert!(live(&seen).iter().copied().eq(1..=seen.len() as u64), "{triple} on node {node}");
        for publisher in 0..PUBLISHERS {
            let rounds: Vec<_> =
                seen.iter().filter(|it| it["data"][0] == publisher).map(|it| it["data"][1].as_u64()).collect();
            assert!(rounds.is_sorted(), "{triple} on node {node}: {rounds:?}");
        }
        let last = seen.iter().rfind(|it| it["retain"] == true).unwrap();
        let value = json!([last["data"], last["offset"]]);
        assert_eq!(values.entry(*triple).or_insert_with(|| value.clone()), &value, "node {node}");
        all += seen.len();
    }
    assert_eq!(all, kept * NODES, "each event once on each node");
    values
}

#[test]
fn many_threads_that_publish_into_logs_lose_nothing_and_leave_nothing() {
    let nodes = nodes(NODES);
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|at| nodes.node(at % NODES).attach(&format!("publisher-{at}"), Some("alice"))).collect();
    let mut steady = Vec::new();
    for node in 0..NODES {
        for triple in TRIPLES {
            steady.push((node, triple, subscribe(&nodes, node, triple, None).0));
        }
    }
    nodes.settle();
    let (is_over, is_served) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut receipts, mut duplicates) = (0, 0);
    thread::scope(|scope| {
        let (nodes, is_over, is_served) = (&nodes, &is_over, &is_served);
        for node in 0..NODES {
            // As in a broker: what stores events, what reads, and what takes messages of links.
            scope.spawn(move || serve(nodes, node, is_served, Nodes::store_one));
            scope.spawn(move || serve(nodes, node, is_served, Nodes::read_one));
            scope.spawn(move || serve(nodes, node, is_served, Nodes::deliver_one));
            scope.spawn(move || come_and_go(nodes, node, is_over));
        }
        let publishing: Vec<_> = publishers
            .iter()
            .enumerate()
            .map(|(at, session)| scope.spawn(move || publish(nodes, at, session)))
            .collect();
        let outcomes: Vec<_> = publishing.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::SeqCst);
        for outcome in outcomes {
            let (told, again) = outcome.unwrap();
            receipts += told;
            duplicates += again;
        }
        is_served.store(true, Ordering::SeqCst);
    });
    nodes.settle();
    let twice = PUBLISHERS * (0..ROUNDS).filter(|round| round % 5 != 0 && round % 7 == 0).count();
    assert_eq!((receipts, duplicates), (PUBLISHERS * ROUNDS + twice, twice), "every event got one receipt");
    let values = check_seen(&nodes, &steady, PUBLISHERS * ROUNDS);
    for node in 0..NODES {
        for triple in TRIPLES {
            let (reader, _) = subscribe(&nodes, node, triple, None);
            nodes.settle();
            let found: Vec<_> =
                take_replay(&nodes, node, &reader).iter().map(|it| json!([it["data"], it["offset"]])).collect();
            assert_eq!(found, [values[triple].clone()], "{triple} on node {node}");
            nodes.node(node).router.detach(nodes.node(node).now, &reader);
        }
    }
    leave_nothing(&nodes, &publishers, &steady);
}

fn leave_nothing(nodes: &Nodes, publishers: &[Arc<Session>], steady: &[(usize, &'static str, Arc<Session>)]) {
    for (node, _, session) in steady {
        nodes.node(*node).router.detach(nodes.node(*node).now, session);
    }
    for (at, session) in publishers.iter().enumerate() {
        nodes.node(at % NODES).router.detach(nodes.node(at % NODES).now, session);
    }
    nodes.settle();
    for node in 0..NODES {
        let core = nodes.node(node);
        assert_eq!(core.router.uncommitted(), 0, "node {node}");
        // Logs that no session follows are forgotten when their events are too old.
        let later = core.now + Duration::from_hours(1);
        while core.router.deadline().is_some_and(|deadline| deadline <= later) {
            core.router.expire(later);
        }
        let size = core.router.size();
        let values = TRIPLES.len();
        assert_eq!(
            Size { retained_bytes: 0, ..size },
            Size { retained_values: values, ..Size::default() },
            "node {node}"
        );
    }
}
