//! What does it cost to watch a broker? The CPU of a broker with 5,000 sessions and 50,000 messages a second by itself, with one
//! tap, and with one tap and a scrape of `/metrics` each second, in turn.
//!
//! `cargo bench --bench watched`. `ROUNDS=1` runs fewer rounds, `SECONDS=2` shorter ones, `PAIRS=100` has fewer sessions,
//! `SWITCHBOARD` is the path of another broker than the one of this build.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench fails loudly, and prints"
)]

#[path = "../support/arguments.rs"]
mod arguments;
#[path = "../support/process.rs"]
#[allow(dead_code, reason = "other benches start NATS")]
mod process;
#[path = "../support/stream.rs"]
#[allow(dead_code, reason = "other benches speak to NATS")]
mod stream;
mod watcher;
#[path = "../support/wire.rs"]
#[allow(dead_code, reason = "other benches have handlers")]
mod wire;

use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::process::Process;
use crate::stream::Stream;
use crate::watcher::{Scraper, Tap};

/// Each pair sends a message every 50 ms.
const TICK: Duration = Duration::from_millis(50);

/// Bytes of the payload.
const PAYLOAD: usize = 200;

/// Who watches, in the order of the rows.
const WATCHED: [&str; 3] = ["nobody", "a tap", "a tap and a scrape a second"];

fn main() {
    if !arguments::ask_for("watched") {
        return;
    }
    switchboard::cli::open_files::raise_limit().unwrap();
    let (rounds, seconds, pairs) = (number("ROUNDS", 5), number("SECONDS", 4), number("PAIRS", 2_500));
    // Pings would go unanswered.
    let config = "[auth]\nmode = \"open\"\n[limits]\nrate = 0\nheartbeat = \"10m\"\n";
    let (broker, admin, token) = Process::operated(config);
    let mut pairs: Vec<_> = (0..pairs).map(|number| Pair::begin(&broker.address, number)).collect();
    let phase = Duration::from_secs(seconds as u64);
    run(&broker, &mut pairs, phase);
    let mut all = WATCHED.map(|_| Vec::new());
    for _ in 0..rounds {
        for (by, measured) in all.iter_mut().enumerate() {
            let tap = (by > 0).then(|| Tap::open(&admin, &token));
            let scraper = (by > 1).then(|| Scraper::start(&admin, &token));
            measured.push(run(&broker, &mut pairs, phase));
            assert!(tap.is_none_or(|tap| tap.close() > 0), "the tap has shown nothing");
            assert!(scraper.is_none_or(|scraper| scraper.stop() > 0), "nothing was scraped");
        }
    }
    let medians = all.map(|rows| [0, 1].map(|of| median(rows.iter().map(|row: &[f64; 2]| row[of]))));
    let sessions = 2 * pairs.len();
    println!("{:<30} {:>12} {:>18}", format!("{sessions} sessions, watched by"), "messages/s", "CPU, % of a core");
    for (by, [rate, cpu]) in WATCHED.into_iter().zip(medians) {
        println!("{by:<30} {rate:>12.0} {cpu:>18.1}");
    }
    let [[_, alone], [_, tap], [_, both]] = medians;
    println!(
        "a tap costs {:.1} % of a core; with a scrape a second, CPU is {:.3} times as much",
        tap - alone,
        both / alone
    );
}

/// A publisher and a subscriber of one user.
struct Pair {
    publisher: Stream,
    subscriber: Stream,
}

impl Pair {
    fn begin(address: &str, number: usize) -> Self {
        let user = format!("agent-{number}");
        let publisher = Stream::of_broker(address, "softphone", &user);
        let mut subscriber = Stream::of_broker(address, "gadget", &user);
        subscriber.send(&wire::frame(&wire::subscribe(["Phone", "Call", "Ringing"])));
        subscriber.wait_for_frame(b"\"Success\":true");
        Self { publisher, subscriber }
    }
}

/// Lets each pair send a message in each tick. Returns the messages of a second, and the CPU of the broker in percent of a core.
fn run(broker: &Process, pairs: &mut [Pair], phase: Duration) -> [f64; 2] {
    let payload = "x".repeat(PAYLOAD);
    let event = format!(r#"{{"channel":"Phone","topic":"Call","subtopic":"Ringing","data":"{payload}"}}"#);
    let message = wire::frame(&event);
    let (begun, before) = (Instant::now(), broker.cpu());
    let (mut messages, mut ticks) = (0_u32, 0);
    while begun.elapsed() < phase {
        for pair in &mut *pairs {
            pair.publisher.send(&message);
            messages += 1;
        }
        for pair in &mut *pairs {
            pair.subscriber.wait_for_frame(b"\"Ringing\"");
        }
        ticks += 1;
        thread::sleep((TICK * ticks).saturating_sub(begun.elapsed()));
    }
    let (took, cpu) = (begun.elapsed().as_secs_f64(), broker.cpu().saturating_sub(before).as_secs_f64());
    [f64::from(messages) / took, 100.0 * cpu / took]
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}
