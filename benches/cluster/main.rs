//! What does a cluster cost? How long an event takes to a session of another node, beside one of the same node and beside
//! plain NATS; the CPU that all servers use for it; what `[cluster]` costs an event that stays on its node; how long a starting node
//! takes until it knows 10,000 sessions elsewhere, and the memory that these take there; and what nodes use at rest.
//!
//! `cargo bench --bench cluster` needs a nats-server: the one that `./test` installs in `target/python`, or the path in
//! `NATS_SERVER`. `EVENTS=2000` measures fewer events, `ROUNDS=1` fewer rounds, `CROWD=1000` has fewer sessions, `SWITCHBOARD` is
//! the path of another broker than the one of this build.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench fails loudly, and prints"
)]

#[path = "../support/arguments.rs"]
mod arguments;
#[path = "../support/environment.rs"]
mod environment;
mod peer;
#[path = "../support/process.rs"]
mod process;
mod servers;
mod size;
#[path = "../support/stream.rs"]
mod stream;
#[path = "../support/wire.rs"]
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::environment::number;
use crate::peer::Peer;
use crate::servers::{Broker, Nats};

/// Events that are under way at once while CPU is measured.
const BURST: usize = 64;

/// The roads of an event, in the order of the rows.
const ROADS: [&str; 5] = ["one broker", "one node", "two nodes", "three nodes", "plain NATS"];

fn main() {
    if !arguments::ask_for("cluster") {
        return;
    }
    let installed = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin/nats-server");
    let nats = std::env::var("NATS_SERVER").map_or_else(|_| installed(), PathBuf::from);
    if !nats.exists() {
        println!("SKIPPED: cluster needs a nats-server; NATS_SERVER names it");
        return;
    }
    switchboard::cli::open_files::raise_limit().unwrap();
    let (rounds, events) = (number("ROUNDS", 3), number("EVENTS", 10_000));
    println!("{:<12} {:>9} {:>9} {:>14}", "road", "p50, ms", "p99, ms", "CPU, us/event");
    let mut all = ROADS.map(|_| Vec::new());
    for _ in 0..rounds {
        for (road, measured) in ROADS.into_iter().zip(&mut all) {
            let road = measure(&nats, road, events);
            measured.push([road.p50, road.p99, road.cpu]);
        }
    }
    let [alone, one, two, three, plain] = all.map(|rows| [0, 1, 2].map(|of| median(rows.iter().map(|row| row[of]))));
    let row = |name: &str, [p50, p99, cpu]: [f64; 3]| println!("{name:<12} {p50:>9.3} {p99:>9.3} {cpu:>14.1}");
    for (name, figures) in ROADS.into_iter().zip([alone, one, two, three, plain]) {
        row(name, figures);
    }
    println!("local traffic of a node to that of a broker: CPU {:.2}", one[2] / alone[2]);
    println!("another node adds: p50 {:.3} ms, p99 {:.3} ms", two[0] - one[0], two[1] - one[1]);
    println!("CPU of an event between nodes to that through plain NATS: {:.1}", two[2] / plain[2]);
    size::start(&nats, number("CROWD", 10_000));
    size::rest(&nats);
}

/// What one road takes.
struct Road {
    /// In milliseconds.
    p50: f64,
    p99: f64,
    /// Of all servers, in microseconds for each event.
    cpu: f64,
}

/// Measures one road: latencies one by one, CPU in bursts.
fn measure(nats: &Path, road: &str, events: usize) -> Road {
    let server = (road != "one broker").then(|| Nats::start(nats));
    let nodes = match road {
        "plain NATS" => 0,
        "one broker" | "one node" => 1,
        "two nodes" => 2,
        _ => 3,
    };
    let brokers: Vec<_> = (0..nodes).map(|node| Broker::start(server.as_ref(), node)).collect();
    let (mut publisher, mut subscriber) = match (&server, brokers.as_slice()) {
        (Some(nats), []) => (Peer::of_nats(nats.address()), Peer::of_nats_subscriber(nats.address())),
        (_, brokers) => (
            Peer::of_broker(brokers[0].address(), "publisher", "alice", false),
            Peer::of_broker(brokers[brokers.len() - 1].address(), "subscriber", "alice", true),
        ),
    };
    exchange(&mut publisher, &mut subscriber, events / 10, 1);
    let mut latencies = exchange(&mut publisher, &mut subscriber, events, 1);
    latencies.sort_unstable();
    let of = |percent: usize| 1e3 * latencies[latencies.len() * percent / 100].as_secs_f64();
    let used = || {
        let brokers: Duration = brokers.iter().map(Broker::cpu).sum();
        brokers + server.as_ref().map_or(Duration::ZERO, Nats::cpu)
    };
    let before = used();
    exchange(&mut publisher, &mut subscriber, events / BURST, BURST);
    let cpu = used().saturating_sub(before).as_secs_f64();
    let sent = f64::from(u32::try_from(events / BURST * BURST).unwrap());
    Road { p50: of(50), p99: of(99), cpu: 1e6 * cpu / sent }
}

/// Sends bursts of this size, each when the one before has arrived. Returns how long each took.
fn exchange(publisher: &mut Peer, subscriber: &mut Peer, bursts: usize, size: usize) -> Vec<Duration> {
    let one = |_| {
        let begun = Instant::now();
        (0..size).for_each(|_| publisher.publish());
        (0..size).for_each(|_| subscriber.receive());
        begun.elapsed()
    };
    (0..bursts).map(one).collect()
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
