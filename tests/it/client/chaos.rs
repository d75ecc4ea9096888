//! Clients of the real broker, whose connections are cut again and again while every message is counted.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use switchboard_client::Reconnection;

use super::cutting_proxy::CuttingProxy;
use super::*;
use crate::support::{Broker, within};

/// How many clients there are, and what each of them sends.
const CLIENTS: usize = 5;
const EVENTS: u64 = 200;
/// How many connections have to be cut at least, for the test to show anything.
const CUTS_MIN: usize = 20;

const SEEDS: [u64; 2] = [1, 2];

fn builder(proxy: &CuttingProxy, number: usize) -> Builder {
    let backoff = Duration::from_millis(20);
    Client::builder(proxy.url()).source(format!("app{number}")).backoff(backoff / 20, backoff)
}

/// Connects, however often the proxy cuts the connection before.
async fn connect(builder: Builder) -> Client {
    within("a connection", builder.wait_for_broker(Duration::MAX).connect()).await.unwrap()
}

/// Reads until the subscription has every event of the others, and checks that each arrives once and in order.
async fn count(mut subscription: Subscription, own: &str) {
    let mut next_of: BTreeMap<String, u64> = BTreeMap::new();
    while next_of.len() < CLIENTS - 1 || next_of.values().any(|next| *next < EVENTS) {
        let event = within("the next event", subscription.next()).await.expect("the subscription has ended");
        let source = event.source().unwrap().to_owned();
        if source == own {
            // A replay has the events of the session's own source, too.
            assert!(event.replayed());
            continue;
        }
        let next = next_of.entry(source.clone()).or_default();
        assert_eq!(event.data::<u64>().unwrap(), *next, "of {source} at {own}");
        *next += 1;
    }
}

/// Collects what each reconnection of a client means.
fn reports(client: &Client, reports: &Arc<Mutex<Vec<Reconnection>>>, tasks: &mut tokio::task::JoinSet<()>) {
    let (mut reconnections, reports) = (Box::pin(client.reconnections()), Arc::clone(reports));
    tasks.spawn(async move {
        while let Some(reconnection) = reconnections.next().await {
            reports.lock().push(reconnection);
        }
    });
}

/// Without resume, each cut begins a new session.
#[tokio::test]
async fn with_history_new_sessions_lose_nothing_and_get_nothing_twice() {
    for seed in SEEDS {
        let broker = Broker::open_with("[channels.Phone]\nhistory = { size = 100000, ttl = \"10m\" }").await;
        let proxy = CuttingProxy::start(broker.address(), seed).await;
        let reported = Arc::default();
        let (mut clients, mut tasks, mut counting) =
            (Vec::new(), tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
        for number in 0..CLIENTS {
            let client = connect(builder(&proxy, number).resume(false)).await;
            reports(&client, &reported, &mut tasks);
            let subscription = client.subscribe("Phone/*/*".parse().unwrap()).await.unwrap();
            counting.spawn(async move { count(subscription, &format!("app{number}")).await });
            clients.push(client);
        }
        let mut sending = tokio::task::JoinSet::new();
        for client in clients.iter().cloned() {
            sending.spawn(async move {
                for event in 0..EVENTS {
                    let ringing = Triple::new("Phone", "Call", "Ringing");
                    client.publish(ringing, json!(event)).receipt().once().await.unwrap();
                }
            });
        }
        while let Some(outcome) = within("the senders", sending.join_next()).await {
            outcome.unwrap();
        }
        while let Some(outcome) = within("the counters", counting.join_next()).await {
            outcome.unwrap();
        }
        proxy.stop();
        assert!(proxy.cuts() >= CUTS_MIN, "{} cuts", proxy.cuts());
        let reported: &Mutex<Vec<Reconnection>> = &reported;
        let reported = reported.lock();
        assert!(reported.iter().all(|report| *report == Reconnection::Recovered), "{reported:?}");
        assert!(reported.len() >= CUTS_MIN, "{reported:?}");
    }
}
