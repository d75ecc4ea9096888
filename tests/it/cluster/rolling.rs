//! A rolling restart: nodes of a real cluster end and start again, one after the other, while clients that resume count every
//! event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use switchboard_client::{Client, Reconnection, Subscription, Triple};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::balancer::Balancer;
use super::servers::Servers;
use crate::support::{Broker, Peer, envelope, within};

pub(super) const NODES: usize = 3;
/// Half of the clients publish, each to one of the others.
const PAIRS: usize = 100;
pub(super) const EVERY: Duration = Duration::from_millis(150);
/// What a publisher sends last.
const LAST: u64 = u64::MAX;

async fn connect(balancer: &Balancer, source: &str, pair: usize) -> Client {
    within("a connection", balancer.builder(source).user(format!("user-{pair}")).connect()).await.unwrap()
}

/// Publishes numbers until it is told to stop. Returns how many.
async fn publish(client: Client, is_over: Arc<AtomicBool>) -> u64 {
    let triple = || Triple::new("Phone", "Call", "Ringing");
    let mut often = interval(EVERY);
    let mut number = 0;
    while !is_over.load(Ordering::Acquire) {
        often.tick().await;
        client.publish(triple(), json!(number)).await.unwrap();
        number += 1;
    }
    client.publish(triple(), json!(LAST)).receipt().await.unwrap();
    number
}

/// Counts events until the last one. Each has to be there once and in order.
async fn count(mut subscription: Subscription) -> u64 {
    let mut next = 0;
    loop {
        let event = within("the next event", subscription.next()).await.expect("the subscription has ended");
        match event.data::<u64>().unwrap() {
            LAST => return next,
            number => assert_eq!(number, next, "lost, repeated or out of order"),
        }
        next += 1;
    }
}

#[tokio::test]
async fn a_rolling_restart_loses_no_event_and_repeats_none() {
    let Some(servers) = Servers::start(NODES).await else { return };
    let (one, two, three) = tokio::join!(servers.node("one", 0), servers.node("two", 1), servers.node("three", 2));
    let mut nodes: Vec<Broker> = vec![one, two, three];
    let balancer = Balancer::start().await;
    balancer.nodes.lock().extend(nodes.iter().map(Broker::address));
    let is_over = Arc::new(AtomicBool::new(false));
    let reported = Arc::new(Mutex::new(Vec::new()));
    let (mut watching, mut publishing, mut counting) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for pair in 0..PAIRS {
        let (phone, crm) = (connect(&balancer, "phone", pair).await, connect(&balancer, "crm", pair).await);
        for client in [&phone, &crm] {
            let (mut reconnections, reported) = (Box::pin(client.reconnections()), Arc::clone(&reported));
            watching.spawn(async move {
                while let Some(reconnection) = reconnections.next().await {
                    reported.lock().push(reconnection);
                }
            });
        }
        let subscription = crm.subscribe("Phone/*/*".parse().unwrap()).await.unwrap();
        counting.spawn(async move {
            let counted = count(subscription).await;
            drop(crm);
            counted
        });
        publishing.spawn(publish(phone, Arc::clone(&is_over)));
    }
    for place in 0..NODES {
        let mut node = nodes.remove(0);
        let address = node.address();
        balancer.nodes.lock().retain(|it| *it != address);
        node.terminate().await;
        assert_eq!(node.exit_code().await, Some(0), "node {place}");
        let node = node.successor().await;
        balancer.nodes.lock().push(node.address());
        nodes.push(node);
    }
    is_over.store(true, Ordering::Release);
    let sent: u64 = publishing.join_all().await.into_iter().sum();
    let counted: u64 = counting.join_all().await.into_iter().sum();
    assert_eq!(counted, sent);
    assert!(sent > PAIRS as u64 * 10, "{sent} events");
    let reported = reported.lock();
    assert!(reported.iter().all(|it| *it == Reconnection::Resumed), "{reported:?}");
    assert!(reported.len() >= 2 * PAIRS, "{} reconnections", reported.len());
}

#[tokio::test]
async fn a_session_with_a_full_queue_continues_on_another_node() {
    const EVENTS: u64 = 125;
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 0));
    let register = async |crm: &mut Peer, resume: Value| {
        crm.register("crm", json!({ "user": "alice", "resume": resume })).await["data"].clone()
    };
    let mut crm = Peer::connect(&one, "crm").await;
    let token = register(&mut crm, json!(true)).await["ResumeToken"].clone();
    crm.subscribe("Phone/*/*").await;
    crm.kill();
    let mut phone = one.app_of("phone", "alice").await;
    // Nearly 8 MiB, the default of `resume.bytes`.
    let text = "x".repeat(64_000);
    for number in 0..EVENTS {
        let fields = json!({ "id": number.to_string(), "data": { "number": number, "text": text } });
        phone.send(envelope("Phone/Call/Ringing", fields)).await;
        assert_eq!(phone.next_receipt(&number.to_string()).await, 1);
    }
    let mut crm = Peer::connect(&two, "crm").await;
    // The reply to Subscribe.
    let reply = register(&mut crm, json!({ "token": token, "received": 1 })).await;
    assert_eq!((&reply["Resumed"], &reply["Replayed"]), (&json!(true), &json!(0)), "{reply}");
    for number in 0..EVENTS {
        assert_eq!(crm.next_on("Phone/Call/Ringing").await["data"]["number"], number);
    }
}

#[tokio::test]
async fn a_request_follows_its_handler_and_does_not_need_the_node_that_it_has_left() {
    let Some(servers) = Servers::start(1).await else { return };
    let (mut one, two, three) = tokio::join!(servers.node("one", 0), servers.node("two", 0), servers.node("three", 0));
    let mut crm = three.app_of("crm", "alice").await;
    let register = async |dialer: &mut Peer, resume: Value| {
        dialer.register("dialer", json!({ "user": "alice", "resume": resume })).await["data"].clone()
    };
    let mut dialer = Peer::connect(&one, "dialer").await;
    let token = register(&mut dialer, json!(true)).await["ResumeToken"].clone();
    dialer.handle("Calls/Call/Dial").await;
    crm.ask("Calls/Call/Dial", "r").await;
    let request = dialer.next_on("Calls/Call/Dial").await;
    dialer.kill();
    let mut dialer = Peer::connect(&two, "dialer").await;
    // The reply to Subscribe, and the request.
    let reply = register(&mut dialer, json!({ "token": token, "received": 2 })).await;
    assert_eq!((&reply["Resumed"], &reply["Replayed"]), (&json!(true), &json!(0)), "{reply}");
    // It would wait for the request if it had that still.
    one.terminate().await;
    assert_eq!(one.exit_code().await, Some(0));
    dialer.reply(&request, json!({ "data": { "Success": true } })).await;
    assert_eq!(crm.next_answer("Calls/Call/Dial", "r").await["data"]["Success"], true);
    crm.expect_nothing().await;
}
