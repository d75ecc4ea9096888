//! What does a session cost when there are a million? Bytes, joining, subscribing, matching, an event for all of them,
//! and leaving, in one process without sockets.
//!
//! In stages, each a process of its own, so that none finds the memory of another: the sessions `alone`, each with its
//! outbox, driven as their tasks would; tokio's in-memory streams, with nothing at their ends; sessions `with_tasks` over
//! such streams. Each step is compared with itself with fewer sessions. Times are CPU time of the one thread that does all
//! of it. `SESSIONS=100000` takes fewer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench fails loudly, and prints"
)]

mod alone;
#[path = "../support/arguments.rs"]
mod arguments;
#[path = "../support/meter.rs"]
mod meter;
#[path = "../support/wire.rs"]
mod wire;
mod with_tasks;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use switchboard::config::{Channel, Config, Limits, Scope};
use switchboard::connection::Settings;
use switchboard::router::{Ids, Policy, Router};

/// Names the stage to the process that runs it.
const STAGE: &str = "SWITCHBOARD_MILLION";

/// How many sessions a user has: a softphone, a page, a gadget, an adapter.
const DESK: usize = 4;

/// How many sessions do something at once, where some of all do.
const SOME: usize = 10_000;

/// Of an event.
const PAYLOAD_BYTES: usize = 256;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn main() {
    if !arguments::ask_for("million") {
        return;
    }
    let sessions = std::env::var("SESSIONS").map_or(1_000_000, |count| count.parse().expect("SESSIONS is a number"));
    match std::env::var(STAGE).as_deref() {
        Ok("alone") => alone::run(sessions),
        Ok("streams") => with_tasks::streams(sessions),
        Ok(_) => with_tasks::run(sessions),
        Err(_) => {
            for stage in ["alone", "streams", "with_tasks"] {
                let program = std::env::current_exe().unwrap();
                let status = Command::new(program).arg("--bench").env(STAGE, stage).status().unwrap();
                assert!(status.success(), "the stage '{stage}' failed");
            }
        }
    }
}

fn broker() -> (Instant, Router, Arc<Settings>) {
    let now = tokio::time::Instant::now().into_std();
    // No clock of a session is due while it is measured: each would be something else that it does.
    let never = Duration::from_hours(24);
    let limits = Limits { rate: 0, heartbeat: never, registration: never, ..Limits::default() };
    let shared = Channel { scope: Scope::Shared, ..Channel::default() };
    let channels = HashMap::from(["Phone", "News"].map(|name| (name.to_owned(), shared)));
    let policy = Policy::new(&Config { channels, ..Config::default() });
    let router = Router::new(now, SystemTime::UNIX_EPOCH, policy, Ids::seeded(1), Vec::new());
    (now, router, Arc::new(Settings::new(limits)))
}

fn user(number: usize) -> String {
    format!("agent{}@example.com", number / DESK)
}

fn register(number: usize) -> String {
    wire::register(["softphone", "crm", "gadget", "cti"][number % DESK], &user(number))
}

fn event([channel, topic, subtopic]: [&str; 3]) -> String {
    let payload = "x".repeat(PAYLOAD_BYTES);
    format!(r#"{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}","data":"{payload}"}}"#)
}

/// Prints one figure.
fn row(what: &str, figure: f64, unit: &str) {
    println!("  {what:<66}{figure:>12.2} {unit}");
}

/// Microseconds each.
fn micros(spent: Duration, count: usize) -> f64 {
    1e3 * millis(spent) / float(count)
}

fn millis(spent: Duration) -> f64 {
    1e3 * spent.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "figures of a benchmark have three digits")]
fn float(count: usize) -> f64 {
    count as f64
}
