//! A whole broker without sockets, threads or a clock, driven by a seed: applications register, ask, answer, stall, die
//! and reconnect, and after each step every promise of the protocol is compared with a naive model.
//!
//! `cast` who may come · `app` what one says next · `draft` the texts · `door` the adapter's queue · `link` a connection ·
//! `world`, `time` and `late` what happens, `proof` and `resuming` what proofs that end and resumes add, `history` what logs
//! do · `model`, `conn`, `requests`, `inbox`, `judge` what ought to follow · `check`, `reading` the rules, a function each.
//! A failure prints its seed and the transcript; `SIMULATION_SEED=7 cargo nextest run simulation` plays it again.

mod app;
mod cast;
mod check;
mod conn;
mod door;
mod draft;
mod history;
mod inbox;
mod judge;
mod late;
mod link;
mod model;
mod proof;
mod reading;
mod requests;
mod resuming;
mod time;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use check::Held;
use rand::RngExt;
use world::World;

/// Worlds in each test run; `just simulate` plays more.
const SEEDS: u64 = 250;

/// Steps in each world.
const STEPS: u32 = 250;

#[test]
fn every_promise_holds_in_every_world() {
    if let Some(seed) = number_from("SIMULATION_SEED") {
        return play(seed);
    }
    let seeds = number_from("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds) {
                    play(seed);
                }
            });
        }
    });
}

#[test]
fn a_seed_plays_the_same_again() {
    for seed in 0..5 {
        let [mut first, mut second] = [World::new(seed), World::new(seed)];
        run(&mut first).unwrap();
        run(&mut second).unwrap();
        for (first, second) in first.lines.iter().zip(&second.lines) {
            assert_eq!(first, second, "seed {seed}");
        }
        assert_eq!(first.lines.len(), second.lines.len(), "seed {seed}");
    }
}

#[test]
fn the_worlds_have_replays_and_duplicates() {
    let marks = [r#""replayed":true"#, r#""Duplicate":true"#, "TOO_OLD", "AHEAD", r#""RecoverReason":"EPOCH""#];
    let mut seen = marks.map(|_| 0);
    for seed in 0..16 {
        let mut world = World::new(seed);
        run(&mut world).unwrap();
        for (count, mark) in seen.iter_mut().zip(marks) {
            *count += world.lines.iter().filter(|line| line.contains(mark)).count();
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{marks:?}: {seen:?}");
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Plays one world to its end; a broken rule, or a panic of the broker, is told with the transcript.
fn play(seed: u64) {
    let mut world = World::new(seed);
    let why = match catch_unwind(AssertUnwindSafe(|| run(&mut world))) {
        Ok(Ok(())) => return,
        Ok(Err(broken)) => format!("the rule '{}' is broken: {}", broken.rule, broken.how),
        Err(_) => "a panic, see above".to_owned(),
    };
    let transcript = world.lines.join("\n");
    panic!("{transcript}\n\n{why}\nSIMULATION_SEED={seed} cargo nextest run simulation");
}

fn run(world: &mut World) -> Held {
    for _ in 0..STEPS {
        world.step()?;
    }
    if world.chance.random_ratio(1, 3) {
        world.drain()?;
        for _ in 0..STEPS / 10 {
            world.step()?;
        }
    }
    world.quiesce()
}
