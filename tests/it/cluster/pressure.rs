//! Publishers that wait for queues on other nodes.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use switchboard::router::{OutboxLimits, Session};

use super::nodes::Nodes;
use super::routing::{HANDLER, handler, nodes, only, subscriber};
use crate::support::core::event;
use wire::command::{Role, Subscribe};

/// A session with room for eight messages.
fn narrow(nodes: &Nodes, node: usize, source: &str, role: Role) -> Arc<Session> {
    let limits = OutboxLimits { messages: 8, bytes: 1 << 20, refuses: false };
    let session = nodes.node(node).attach_with(source, Some("alice"), limits);
    nodes.node(node).subscribe_as(&session, &Subscribe::new("Calls/*/*".parse().unwrap(), role));
    nodes.settle();
    nodes.take(node, &session);
    session
}

/// Sends an event, and returns the receivers that its publisher waits for then.
fn publish(nodes: &Nodes, from: &Arc<Session>) -> Vec<Arc<Session>> {
    let routed = nodes.node(0).send(from, &event("Calls/Call/Ringing", "")).unwrap();
    nodes.settle();
    routed.pressed
}

#[test]
fn a_publisher_waits_for_a_queue_on_another_node() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let slow = narrow(&nodes, 1, "slow", Role::Subscriber);
    for _ in 0..5 {
        assert!(publish(&nodes, &phone).is_empty());
    }
    // The fifth one has filled it over half, which its publisher learns with the next one.
    let pressed = publish(&nodes, &phone);
    let [receiver] = &*pressed else { panic!("one receiver, not {}", pressed.len()) };
    let (reliefs, most) = receiver.outbox().begin_wait(nodes.node(0).now);
    assert_eq!(most, Duration::from_millis(250));
    assert!(!receiver.outbox().is_relieved_since(reliefs));
    assert_eq!(nodes.take(1, &slow).len(), 6);
    assert!(!receiver.outbox().is_relieved_since(reliefs), "the news is under way");
    nodes.settle();
    assert!(receiver.outbox().is_relieved_since(reliefs));
    assert!(publish(&nodes, &phone).is_empty());
}

#[test]
fn nobody_waits_for_a_queue_that_was_waited_for_in_vain() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let slow = narrow(&nodes, 1, "slow", Role::Subscriber);
    (0..5).for_each(|_| assert!(publish(&nodes, &phone).is_empty()));
    let pressed = publish(&nodes, &phone);
    let (here, there) = (nodes.node(0), nodes.node(1));
    pressed[0].outbox().begin_wait(here.now);
    let until = there.now + Duration::from_millis(250);
    assert_eq!(there.router.deadline(), Some(until));
    there.router.expire(until);
    assert_eq!(there.router.deadline(), None);
    pressed[0].outbox().waited_in_vain(here.now + Duration::from_millis(250));
    nodes.settle();
    assert!(publish(&nodes, &phone).is_empty(), "the publisher goes on");
    nodes.take(1, &slow);
    nodes.settle();
    assert!(!pressed[0].outbox().is_over_half(), "the end of the wait was told although nobody waited any more");
}

