//! How long does an unrelated session wait while others connect, drop or attack? A paced stream through the broker runs
//! beside the same stream through a process that only echoes, on the same core at the same time. What delays both comes
//! from the machine.
//!
//! Every part is a process of its own: the broker and the echo on the first core, the streams, the crowd and the attacks
//! on the second, where the others give way to the streams. A latency counts from the time at which the message was
//! written, so a client that was late hides nothing.
//!
//! `cargo bench --bench stall -- short` takes under a minute, and fails only if the broker's longest latency is grossly
//! longer than the echo's. `ROUNDS=1` runs fewer rounds, `CROWD=1000` a smaller crowd, `AT_ONCE=64` lets this many of it
//! connect at a time, `CORES=0,1` gives the broker both cores, `ONLY=hints,silent` runs some of the attacks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench fails loudly, and prints"
)]

mod attack;
mod crowd;
mod echo;
#[path = "../support/environment.rs"]
mod environment;
mod peers;
mod stream;
#[path = "../support/wire.rs"]
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use crate::attack::ATTACKS;
use crate::environment::number;
use crate::peers::{Broker, Helper};
use crate::stream::{Latencies, Streams};

/// Tells a process which part it is, and where to connect.
const PART: &str = "SWITCHBOARD_STALL";
const ADDRESS: &str = "SWITCHBOARD_STALL_ADDRESS";

/// The cores of what is measured, and of what measures.
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";

/// The longest wait of an unrelated session that is acceptable.
const AIM: Duration = Duration::from_millis(5);

/// The longest latency is a gross defect if it is this many times the echo's, which counts as at least the aim.
const GROSS_RATIO: f64 = 20.0;

/// What a run does.
struct Plan {
    rounds: usize,
    crowd: usize,
    /// How long a phase takes that does not end by itself.
    phase: Duration,
}

impl Plan {
    fn long() -> Self {
        Self { rounds: number("ROUNDS", 3), crowd: number("CROWD", 5_000), phase: Duration::from_secs(2) }
    }

    fn short() -> Self {
        Self { rounds: 1, crowd: number("CROWD", 1_000), phase: Duration::from_millis(1500) }
    }
}

fn main() -> ExitCode {
    switchboard::cli::open_files::raise_limit().unwrap();
    if let Ok(part) = std::env::var(PART) {
        let address = std::env::var(ADDRESS).unwrap();
        match part.as_str() {
            "crowd" => {
                let count = number("CROWD", 5_000);
                crowd::run(&address, count, number("AT_ONCE", count));
            }
            "echo" => echo::run(),
            attack => attack::run(attack, &address),
        }
        return ExitCode::SUCCESS;
    }
    // `cargo bench` passes `--bench` to every bench, with the words that choose some. `cargo test --benches` does not.
    let (flags, words): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        _ if !flags.iter().any(|flag| flag == "--bench") => ExitCode::SUCCESS,
        ["short"] => measure(&Plan::short()),
        words if words.is_empty() || words.iter().any(|word| "stall".contains(word)) => measure(&Plan::long()),
        _ => ExitCode::SUCCESS,
    }
}

fn measure(plan: &Plan) -> ExitCode {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        println!("SKIPPED: stall needs two cores");
        return ExitCode::SUCCESS;
    }
    peers::pin_self(CLIENT_CORE);
    let broker = Broker::start(&std::env::var("CORES").unwrap_or_else(|_| SERVER_CORE.to_owned()));
    let mut echo = Helper::start("echo", &["taskset", "-c", SERVER_CORE], "");
    let mut bench = Bench { streams: Streams::open(&broker.address, &echo.line()), broker, is_gross: false };
    println!("\nlatency in ms:{:>46}{:>36}{:>9}{:>22}", "broker", "echo", "longest", "broker's core, ms");
    println!("{}", heading());
    for _ in 0..plan.rounds {
        bench.show("quiet", || wait(plan));
        let mut crowd = helper("crowd", &bench.broker, Some(plan.crowd));
        bench.show("connecting", || assert_eq!(crowd.line(), "connected"));
        bench.show("connected", || wait(plan));
        bench.show("dropping", || {
            // The system closes all sockets of a process that is killed.
            crowd.kill();
            wait(plan);
        });
        let only = std::env::var("ONLY").ok();
        for attack in ATTACKS
            .iter()
            .filter(|attack| only.as_ref().is_none_or(|only| only.split(',').any(|only| only == attack.name)))
        {
            let mut attacker = helper(attack.name, &bench.broker, None);
            assert_eq!(attacker.line(), "ready");
            bench.show(attack.name, || wait(plan));
            let mut sent = String::new();
            bench.show("  ends", || {
                sent = attacker.kill_and_read();
                wait(plan);
            });
            assert!(sent.parse::<u64>().unwrap() > 0, "{} sent nothing", attack.name);
            println!("{:<14}{sent:>10} sent", "");
        }
    }
    println!(
        "aim: no latency over {} ms unless the echo has one; gross: {GROSS_RATIO} times the echo's",
        AIM.as_millis()
    );
    bench.streams.close();
    if bench.is_gross { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A process on the core of the clients, which gives way to the streams.
fn helper(part: &str, broker: &Broker, crowd: Option<usize>) -> Helper {
    let crowd = crowd.map(|count| format!("CROWD={count}"));
    let mut wrapper = vec!["nice", "-n", "19", "taskset", "-c", CLIENT_CORE, "env"];
    wrapper.extend(crowd.as_deref());
    Helper::start(part, &wrapper, &broker.address)
}

fn wait(plan: &Plan) {
    std::thread::sleep(plan.phase);
}

fn heading() -> String {
    let figures = ["p50", "p99", "max", "over 5"].map(|name| format!("{name:>9}")).concat();
    format!("{:<14}{:>10}{figures}{figures}{:>9}{:>11}{:>11}", "", "messages", "ratio", "used", "waited for")
}

struct Bench {
    broker: Broker,
    streams: Streams,
    /// A latency was grossly longer than the echo's.
    is_gross: bool,
}

impl Bench {
    /// Prints a row: the latencies of the messages that were sent meanwhile.
    fn show(&mut self, phase: &str, during: impl FnOnce()) {
        let before = self.broker.scheduled();
        let begun = self.streams.sent();
        during();
        let (through_broker, through_echo) = self.streams.latencies(begun);
        let after = self.broker.scheduled();
        let figures = |latencies: &Latencies| {
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| millis(latencies.quantile(quantile)));
            format!("{p50:>9.2}{p99:>9.2}{max:>9.2}{:>9}", latencies.over(AIM))
        };
        let longest = through_echo.quantile(1.0).max(AIM);
        let ratio = through_broker.quantile(1.0).as_secs_f64() / longest.as_secs_f64();
        self.is_gross |= ratio > GROSS_RATIO;
        let [used, waited] =
            [(before.0, after.0), (before.1, after.1)].map(|(before, after)| millis(after.saturating_sub(before)));
        println!(
            "{phase:<14}{:>10}{}{}{ratio:>9.1}{used:>11.0}{waited:>11.0}",
            through_broker.len(),
            figures(&through_broker),
            figures(&through_echo)
        );
    }
}

fn millis(duration: Duration) -> f64 {
    1e3 * duration.as_secs_f64()
}
