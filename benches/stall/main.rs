//! Does anybody wait while 5,000 sessions connect, or drop at once? A paced stream through the broker, beside the same
//! stream through a process that only echoes, on the same core at the same time: what delays both is the machine's doing.
//!
//! Each is a process of its own: the broker and the echo on the first core, the streams and the crowd on the second,
//! where the crowd gives way to the streams. A latency counts from the moment at which a message was written, so a client
//! that was late hides nothing. `ROUNDS=1` takes fewer rounds, `CROWD=1000` a smaller crowd, `AT_ONCE=64` lets so many of
//! it connect at a time, `CORES=0,1` gives the broker both cores.

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
mod echo;
mod peers;
mod stream;
#[path = "../support/wire.rs"]
mod wire;

use std::time::Duration;

use crate::peers::{Broker, Helper};
use crate::stream::{Latencies, Streams};

/// Names to a process what it is.
const PART: &str = "SWITCHBOARD_STALL";

/// Where those that are measured run, and those who measure.
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";

/// What may not be.
const STALL: Duration = Duration::from_millis(5);

/// How long is looked at, where nothing ends by itself.
const LOOK: Duration = Duration::from_secs(2);

fn main() {
    switchboard::cli::open_files::raise_limit().unwrap();
    match std::env::var(PART).as_deref() {
        Ok("crowd") => {
            let count = number("CROWD", 5_000);
            crowd::run(count, number("AT_ONCE", count));
        }
        Ok(_) => echo::run(),
        Err(_) if arguments::ask_for("stall") => measure(),
        Err(_) => {}
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// The request that a WebSocket begins with.
fn handshake(address: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn measure() {
    peers::pin_self(CLIENT_CORE);
    let broker = Broker::start(&std::env::var("CORES").unwrap_or_else(|_| SERVER_CORE.to_owned()));
    let mut echo = Helper::start("echo", &["taskset", "-c", SERVER_CORE], "");
    let mut streams = Streams::open(&broker.address, &echo.line());
    println!("\nlatency in ms:{:>46}{:>36}{:>22}", "broker", "echo", "broker's core, ms");
    println!("{}", heading());
    for _ in 0..number("ROUNDS", 3) {
        show("quiet", &broker, &mut streams, |_| std::thread::sleep(LOOK));
        let mut crowd = Helper::start("crowd", &["nice", "-n", "19", "taskset", "-c", CLIENT_CORE], &broker.address);
        show("connecting", &broker, &mut streams, |_| assert_eq!(crowd.line(), "connected"));
        show("connected", &broker, &mut streams, |_| std::thread::sleep(LOOK));
        show("dropping", &broker, &mut streams, |_| {
            // The system closes all sockets of a process that is killed.
            crowd.kill();
            std::thread::sleep(LOOK);
        });
    }
    streams.close();
}

fn heading() -> String {
    let figures = ["p50", "p99", "max", "over 5"].map(|name| format!("{name:>9}")).concat();
    format!("{:<14}{:>10}{figures}{figures}{:>11}{:>11}", "", "messages", "used", "waited for")
}

/// One row: the latencies of what was sent meanwhile.
fn show(phase: &str, broker: &Broker, streams: &mut Streams, during: impl FnOnce(&Broker)) {
    let before = broker.scheduled();
    let begun = streams.sent();
    during(broker);
    let (through_broker, through_echo) = streams.latencies(begun);
    let after = broker.scheduled();
    let figures = |latencies: &Latencies| {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| millis(latencies.quantile(quantile)));
        format!("{p50:>9.2}{p99:>9.2}{max:>9.2}{:>9}", latencies.over(STALL))
    };
    let [used, waited] =
        [(before.0, after.0), (before.1, after.1)].map(|(before, after)| millis(after.saturating_sub(before)));
    println!(
        "{phase:<14}{:>10}{}{}{used:>11.0}{waited:>11.0}",
        through_broker.len(),
        figures(&through_broker),
        figures(&through_echo)
    );
}

fn millis(duration: Duration) -> f64 {
    1e3 * duration.as_secs_f64()
}