#[test]
fn the_requester_waits_for_a_handler_on_another_node() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let phone = narrow(&nodes, 1, "phone", HANDLER);
    let mut pressed = Vec::new();
    for _ in 0..6 {
        pressed = nodes.node(0).send(&crm, &event("Calls/Call/Dial", r#","id":"r""#)).unwrap().pressed;
        nodes.settle();
    }
    assert_eq!(pressed.len(), 1);
    assert_eq!(nodes.take(1, &phone).len(), 6);
}

#[test]
fn a_handler_waits_for_a_requester_on_another_node() {
    let nodes = nodes(2);
    let limits = OutboxLimits { messages: 8, bytes: 1 << 20, refuses: false };
    let crm = nodes.node(0).attach_with("crm", Some("alice"), limits);
    let phone = handler(&nodes, 1, "phone", Some("alice"), "Calls/Call/Dial");
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"r""#)).unwrap();
    let id = only(&nodes, 1, &phone)["id"].as_str().unwrap().to_owned();
    let mut pressed = Vec::new();
    for _ in 0..6 {
        let reply = event("Calls/Call/Dial", &format!(r#","inReplyTo":"{id}","more":true"#));
        pressed = nodes.node(1).send(&phone, &reply).unwrap().pressed;
        nodes.settle();
    }
    assert_eq!(pressed.len(), 1);
    assert_eq!(nodes.take(0, &crm).len(), 6);
}

#[test]
fn a_window_over_half_counts_as_a_queue_over_half() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let crm = subscriber(&nodes, 1, "crm", Some("alice"), "Calls/*/*");
    nodes.set_over_half(0, 1, true);
    let pressed = publish(&nodes, &phone);
    let [window] = &*pressed else { panic!("one window, not {}", pressed.len()) };
    let (reliefs, _) = window.outbox().begin_wait(nodes.node(0).now);
    assert!(!window.outbox().is_relieved_since(reliefs));
    nodes.set_over_half(0, 1, false);
    assert!(window.outbox().is_relieved_since(reliefs));
    assert!(publish(&nodes, &phone).is_empty());
    assert_eq!(nodes.take(1, &crm).len(), 2);
}

#[test]
fn a_lost_node_holds_nobody_up() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let slow = narrow(&nodes, 1, "slow", Role::Subscriber);
    (0..5).for_each(|_| assert!(publish(&nodes, &phone).is_empty()));
    let pressed = publish(&nodes, &phone);
    let (reliefs, _) = pressed[0].outbox().begin_wait(nodes.node(0).now);
    nodes.lose(1);
    assert!(pressed[0].outbox().is_relieved_since(reliefs));
    assert_eq!(nodes.node(1).router.deadline(), None, "nobody is told any more");
    nodes.take(1, &slow);
    nodes.settle();
}

#[test]
fn no_publisher_is_forgotten_when_many_threads_fill_and_empty_queues() {
    const EVENTS: usize = 2_000;
    let nodes = nodes(2);
    let publishers: Vec<_> = (0..2).map(|it| nodes.node(0).attach(&format!("p{it}"), Some("alice"))).collect();
    let limits = OutboxLimits { messages: 8, bytes: 1 << 20, refuses: false };
    let slow = nodes.node(1).attach_with("slow", Some("alice"), limits);
    nodes.node(1).subscribe(&slow, "Calls/*/*");
    nodes.settle();
    nodes.take(1, &slow);
    let inbox = Mutex::new(());
    let (pressed, taken) = thread::scope(|scope| {
        let publish = |publisher| {
            let (nodes, inbox) = (&nodes, &inbox);
            move || {
                let mut all = Vec::new();
                for _ in 0..EVENTS {
                    {
                        // Reports arrive between the messages of a publisher.
                        let _one_thread_receives = inbox.lock();
                        nodes.deliver_one(0);
                    }
                    let routed = nodes.node(0).send(publisher, &event("Calls/Call/Ringing", "")).unwrap();
                    for receiver in routed.pressed {
                        let (reliefs, _) = receiver.outbox().begin_wait(nodes.node(0).now);
                        // The other thread empties the queue, and the links deliver what it tells.
                        while !receiver.outbox().is_relieved_since(reliefs) {
                            let _one_thread_receives = inbox.lock();
                            nodes.deliver_one(0);
                            thread::yield_now();
                        }
                        all.push(receiver);
                    }
                }
                all
            }
        };
        let threads: Vec<_> = publishers.iter().map(|publisher| scope.spawn(publish(publisher))).collect();
        let (nodes, slow) = (&nodes, &slow);
        let taker = scope.spawn(move || {
            let mut taken = 0;
            while taken < 2 * EVENTS {
                // One thread receives what comes to a node, as in a broker.
                for _ in 0..6 {
                    // The publishers may all wait for this queue.
                    for _ in 0..1000 {
                        if nodes.deliver_one(1) {
                            break;
                        }
                        thread::yield_now();
                    }
                }
                taken += nodes.take(1, slow).len();
            }
            taken
        });
        let pressed: Vec<_> = threads.into_iter().flat_map(|it| it.join().unwrap()).collect();
        (pressed, taker.join().unwrap())
    });
    nodes.settle();
    assert_eq!(taken, 2 * EVENTS, "nothing is lost");
    assert!(!pressed.is_empty(), "queues were over half");
    assert!(pressed.iter().all(|receiver| !receiver.outbox().is_over_half()), "each was told to be under half at last");
    assert_eq!(nodes.node(1).router.deadline(), None, "nothing is left of reports");
}
