//! Three whole brokers without sockets, threads or a clock, on a NATS that delays, repeats, loses and reorders, with nodes that
//! freeze and lose their connections, and somebody who publishes recorded packets again. After each step, what applications were told is compared with a naive model of the
//! promises in docs/cluster.md.
//!
//! `network` is beside this folder, `node` is one broker, `world` what happens, `model` what must hold. A failure prints its
//! seed and what happened last: `SIMULATION_SEED=7 cargo nextest run cluster::simulation` plays it again,
//! `SIMULATION_SEEDS` plays more.

mod model;
mod node;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use world::World;

/// Worlds in each test run.
const SEEDS: u64 = 5;

#[test]
fn every_promise_holds_in_every_world() {
    if let Some(seed) = number_from("SIMULATION_SEED") {
        run(World::new(seed), seed);
        return;
    }
    let seeds = number_from("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let seen = Mutex::new(BTreeMap::<&str, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds) {
                    for (what, count) in run(World::new(seed), seed).seen() {
                        *seen.lock().entry(what).or_default() += count;
                    }
                }
            });
        }
    });
    let seen = seen.into_inner();
    // Worlds in which nothing goes wrong prove nothing.
    for what in ["event", "answer", "failure", "job", "Joined", "Left", "gap", "missing", "Lost", "Paused"] {
        assert!(seen.get(what).is_some_and(|count| *count > 0), "no {what} in {seen:?}");
    }
}

#[test]
fn nothing_is_missing_on_a_calm_network() {
    let world = run(World::calm(1), 1);
    for what in ["gap", "missing", "Lost", "Broken", "Paused", "lost job"] {
        assert_eq!(world.seen().get(what), None, "{:?}", world.seen());
    }
}

#[test]
fn a_seed_plays_the_same_again() {
    let [first, second] = [World::new(3), World::new(3)].map(|world| run(world, 3));
    assert!(first.lines().eq(second.lines()));
    assert_eq!(first.seen(), second.seen());
}

fn run(mut world: World, seed: u64) -> World {
    if let Err(broken) = world.run() {
        let lines: Vec<&str> = world.lines().collect();
        panic!("SIMULATION_SEED={seed}: {broken}\n{}", lines.join("\n"));
    }
    world
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}
