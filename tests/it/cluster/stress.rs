//! Many threads on several nodes lose nothing and leave nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use switchboard::config::Config;
use switchboard::router::{Session, Size};
use wire::command::{Role, State, Subscribe};

use super::nodes::Nodes;
use crate::support::core::event;

const NODES: usize = 3;
const THREADS: usize = 6;
const ROUNDS: usize = 150;

const HANDLER: Role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };

/// Replies to every request that waits for a handler.
fn answer(nodes: &Nodes, node: usize, handler: &Arc<Session>) {
    for request in nodes.take(node, handler) {
        if let Some(id) = request["id"].as_str() {
            let reply = event("Calls/Call/Dial", &format!(r#","inReplyTo":"{id}""#));
            // It may have been cancelled meanwhile.
            nodes.node(node).send(handler, &reply).ok();
        }
    }
}

/// One thread: applications that come, subscribe, send and leave.
fn come_and_go(nodes: &Nodes, thread: usize, asked: &AtomicUsize) {
    let at = thread % NODES;
    let asker = nodes.node(at).attach("asker", Some("alice"));
    let mut ended = 0;
    for round in 0..ROUNDS {
        let node = (thread + round) % NODES;
        let core = nodes.node(node);
        let guest = core.attach("guest", Some(if round % 2 == 0 { "alice" } else { "bob" }));
        let (pattern, role) =
            if round % 3 == 0 { ("Calls/Call/Dial", HANDLER) } else { ("Calls/*/*", Role::Subscriber) };
        core.subscribe_as(&guest, &Subscribe::new(pattern.parse().unwrap(), role));
        nodes.node(at).send(&asker, &event("Calls/Call/Ringing", "")).unwrap();
        if nodes.node(at).send(&asker, &event("Calls/Call/Dial", r#","id":"r","timeout":60000"#)).is_ok() {
            asked.fetch_add(1, Ordering::Relaxed);
        }
        if round % 5 == 0 {
            core.router.set_state(core.now, &guest, State::Asleep);
        }
        answer(nodes, node, &guest);
        core.router.detach(core.now, &guest);
        ended += nodes.take(at, &asker).iter().filter(|it| is_end(it)).count();
    }
    // Requests that are under way end when their handlers answer or leave.
    while nodes.node(at).router.is_in_flight(&asker) {
        thread::yield_now();
    }
    ended += nodes.take(at, &asker).iter().filter(|it| is_end(it)).count();
    asked.fetch_sub(ended, Ordering::Relaxed);
    nodes.node(at).router.detach(nodes.node(at).now, &asker);
}

/// Whether a message is the end of a request.
fn is_end(message: &Value) -> bool {
    message["inReplyTo"] == "r"
}

#[test]
fn many_threads_on_several_nodes_lose_nothing_and_leave_nothing() {
    let nodes = Nodes::new(NODES, &Config::default());
    let steady: Vec<_> = (0..NODES)
        .map(|node| {
            let session = nodes.node(node).attach("steady", Some("alice"));
            nodes.node(node).subscribe(&session, "Calls/Call/Ringing");
            session
        })
        .collect();
    let handler = nodes.node(0).attach("handler", Some("alice"));
    nodes.node(0).subscribe_as(&handler, &Subscribe::new("Calls/Call/Dial".parse().unwrap(), HANDLER));
    nodes.settle();
    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (nodes_ref, is_over_ref, asked_ref, handler_ref) = (&nodes, &is_over, &asked, &handler);
    thread::scope(|scope| {
        for node in 0..NODES {
            scope.spawn(move || {
                while !is_over_ref.load(Ordering::Acquire) {
                    if !nodes_ref.deliver_one(node) {
                        thread::yield_now();
                    }
                    if node == 0 {
                        answer(nodes_ref, 0, handler_ref);
                    }
                }
            });
        }
        let guests: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || come_and_go(nodes_ref, thread, asked_ref))).collect();
        let outcomes: Vec<_> = guests.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Release);
        assert!(outcomes.iter().all(Result::is_ok));
    });
    nodes.settle();
    assert_eq!(asked.load(Ordering::Relaxed), 0, "each request that was accepted ended once");
    for (node, session) in steady.iter().enumerate() {
        assert_eq!(nodes.take(node, session).len(), THREADS * ROUNDS, "node {node}");
        nodes.node(node).router.detach(nodes.node(node).now, session);
    }
    nodes.node(0).router.detach(nodes.node(0).now, &handler);
    nodes.settle();
    for node in 0..NODES {
        assert_eq!(nodes.node(node).router.size(), Size::default(), "node {node}");
    }
}
