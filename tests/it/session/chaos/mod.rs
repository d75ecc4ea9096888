//! Many resumable clients behind a network that kills, pauses, freezes and deafens their connections by a seeded schedule:
//! each receives every event of the others exactly once, in order.

mod client;
mod proxy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::Broker;
use client::Client;
use proxy::Proxy;

const CLIENTS: usize = 50;

/// How long the clients publish, in seconds, unless `CHAOS_SECONDS` says so.
const SECONDS: u64 = 40;

/// How long everything may take to arrive after that.
const ARRIVES_WITHIN: Duration = Duration::from_secs(40);

/// What the clients of a test share.
struct Scene {
    clients: usize,
    proxy: SocketAddr,
    broker: SocketAddr,
    lasts: Duration,
    /// When the clients began to publish: all of them have subscribed.
    start: OnceLock<Instant>,
    ready: AtomicUsize,
    done: AtomicUsize,
    /// The number of events that each client has published.
    published: Mutex<Vec<Option<u64>>>,
}

impl Scene {
    fn note_ready(&self) {
        if self.ready.fetch_add(1, Ordering::SeqCst) + 1 == self.clients {
            self.start.get_or_init(Instant::now);
        }
    }

    fn is_ready(&self) -> bool {
        self.start.get().is_some()
    }

    /// Whether it is the time to publish.
    fn publishes(&self) -> bool {
        self.start.get().is_some_and(|start| start.elapsed() < self.lasts)
    }

    fn note_published(&self, client: usize, count: u64) {
        self.published.lock().unwrap()[client] = Some(count);
    }

    /// Whether this is everything that these clients have published.
    fn is_everything(&self, heard: &BTreeMap<usize, u64>) -> bool {
        let published = self.published.lock().unwrap();
        heard.iter().all(|(client, heard)| published[*client] == Some(*heard))
    }

    fn note_done(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether every client has received everything.
    fn is_over(&self) -> bool {
        self.done.load(Ordering::SeqCst) == self.clients
    }
}

#[tokio::test]
async fn every_event_arrives_exactly_once_whatever_happens_to_connections() {
    let seconds = std::env::var("CHAOS_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let seed = std::env::var("CHAOS_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (broker, mut tasks) = (Broker::start().await, JoinSet::new());
    let proxy = Proxy::start(&mut tasks, broker.address(), seed).await;
    let scene = Scene {
        clients: CLIENTS,
        proxy: proxy.address,
        broker: broker.address(),
        lasts: Duration::from_secs(seconds),
        start: OnceLock::new(),
        ready: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        published: Mutex::new(vec![None; CLIENTS]),
    };
    let mut rng = StdRng::seed_from_u64(seed);
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|number| Client::new(&scene, number, StdRng::seed_from_u64(rng.random()))).collect();
    let calm = async {
        while !scene.is_ready() || scene.publishes() {
            tokio::time::sleep_until(Instant::now() + Duration::from_millis(100)).await;
        }
        proxy.calm();
    };
    let run = async { tokio::join!(join_all(clients.iter_mut().map(Client::run)), calm) };
    let finished = timeout(Duration::from_secs(seconds) + ARRIVES_WITHIN, run).await;
    assert!(
        finished.is_ok(),
        "seed {seed}: {} of {CLIENTS} clients have everything",
        scene.done.load(Ordering::SeqCst)
    );
    let published: u64 = scene.published.lock().unwrap().iter().flatten().sum();
    let resumed: u64 = clients.iter().map(|client| client.resumed).sum();
    println!("{published} events, {resumed} resumes");
    assert!(published > 0 && resumed > 0, "nothing happened");
}
