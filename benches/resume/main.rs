//! How long does it take until 10,000 sessions are back that lost their connections at once, what does it cost the broker, and
//! what do others notice meanwhile? Resumable sessions beside sessions that register and subscribe anew, in turn. A paced
//! stream of another user runs beside them, and the same stream through a process that only echoes, as in the bench `stall`.
//!
//! `cargo bench --bench resume`. `CROWD=1000` has fewer sessions, `ROUNDS=1` fewer rounds, `AT_ONCE=64` lets this many of them
//! connect at a time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench fails loudly, and prints"
)]

#[path = "../support/arguments.rs"]
mod arguments;
mod crowd;
#[path = "../stall/echo.rs"]
mod echo;
#[path = "../support/environment.rs"]
mod environment;
#[path = "../stall/peers.rs"]
#[allow(dead_code, reason = "the bench stall uses the rest")]
mod peers;
#[path = "../stall/stream.rs"]
#[allow(dead_code, reason = "the bench stall uses the rest")]
mod stream;
#[path = "../support/wire.rs"]
mod wire;

use std::time::Duration;

use tokio::time::Instant;

use crate::environment::number;
use crate::peers::{Broker, Helper};
use crate::stream::Streams;

/// Tells a process which part it is, and where to connect.
const PART: &str = "SWITCHBOARD_RESUME";
const ADDRESS: &str = "SWITCHBOARD_RESUME_ADDRESS";

/// The cores of what is measured, and of what measures.
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";

/// How the sessions return: they register and subscribe anew, or they resume.
const CROWDS: [&str; 2] = ["anew", "resume"];

fn main() {
    if let Ok(part) = std::env::var(PART) {
        switchboard::cli::open_files::raise_limit().unwrap();
        match part.as_str() {
            "echo" => echo::run(),
            crowd => {
                let address = std::env::var(ADDRESS).unwrap();
                crowd::run(&address, number("CROWD", 10_000), number("AT_ONCE", 256), crowd == "resume");
            }
        }
        return;
    }
    if !arguments::ask_for("resume") {
        return;
    }
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        println!("SKIPPED: resume needs two cores");
        return;
    }
    switchboard::cli::open_files::raise_limit().unwrap();
    peers::pin_self(CLIENT_CORE);
    let names = ["back, s", "CPU, s", "p50, ms", "p99, ms", "max, ms"].map(|name| format!("{name:>9}")).concat();
    println!("{:<8}{names}   echo: p50, p99, max in ms", "");
    let mut returns = CROWDS.map(|_| Vec::new());
    for _ in 0..number("ROUNDS", 3) {
        for (crowd, returns) in CROWDS.into_iter().zip(&mut returns) {
            returns.push(measure(crowd));
        }
    }
    let [anew, resume] = returns.map(|returns| {
        let median = |of: fn(&Return) -> f64| {
            let mut all: Vec<f64> = returns.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        [median(|it| it.seconds), median(|it| it.cpu), median(|it| it.p99)]
    });
    let [seconds, cpu, p99] = std::array::from_fn(|at| resume[at] / anew[at]);
    println!("resumed to registered anew, medians: time {seconds:.2}, CPU {cpu:.2}, p99 of the stream {p99:.2}");
}

/// What the return of a crowd took, in seconds.
struct Return {
    seconds: f64,
    cpu: f64,
    /// The 99th percentile of the stream's latencies meanwhile.
    p99: f64,
}

/// Prints a row.
fn measure(kind: &str) -> Return {
    let broker = Broker::start(SERVER_CORE);
    let mut echo = Helper::start("echo", &["taskset", "-c", SERVER_CORE], "");
    let streams = Streams::open(&broker.address, &echo.line());
    let wrapper = ["nice", "-n", "19", "taskset", "-c", CLIENT_CORE];
    let mut crowd = Helper::start(kind, &wrapper, &broker.address);
    assert_eq!(crowd.line(), "connected");
    assert_eq!(crowd.line(), "dropped");
    let (begun, cpu, sent) = (Instant::now(), broker.scheduled().0, streams.sent());
    assert_eq!(crowd.line(), "back");
    let seconds = begun.elapsed().as_secs_f64();
    let (through_broker, through_echo) = streams.latencies(sent);
    let cpu = broker.scheduled().0.saturating_sub(cpu).as_secs_f64();
    let millis = |latency: Duration| 1e3 * latency.as_secs_f64();
    let [ours, theirs] = [&through_broker, &through_echo].map(|it| [0.5, 0.99, 1.0].map(|of| millis(it.quantile(of))));
    let row = [seconds, cpu, ours[0], ours[1], ours[2]].map(|figure| format!("{figure:>9.2}")).concat();
    println!("{kind:<8}{row}   {:.2}, {:.2}, {:.2}", theirs[0], theirs[1], theirs[2]);
    streams.close();
    Return { seconds, cpu, p99: ours[1] }
}
