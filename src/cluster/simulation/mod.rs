//! Three to five nodes on a NATS that delays, repeats, loses and reorders, with nodes that freeze, restart and lose their
//! connection, and somebody who records packets and publishes them again. After each step, every promise of a bus is
//! compared with a naive model.
//!
//! `network` is what they are on, `world` what happens, `model` what must hold. A failure prints its seed and the last events:
//! `SIMULATION_SEED=7 cargo nextest run cluster::simulation` plays it again.

mod model;
#[path = "../../../tests/it/cluster/network.rs"]
mod network;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Bus, Inbound, Incarnation, Outbound};
use world::World;

/// Worlds in each test run; `SIMULATION_SEEDS` plays more.
const SEEDS: u64 = 60;

#[test]
fn every_promise_holds_in_every_world() {
    if let Some(seed) = number_from("SIMULATION_SEED") {
        play(seed);
        return;
    }
    let seeds = number_from("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let seen = parking_lot::Mutex::new(BTreeMap::<String, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds) {
                    for (what, count) in play(seed).seen() {
                        *seen.lock().entry(what.clone()).or_default() += count;
                    }
                }
            });
        }
    });
    let seen = seen.into_inner();
    // A world in which nothing goes wrong proves nothing.
    let expected =
        "Silent Unanswered Restarted WindowExceeded ByPeer Paused CutOff Restored Snapshot resent several repeated";
    for what in expected.split(' ') {
        assert!(seen.get(what).is_some_and(|count| *count > 0), "no {what} in {seen:?}");
    }
}

#[test]
fn a_calm_network_breaks_and_repeats_nothing() {
    for seed in 0..5 {
        let mut world = World::calm(seed);
        run(&mut world, seed);
        for what in ["Silent", "Unanswered", "Restarted", "WindowExceeded", "ByPeer", "Paused", "CutOff", "resent"] {
            assert_eq!(world.seen().get(what), None, "seed {seed}");
        }
    }
}

#[test]
fn a_seed_plays_the_same_again() {
    for seed in 0..2 {
        let [mut first, mut second] = [World::new(seed), World::new(seed)];
        run(&mut first, seed);
        run(&mut second, seed);
        assert!(first.lines().eq(second.lines()), "seed {seed}");
        assert_eq!(first.seen(), second.seen());
    }
}

fn play(seed: u64) -> World {
    let mut world = World::new(seed);
    run(&mut world, seed);
    world
}

fn run(world: &mut World, seed: u64) {
    if let Err(broken) = world.run() {
        let lines: Vec<&str> = world.lines().collect();
        panic!("SIMULATION_SEED={seed}: {broken}\n{}", lines.join("\n"));
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
