//! A rolling restart of a real cluster whose clients read a log, have an exclusive source, and serve requests in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::json;
use switchboard_client::{Client, Error, Reconnection, Subscription, Triple};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::balancer::Balancer;
use super::rolling::{EVERY, NODES};
use super::servers::Servers;
use crate::support::{Broker, application, token_of, within};

const PUBLISHERS: [&str; 2] = ["cti", "pbx"];

async fn node(servers: &Servers, name: &str, first: usize) -> Broker {
    let mut file = servers.table(name, first);
    file += "[auth]\nmode = 'tokens'\n[limits]\nmessage_bytes = 65536\n[channels.Log]\nhistory = { size = 100000, ttl = '10m' }\n";
    for source in ["crm", "wallboard", "requester", "dialler"].into_iter().chain(PUBLISHERS) {
        file += &application(source, Some("alice"), "");
    }
    file += &application("softphone", Some("alice"), "exclusive = true\n");
    Broker::with_config(&file).await
}

/// What the clients of a test share.
struct Clients {
    balancer: Balancer,
    /// What became of their sessions.
    reported: Arc<Mutex<Vec<(&'static str, Reconnection)>>>,
    watching: JoinSet<()>,
    is_over: Arc<AtomicBool>,
}

impl Clients {
    async fn connect(&mut self, source: &'static str) -> Client {
        let builder = self.balancer.builder(source).token(token_of(source).into());
        let client = within("a connection", builder.connect()).await.unwrap();
        let (mut reconnections, reported) = (Box::pin(client.reconnections()), Arc::clone(&self.reported));
        self.watching.spawn(async move {
            while let Some(reconnection) = reconnections.next().await {
                reported.lock().push((source, reconnection));
            }
        });
        client
    }
}

/// Publishes numbers, by turns with history and without, until it is told to stop. Returns how many.
async fn publish(client: Client, is_over: Arc<AtomicBool>) -> u64 {
    let mut often = interval(EVERY / 4);
    let mut number = 0;
    while !is_over.load(Ordering::Acquire) {
        often.tick().await;
        client.publish(Triple::new("Log", "Call", "Ringing"), json!(number)).await.unwrap();
        number += 1;
    }
    client.publish(Triple::new("Log", "Call", "Ringing"), json!(null)).receipt().await.unwrap();
    number
}

/// Counts the events of a log until each publisher has sent its last one. Each has to be there once and in order.
async fn count(mut subscription: Subscription) -> u64 {
    let (mut counted, mut offset, mut over) = ([0; PUBLISHERS.len()], None, 0);
    while over < PUBLISHERS.len() {
        let event = within("the next event", subscription.next()).await.expect("the subscription has ended");
        let position = event.position().expect("it is in a log").offset;
        assert!(offset.is_none_or(|before| position == before + 1), "{position} after {offset:?}");
        offset = Some(position);
        let by = PUBLISHERS.iter().position(|source| Some(*source) == event.source()).unwrap();
        match event.data::<Option<u64>>().unwrap() {
            None => over += 1,
            Some(number) => {
                assert_eq!(number, counted[by], "lost, repeated or out of order");
                counted[by] += 1;
            }
        }
    }
    counted.iter().sum()
}

/// Sends one request after the other until it is told to stop. Returns how many were answered.
async fn ask(client: Client, is_over: Arc<AtomicBool>) -> u64 {
    let mut often = interval(EVERY / 4);
    let mut number = 0;
    while !is_over.load(Ordering::Acquire) {
        often.tick().await;
        match client.request(Triple::new("Calls", "Call", "Dial"), json!(number)).await {
            Ok(answer) => {
                assert_eq!(answer.data::<u64>().unwrap(), number, "the answer to another request");
                number += 1;
            }
            // It was not sent.
            Err(Error::Disconnected) => {}
            Err(error) => panic!("request {number}: {error}"),
        }
    }
    number
}

#[tokio::test]
async fn a_rolling_restart_keeps_logs_leases_and_turns() {
    let Some(servers) = Servers::start(NODES).await else { return };
    let (one, two, three) =
        tokio::join!(node(&servers, "one", 0), node(&servers, "two", 1), node(&servers, "three", 2));
    let mut nodes: Vec<Broker> = vec![one, two, three];
    let balancer = Balancer::start().await;
    balancer.nodes.lock().extend(nodes.iter().map(Broker::address));
    let (reported, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let mut clients = Clients { balancer, reported, watching: JoinSet::new(), is_over };
    let (mut publishing, mut counting, mut asking) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for source in ["crm", "wallboard", "softphone"] {
        let client = clients.connect(source).await;
        let subscription = client.subscribe("Log/*/*".parse().unwrap()).await.unwrap();
        counting.spawn(async move {
            let counted = count(subscription).await;
            drop(client);
            counted
        });
    }
    let dialler = clients.connect("dialler").await;
    let serve = dialler
        .serve("Calls/Call/Dial".parse().unwrap(), async |request| Ok(json!(request.data::<u64>().unwrap()).into()));
    let serving = serve.ordered(Vec::<String>::new()).concurrency(1).await.unwrap();
    for source in PUBLISHERS {
        publishing.spawn(publish(clients.connect(source).await, Arc::clone(&clients.is_over)));
    }
    let requester = clients.connect("requester").await;
    for _ in 0..4 {
        asking.spawn(ask(requester.clone(), Arc::clone(&clients.is_over)));
    }
    for place in 0..NODES {
        let mut node = nodes.remove(0);
        let address = node.address();
        clients.balancer.nodes.lock().retain(|it| *it != address);
        node.terminate().await;
        assert_eq!(node.exit_code().await, Some(0), "node {place}");
        let node = node.successor().await;
        clients.balancer.nodes.lock().push(node.address());
        nodes.push(node);
    }
    clients.is_over.store(true, Ordering::Release);
    let answered: u64 = asking.join_all().await.into_iter().sum();
    let sent: u64 = publishing.join_all().await.into_iter().sum();
    let counted: Vec<u64> = counting.join_all().await;
    assert!(counted.iter().all(|counted| *counted == sent), "{counted:?} of {sent}");
    assert!(sent > 20 && answered > 20, "{sent} events, {answered} answers");
    drop(serving);
    let reported = clients.reported.lock();
    assert!(reported.iter().all(|(_, it)| *it == Reconnection::Resumed), "{reported:?}");
    for source in ["crm", "wallboard", "softphone", "dialler", "requester"] {
        assert!(reported.iter().any(|(of, _)| *of == source), "{source} has not moved: {reported:?}");
    }
}
