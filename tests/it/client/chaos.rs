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
const REQUESTS: u64 = 50;
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

/// In both directions: events with and without receipts, requests and their answers.
#[tokio::test]
async fn sessions_that_resume_lose_nothing_and_get_nothing_twice() {
    for seed in SEEDS {
        let broker = Broker::start().await;
        let proxy = CuttingProxy::start(broker.address(), seed).await;
        let reported = Arc::default();
        let served = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
        let (mut clients, mut tasks) = (Vec::new(), tokio::task::JoinSet::new());
        let (mut counting, mut servings) = (tokio::task::JoinSet::new(), Vec::new());
        for number in 0..CLIENTS {
            let client = connect(builder(&proxy, number)).await;
            reports(&client, &reported, &mut tasks);
            let subscription = client.subscribe("Phone/*/*".parse().unwrap()).await.unwrap();
            counting.spawn(async move { count(subscription, &format!("app{number}")).await });
            let served = Arc::clone(&served);
            let serve = client.serve(format!("Crm/Contact/Find{number}").parse().unwrap(), move |request| {
                *served.lock().entry(request.request_id().unwrap().to_owned()).or_default() += 1;
                async move { Ok(json!(request.data::<u64>().unwrap() + 1).into()) }
            });
            servings.push(serve.await.unwrap());
            clients.push(client);
        }
        let mut sending = tokio::task::JoinSet::new();
        for (number, client) in clients.iter().cloned().enumerate() {
            sending.spawn(async move { publish(&client, number).await });
        }
        for (number, client) in clients.iter().cloned().enumerate() {
            sending.spawn(async move { request(&client, number).await });
        }
        while let Some(outcome) = within("the senders", sending.join_next()).await {
            outcome.unwrap();
        }
        while let Some(outcome) = within("the counters", counting.join_next()).await {
            outcome.unwrap();
        }
        proxy.stop();
        assert!(proxy.cuts() >= CUTS_MIN, "{} cuts", proxy.cuts());
        let served = served.lock();
        assert!(served.values().all(|times| *times == 1) && served.len() as u64 == CLIENTS as u64 * REQUESTS);
        let reported: &Mutex<Vec<Reconnection>> = &reported;
        let reported = reported.lock();
        assert!(reported.iter().all(|report| *report == Reconnection::Resumed), "{reported:?}");
        assert!(reported.len() >= CUTS_MIN, "{reported:?}");
    }
}

/// Publishes numbers, also while there is no connection.
async fn publish(client: &Client, number: usize) {
    let triple = || Triple::new("Phone", "Call", "Ringing");
    for event in 0..EVENTS {
        if event % 3 == number as u64 % 3 {
            client.publish(triple(), json!(event)).receipt().await.unwrap();
        } else {
            client.publish(triple(), json!(event)).await.unwrap();
        }
    }
}

/// Sends requests to the next client. Only one that finds no connection is refused, and then nothing was sent.
async fn request(client: &Client, number: usize) {
    let find = format!("Find{}", (number + 1) % CLIENTS);
    let mut sent = 0;
    while sent < REQUESTS {
        let mut states = Box::pin(client.states());
        expect_state(&mut states, is_connected).await;
        match client.request(Triple::new("Crm", "Contact", &*find), json!(sent)).await {
            Ok(reply) => {
                assert_eq!(reply.data::<u64>().unwrap(), sent + 1);
                sent += 1;
            }
            Err(error) => assert!(matches!(error, Error::Disconnected), "{error}"),
        }
    }
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
        for client in &clients {
            let client = client.clone();
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
