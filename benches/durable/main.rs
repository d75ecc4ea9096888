//! How many events a second are on disk before their publishers are told so? A durable channel of the broker beside a stream
//! of `JetStream` that is kept in a file with `sync_interval: always`, on the same disk, in turn, with one publisher and with a
//! hundred. Each publisher waits for the receipt of its event before it sends the next one.
//!
//! `cargo bench --bench durable` needs a nats-server: the one that `benches/yardstick/peers.sh install` fetches, or the path in
//! `NATS_SERVER`. `SWITCHBOARD` is the path of another broker than the one of this build; `SECONDS=10` and `ROUNDS=5` change how
//! long it measures.

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
#[path = "../support/process.rs"]
mod process;
mod publisher;
mod server;
#[path = "../support/stream.rs"]
mod stream;
#[path = "../support/wire.rs"]
#[allow(dead_code, reason = "other benches subscribe")]
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::environment::number;
use crate::publisher::Publisher;
use crate::server::Server;

/// The publishers of a measurement.
const PUBLISHERS: [usize; 2] = [1, 100];

/// Before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

fn main() {
    if !arguments::ask_for("durable") {
        return;
    }
    let home = std::env::var("HOME").map_or_else(|_| PathBuf::from("."), PathBuf::from);
    let fetched = || home.join(".cache/yardstick/venv/bin/nats-server");
    let nats = std::env::var("NATS_SERVER").map_or_else(|_| fetched(), PathBuf::from);
    if !nats.exists() {
        println!("SKIPPED: durable needs a nats-server; NATS_SERVER names it");
        return;
    }
    let length = Duration::from_secs(number("SECONDS", 5));
    println!("{:>10} {:>12} {:>11} {:>9} {:>9}", "publishers", "server", "appends/s", "p50, ms", "p99, ms");
    for publishers in PUBLISHERS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..number("ROUNDS", 3) {
            ours.push(measure(&Server::switchboard(), publishers, length));
            theirs.push(measure(&Server::nats(&nats), publishers, length));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "{publishers:>10} {:>12} {:>10.2}x of JetStream (medians {ours:.0}, {theirs:.0})",
            "ratio",
            ours / theirs
        );
    }
}

/// Prints a row. Returns the appends a second.
fn measure(server: &Server, publishers: usize, length: Duration) -> f64 {
    let mut all: Vec<_> = (0..publishers).map(|number| server.publisher(number)).collect();
    run(&mut all, WARM_UP);
    let begun = Instant::now();
    let mut latencies = run(&mut all, length);
    let rate = f64::from(u32::try_from(latencies.len()).unwrap()) / begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| 1e3 * latencies[latencies.len() * percent / 100].as_secs_f64());
    println!("{publishers:>10} {:>12} {rate:>11.0} {p50:>9.2} {p99:>9.2}", server.name());
    rate
}

/// Publishes, each on a thread of its own. Returns how long each receipt took.
fn run(publishers: &mut [Publisher], length: Duration) -> Vec<Duration> {
    let end = Instant::now() + length;
    let publish = |publisher: &mut Publisher| {
        let mut latencies = Vec::new();
        loop {
            let begun = Instant::now();
            if begun >= end {
                return latencies;
            }
            publisher.publish();
            latencies.push(begun.elapsed());
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = publishers.iter_mut().map(|publisher| scope.spawn(|| publish(publisher))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
