//! What does a message cost whose payload is 16 bytes? The yardstick's are 47 at least, so this is its fan-out and its
//! pairs by simpler means, on the same servers: every publisher sends as many messages as its window holds, at once, then
//! everything is read and checked, and so on. `benches/sizes.sh` starts the servers and runs it; JSON lines as the
//! yardstick's are its output.
//!
//! small --bench SECONDS RUN LABEL=URL,pid=PID...

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench fails loudly, and prints"
)]

mod peer;
#[path = "../support/wire.rs"]
mod wire;

use std::fs;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::peer::{Peer, Protocol};

/// Before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // `cargo bench` and `cargo test --benches` run it too, and have no servers for it.
    let [seconds, run, servers @ ..] = arguments.as_slice() else { return };
    let length = Duration::from_secs_f64(seconds.parse().expect("a number of seconds"));
    for workload in &WORKLOADS {
        for server in servers {
            measure(workload, server, length, run);
        }
    }
}

/// Prints the figures of one server.
fn measure(workload: &Workload, server: &str, length: Duration, run: &str) {
    let (label, rest) = server.split_once('=').expect("LABEL=URL,pid=PID");
    let (url, pid) = rest.rsplit_once(",pid=").expect("LABEL=URL,pid=PID");
    let mut load = Load::open(workload, Protocol::of(label), url);
    load.run(WARM_UP);
    let (before, begun) = (cpu(pid), Instant::now());
    let deliveries = f64::from(load.run(length));
    let (cpu, wall) = (cpu(pid).saturating_sub(before).as_secs_f64(), begun.elapsed().as_secs_f64());
    let figures = json!({
        "deliveries_per_s": deliveries / wall,
        "cpu_s_per_million": 1e6 * cpu / deliveries,
        "server_busy_percent": 100.0 * cpu / wall,
    });
    let (workload, size) = (workload.name, peer::PAYLOAD_BYTES);
    println!("{}", json!({ "size": size, "workload": workload, "server": label, "run": run, "figures": figures }));
}

struct Workload {
    name: &'static str,
    pairs: u32,
    /// Of each.
    receivers: u32,
    window: u32,
}

/// As the yardstick has them.
const WORKLOADS: [Workload; 2] = [
    Workload { name: "fanout", pairs: 1, receivers: 1_000, window: 64 },
    Workload { name: "pairs", pairs: 100, receivers: 1, window: 16 },
];

/// Publishers, each with its receivers.
struct Load {
    streams: Vec<(Peer, Vec<Peer>)>,
    window: u32,
    /// The number of the next message of each publisher.
    next: u32,
}

impl Load {
    fn open(workload: &Workload, protocol: Protocol, url: &str) -> Self {
        switchboard::cli::open_files::raise_limit().unwrap();
        let streams = (0..workload.pairs).map(|pair| {
            let subject = format!("s{pair}");
            let receiver = |_| {
                let mut peer = Peer::connect(protocol, url);
                peer.subscribe(&subject);
                peer
            };
            let receivers = (0..workload.receivers).map(receiver).collect();
            let mut publisher = Peer::connect(protocol, url);
            publisher.publishes_on(&subject);
            (publisher, receivers)
        });
        Self { streams: streams.collect(), window: workload.window, next: 0 }
    }

    /// Sends and reads, for so long; how many deliveries there were.
    fn run(&mut self, length: Duration) -> u32 {
        let (end, mut deliveries) = (Instant::now() + length, 0);
        while Instant::now() < end {
            let numbers = self.next..self.next + self.window;
            self.next = numbers.end;
            for (publisher, _) in &mut self.streams {
                publisher.publish(numbers.clone());
            }
            for receiver in self.streams.iter_mut().flat_map(|(_, receivers)| receivers) {
                receiver.expect(numbers.clone());
                deliveries += self.window;
            }
        }
        deliveries
    }
}

/// CPU time of a process's threads (`proc_pid_schedstat`).
fn cpu(pid: &str) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        Duration::from_nanos(text.split_ascii_whitespace().next().map_or(0, |run| run.parse().unwrap()))
    };
    threads.map(|thread| of_thread(thread.unwrap())).sum()
}
