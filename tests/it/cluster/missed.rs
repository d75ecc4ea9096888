//! Subscriptions that wait until a node has read the retained values that it may have missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::router::{Found, LookTicket, Session};
use wire::command::{Retained, Role, Subscribe};

use super::nodes::Nodes;
use super::routing::HANDLER;
use crate::support::core::event;

const PATTERN: &str = "Phone/*/*";

/// Two nodes of which the second reads the values, and a value that was set while there was no link between them.
fn relinked() -> Nodes {
    let nodes = Nodes::new(2, &Config::default());
    read(&nodes);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.lose(1);
    nodes.send(0, &phone, &event("Phone/Agent/State", r#","retain":true,"id":"e","data":"busy""#)).unwrap();
    let receipt = nodes.take(0, &phone);
    assert_eq!((&receipt[0]["inReplyTo"], &receipt[0]["data"]["Success"]), (&json!("e"), &json!(true)), "{receipt:?}");
    nodes.find(1);
    nodes
}

/// Reads the values on the second node.
fn read(nodes: &Nodes) {
    let router = &nodes.node(1).router;
    let begun = router.begin_read_of_values();
    nodes.read_values(1);
    router.values_read(begun);
}

fn wanted() -> Subscribe {
    Subscribe::new(PATTERN.parse().unwrap(), Role::Subscriber)
}

/// Subscribes on the second node. Returns what it waits for.
fn subscribe(nodes: &Nodes, session: &Arc<Session>, wanted: &Subscribe, found: Option<Found>) -> Option<LookTicket> {
    let core = nodes.node(1);
    core.router.subscribe_when_read(core.now, session, wanted, found, |_| None).unwrap()
}

fn poll(ticket: &mut LookTicket) -> Option<Found> {
    match ticket.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(found) => Some(found),
        Poll::Pending => None,
    }
}

/// What a session of the second node was sent, once the first one knows of its subscriptions.
fn data(nodes: &Nodes, session: &Session) -> Vec<Value> {
    nodes.settle();
    nodes.take(1, session).iter().map(|it| it["data"].clone()).collect()
}

#[test]
fn a_subscription_waits_until_what_was_set_without_a_link_was_read() {
    let nodes = relinked();
    let crm = nodes.node(1).attach("crm", Some("alice"));
    let mut ticket = subscribe(&nodes, &crm, &wanted(), None).expect("it waits");
    // A read that began before the link does not have it.
    nodes.node(1).router.values_read(0);
    assert!(poll(&mut ticket).is_none() && data(&nodes, &crm).is_empty());
    read(&nodes);
    let found = poll(&mut ticket);
    assert!(found.is_some() && subscribe(&nodes, &crm, &wanted(), found).is_none());
    assert_eq!(data(&nodes, &crm), [json!("busy")]);
    let other = nodes.node(1).attach("other", Some("alice"));
    assert!(subscribe(&nodes, &other, &wanted(), None).is_none(), "nothing is to be read any more");
}

#[test]
fn what_receives_no_values_does_not_wait() {
    let nodes = relinked();
    let crm = nodes.node(1).attach("crm", Some("alice"));
    let never = Subscribe { retained: Retained::Never, ..wanted() };
    let of_broker = Subscribe::new("Broker/Cluster/Gap".parse().unwrap(), Role::Subscriber);
    let handler = Subscribe::new(PATTERN.parse().unwrap(), HANDLER);
    for wanted in [&never, &of_broker, &handler] {
        assert!(subscribe(&nodes, &crm, wanted, None).is_none(), "{}", wanted.pattern);
    }
    assert!(subscribe(&nodes, &crm, &wanted(), None).is_some(), "a subscriber does");
}

#[test]
fn without_the_storage_a_subscription_gets_what_its_node_has() {
    let nodes = relinked();
    let core = nodes.node(1);
    let crm = core.attach("crm", Some("alice"));
    let mut ticket = subscribe(&nodes, &crm, &wanted(), None).expect("it waits");
    let until = core.router.deadline().expect("it waits until then");
    assert_eq!(until - core.now, Duration::from_secs(10), "cluster.storage_wait");
    core.router.expire(core.now + Duration::from_millis(9999));
    assert!(poll(&mut ticket).is_none());
    core.router.expire(until);
    let found = poll(&mut ticket);
    assert!(found.is_some() && subscribe(&nodes, &crm, &wanted(), found).is_none());
    let other = core.attach("other", Some("alice"));
    assert!(subscribe(&nodes, &other, &wanted(), None).is_none(), "the next one does not wait as long again");
    nodes.lose(1);
    nodes.find(1);
    let mut ticket = subscribe(&nodes, &core.attach("third", Some("alice")), &wanted(), None).expect("a new link");
    nodes.lose(1);
    assert!(poll(&mut ticket).is_some(), "a lost node does not count this one as live");
}

#[test]
fn subscriptions_of_many_threads_wait_and_go_on_once_each() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 100;
    let nodes = relinked();
    let (is_over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (nodes_ref, is_over_ref, made_ref) = (&nodes, &is_over, &made);
    thread::scope(|scope| {
        scope.spawn(move || {
            while !is_over_ref.load(Ordering::Acquire) {
                nodes_ref.lose(1);
                nodes_ref.find(1);
                thread::yield_now();
            }
        });
        scope.spawn(move || {
            while !is_over_ref.load(Ordering::Acquire) {
                read(nodes_ref);
                thread::yield_now();
            }
        });
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let core = nodes_ref.node(1);
                    let crm = core.attach(&format!("crm {thread}"), Some("alice"));
                    for round in 0..ROUNDS {
                        let wanted = Subscribe::new(format!("Phone/{round}/*").parse().unwrap(), Role::Subscriber);
                        let mut found = None;
                        while let Some(mut ticket) = subscribe(nodes_ref, &crm, &wanted, found.take()) {
                            found = until_ready(&mut ticket);
                        }
                        made_ref.fetch_add(1, Ordering::Relaxed);
                    }
                    core.router.subscriptions(&crm).len()
                })
            })
            .collect();
        let outcomes: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Release);
        assert!(outcomes.into_iter().all(|outcome| outcome.is_ok_and(|subscriptions| subscriptions == ROUNDS)));
    });
    assert_eq!(made.load(Ordering::Relaxed), THREADS * ROUNDS);
}

/// Waits for a ticket, with a deadline.
#[expect(clippy::disallowed_methods, reason = "a bound for a test that hangs")]
fn until_ready(ticket: &mut LookTicket) -> Option<Found> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let found = poll(ticket);
        if found.is_some() {
            return found;
        }
        assert!(Instant::now() < until, "a subscription waits for 30 s");
        thread::yield_now();
    }
}
