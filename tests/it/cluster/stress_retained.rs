//! Many threads on several nodes publish retained values: every node ends with what is stored, and every publisher is told
//! once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::router::Session;

use super::nodes::Nodes;
use crate::support::core::event;

const NODES: usize = 3;
const PUBLISHERS: usize = 6;
const ROUNDS: usize = 300;

/// How many values there are to fight for.
const TRIPLES: usize = 5;

/// Publishes values, some of which clear others, and counts what it is told.
fn publish(nodes: &Nodes, publisher: usize, session: &Arc<Session>) -> (usize, usize) {
    let node = publisher % NODES;
    let (mut receipts, mut refused) = (0, 0);
    let mut count = |told: Vec<Value>| {
        receipts += told.iter().filter(|it| it["data"]["Success"] == true).count();
        refused += told.iter().filter(|it| it["data"]["Success"] == false).count();
    };
    for round in 0..ROUNDS {
        let data = if round % 7 == publisher { json!(null) } else { json!(round * PUBLISHERS + publisher) };
        let triple = format!("Phone/Line {}/State", (round + publisher) % TRIPLES);
        let more = format!(r#","retain":true,"id":"{round}","data":{data}"#);
        nodes.node(node).send(session, &event(&triple, &more)).unwrap();
        count(nodes.take(node, session));
    }
    while nodes.node(node).router.uncommitted() > 0 {
        thread::yield_now();
        count(nodes.take(node, session));
    }
    count(nodes.take(node, session));
    (receipts, refused)
}

#[test]
fn many_threads_that_retain_values_leave_the_same_on_every_node() {
    let nodes = Nodes::new(NODES, &Config::default());
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|at| nodes.node(at % NODES).attach(&format!("publisher-{at}"), Some("alice"))).collect();
    nodes.settle();
    let is_over = AtomicBool::new(false);
    let told = AtomicUsize::new(0);
    thread::scope(|scope| {
        // One task of each node puts values, as in a broker, and one takes what arrives by its links.
        for node in 0..NODES {
            let (nodes, is_over) = (&nodes, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    if !nodes.put_one(node) {
                        thread::yield_now();
                    }
                }
            });
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    if !nodes.deliver_one(node) {
                        thread::yield_now();
                    }
                }
            });
        }
        let threads: Vec<_> = publishers
            .iter()
            .enumerate()
            .map(|(at, session)| {
                let nodes = &nodes;
                scope.spawn(move || publish(nodes, at, session))
            })
            .collect();
        for thread in threads {
            let (receipts, refused) = thread.join().unwrap();
            assert_eq!((receipts, refused), (ROUNDS, 0));
            told.fetch_add(receipts, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    nodes.settle();
    assert_eq!(told.load(Ordering::SeqCst), PUBLISHERS * ROUNDS);
    let stored = nodes.storage.values();
    assert!(!stored.is_empty());
    for node in 0..NODES {
        let reader = nodes.node(node).attach("reader", Some("alice"));
        nodes.node(node).subscribe(&reader, "Phone/*/*");
        nodes.settle();
        let mut found: Vec<_> = nodes.take(node, &reader).iter().map(|it| it["data"].clone()).collect();
        found.sort_by_key(ToString::to_string);
        assert_eq!(found, stored, "node {node}");
        assert_eq!(nodes.node(node).router.size().retained_values, stored.len());
    }
}
