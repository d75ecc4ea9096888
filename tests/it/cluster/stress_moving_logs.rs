//! One session that reads a log moves between two nodes again and again, while others append to the log on three. It gets
//! every event once, in the order of the log.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::thread;

use serde_json::{Value, json};

use super::logs::{nodes, offsets};
use super::moving_logs::subscribe;
use super::nodes::Nodes;
use crate::support::core::event;

const NODES: usize = 3;
/// Events of each publisher.
const EVENTS: usize = 40;

fn publish(nodes: &Nodes, node: usize) {
    let core = nodes.node(node);
    let phone = core.attach(&format!("phone-{node}"), Some("alice"));
    for number in 0..EVENTS {
        let text = event("Phone/Call/Ringing", &format!(r#","data":{number}"#));
        let mut ticket = core.send(&phone, &text).unwrap().ticket.unwrap();
        while ticket.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            thread::yield_now();
        }
    }
}

#[test]
fn a_session_that_moves_again_and_again_gets_each_event_of_a_log_once() {
    let nodes = &nodes(NODES);
    let mut client = nodes.desk(0).begin("gadget");
    subscribe(nodes, 0, &mut client, "Phone/Call/Ringing", &Value::Null);
    let (is_over, publishing) = (&AtomicBool::new(false), &AtomicUsize::new(NODES));
    let (mut received, mut moves) = (Vec::new(), 0);
    thread::scope(|scope| {
        for node in 0..NODES {
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    if !(nodes.deliver_one(node) | nodes.store_one(node) | nodes.read_one(node)) {
                        thread::yield_now();
                    }
                }
            });
            scope.spawn(move || {
                publish(nodes, node);
                publishing.fetch_sub(1, Ordering::AcqRel);
            });
        }
        while received.len() < NODES * EVENTS || publishing.load(Ordering::Acquire) > 0 {
            moves += 1;
            let desk = nodes.desk(moves % 2);
            client.return_to(desk);
            while client.connection.session().is_none() && !client.poll_fetch(desk) {
                thread::yield_now();
            }
            let data = client.returned(desk);
            assert_eq!(data["Resumed"], true, "move {moves}: {data}");
            let taken = client.take(desk, moves % 7);
            client.command(desk, "Connection", "Acknowledge", &json!({ "received": client.received }));
            received.extend(taken.into_iter().filter(|it| it["channel"] == "Phone"));
            if moves % 3 == 0 {
                client.lose(desk);
            }
        }
        is_over.store(true, Ordering::Release);
    });
    assert_eq!(offsets(&received), (1..=(NODES * EVENTS) as u64).collect::<Vec<_>>());
    assert!(moves > 5, "{moves} moves");
}
