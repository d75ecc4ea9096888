//! What a cluster of a size takes: the memory of sessions elsewhere, and what nodes use at rest.

use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::peer::Peer;
use crate::servers::{Broker, Nats};

/// How long nodes are watched at rest.
const WATCHED: Duration = Duration::from_secs(10);

/// Measures how long a node takes to start beside one with a crowd of sessions, and what each of them takes there.
pub(crate) fn start(nats: &Path, crowd: usize) {
    let (alone, without) = beside(nats, 0, |address, _| Peer::of_broker(address, "gadget", "nobody", true));
    let each = |resident: usize| resident.saturating_sub(alone) / crowd;
    let (subscribers, with) = beside(nats, crowd, |address, user| Peer::of_broker(address, "gadget", user, true));
    let (handlers, _) = beside(nats, crowd, |address, user| Peer::of_handler(address, "gadget", user));
    println!(
        "a node that starts accepts sessions after {:.2} s; beside one with {crowd} sessions of as many users, after {:.2} s, \
         with {} bytes more for each of them, or {} for each with a handler",
        without.as_secs_f64(),
        with.as_secs_f64(),
        each(subscribers),
        each(handlers)
    );
}

/// Starts a node beside one with a crowd, each of another user. Returns its resident memory, and how long it took to start.
fn beside(nats: &Path, crowd: usize, join: impl Fn(&str, &str) -> Peer) -> (usize, Duration) {
    let nats = Nats::start(nats);
    let first = Broker::start(Some(&nats), 0);
    let mut sessions: Vec<_> = (0..crowd).map(|number| join(first.address(), &format!("agent-{number}"))).collect();
    let begun = Instant::now();
    let second = Broker::start(Some(&nats), 1);
    let took = begun.elapsed();
    let resident = second.resident();
    if let Some(last) = sessions.last_mut() {
        let mut publisher = Peer::of_broker(second.address(), "publisher", &format!("agent-{}", crowd - 1), false);
        publisher.publish();
        last.receive();
    }
    (resident, took)
}

/// Measures what nodes use that nobody talks to.
pub(crate) fn rest(nats: &Path) {
    for nodes in [1_u32, 2, 4, 8] {
        let nats = Nats::start(nats);
        let brokers: Vec<_> = (0..nodes).map(|node| Broker::start(Some(&nats), node as usize)).collect();
        let used = || (brokers.iter().map(Broker::cpu).sum::<Duration>(), nats.cpu());
        let before = used();
        thread::sleep(WATCHED);
        let after = used();
        let percent = |after: Duration, before: Duration| {
            100.0 * after.saturating_sub(before).as_secs_f64() / WATCHED.as_secs_f64()
        };
        println!(
            "at rest, a node beside {} others uses {:.2} % of a core, and NATS {:.2} %",
            nodes - 1,
            percent(after.0, before.0) / f64::from(nodes),
            percent(after.1, before.1)
        );
    }
}
