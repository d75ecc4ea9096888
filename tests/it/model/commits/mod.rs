//! A broker with durable channels whose disk is played: commits come late or fail, the broker dies and starts again with what
//! is on disk, connections are lost and resumed, events are read from the disk. After each step the promises of
//! docs/protocol.md, "Durable channels", are compared with what was sent and received.
//!
//! `publisher` and `subscriber` have what clients do in such a world, and what is expected of what they receive.
//!
//! A failure prints its seed and what happened; `SIMULATION_SEED=7 cargo nextest run commits` plays it again.

mod publisher;
mod subscriber;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use switchboard::config::{Channel, Config, LogBounds, Scope};
use switchboard::router::Batch;

use self::publisher::{Publisher, Sent};
use self::subscriber::Subscriber;
use crate::support::client::Desk;
use crate::support::disk::Disk;

/// Worlds in each test run.
const SEEDS: u64 = 40;

/// Steps in each world.
const STEPS: u32 = 400;

const PUBLISHERS: [&str; 2] = ["cti", "phone"];
const SUBSCRIBERS: [&str; 2] = ["crm", "board"];
const CHANNELS: [&str; 3] = ["Phone", "Queue", "Other"];
const DURABLE: [&str; 2] = ["Phone", "Queue"];

/// Events that a log keeps.
const SIZE: usize = 40;

/// A batch between its plan and its end.
struct Planned {
    batch: Batch,
    is_on_disk: bool,
}

struct World {
    desk: Desk,
    disk: Disk,
    config: Config,
    chance: StdRng,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    planned: Option<Planned>,
    /// The number that was used last.
    number: u64,
    /// What was delivered or confirmed: channel, epoch and offset -> number.
    promised: BTreeMap<(String, String, u64), u64>,
    refused: BTreeSet<u64>,
    once: BTreeSet<u64>,
    deaths: u32,
    from_disk: usize,
    said: String,
}

fn config(chance: &mut StdRng) -> Config {
    let mut config = Config::default();
    let history = Some(LogBounds { size: SIZE, ttl: Duration::from_hours(1) });
    let durable = Channel { history, durable: true, ..Channel::default() };
    config.channels.insert("Phone".into(), durable);
    config.channels.insert("Queue".into(), Channel { scope: Scope::Shared, ..durable });
    if chance.random() {
        config.history.bytes = chance.random_range(1..6000);
    }
    config.limits.rate = 0;
    config
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let config = config(&mut chance);
        let mut desk = Desk::new(&config);
        let (router, disk) = Disk::attach(desk.core.router);
        desk.core.router = router;
        let (publishers, subscribers) = (Vec::new(), Vec::new());
        let mut world = Self {
            desk,
            disk,
            config,
            chance,
            publishers,
            subscribers,
            planned: None,
            number: 0,
            promised: BTreeMap::new(),
            refused: BTreeSet::new(),
            once: BTreeSet::new(),
            deaths: 0,
            from_disk: 0,
            said: String::new(),
        };
        world.arrive(&mut BTreeMap::new(), Vec::new());
        world
    }

    fn note(&mut self, what: &str) {
        writeln!(self.said, "{what}").unwrap();
    }

    /// Everybody connects, after a start of the broker.
    fn arrive(
        &mut self,
        positions: &mut BTreeMap<&'static str, BTreeMap<&'static str, (String, u64)>>,
        doubtful: Vec<Vec<Sent>>,
    ) {
        let mut doubtful = doubtful.into_iter();
        self.publishers = PUBLISHERS
            .iter()
            .map(|name| Publisher {
                client: self.desk.begin(name),
                sent: Vec::new(),
                count: 0,
                doubtful: doubtful.next().unwrap_or_default(),
            })
            .collect();
        self.subscribers = Vec::new();
        for name in SUBSCRIBERS {
            let client = self.desk.begin(name);
            let positions = positions.remove(name).unwrap_or_default();
            self.subscribers.push(Subscriber { client, last: BTreeMap::new(), positions, seen: BTreeSet::new() });
            let at = self.subscribers.len() - 1;
            for channel in CHANNELS {
                self.subscribe(at, channel);
            }
        }
    }

    fn step(&mut self) {
        let publisher = self.chance.random_range(0..self.publishers.len());
        let subscriber = self.chance.random_range(0..self.subscribers.len());
        match self.chance.random_range(0..100) {
            0..40 => self.publish(publisher),
            40..60 => self.commit(),
            60..63 => self.lose(publisher),
            63..75 => drop(self.take(subscriber)),
            75..78 => self.return_subscriber(subscriber),
            78..80 => {
                self.disk.is_failing = !self.disk.is_failing && self.chance.random();
                self.note(&format!("the disk fails: {}", self.disk.is_failing));
            }
            80 => self.die(),
            _ => self.hear_publisher(publisher),
        }
    }

    /// A step of the thread that commits: a plan, or the end of a batch.
    fn commit(&mut self) {
        match self.planned.take() {
            None => {
                let most = self.chance.random_range(1..6);
                let batch = self.disk.plan(self.desk.now(), &self.desk.core.router, most);
                let is_on_disk = !self.disk.is_failing;
                if is_on_disk {
                    batch.changes().iter().for_each(|change| self.disk.apply(change));
                }
                self.note(&format!("a batch of {} is written: {is_on_disk}", batch.changes().len()));
                self.planned = Some(Planned { batch, is_on_disk });
            }
            Some(Planned { batch, is_on_disk }) => {
                self.note("a batch is delivered");
                self.desk.core.router.finish(self.desk.now(), batch, is_on_disk);
                for publisher in &mut self.publishers {
                    publisher.client.poll_commits(&self.desk);
                }
            }
        }
    }

    /// The broker dies, and another one starts with what is on disk.
    fn die(&mut self) {
        self.note("the broker dies");
        self.deaths += 1;
        self.planned = None;
        let mut positions = BTreeMap::new();
        for (name, subscriber) in SUBSCRIBERS.into_iter().zip(std::mem::take(&mut self.subscribers)) {
            positions.insert(name, subscriber.positions);
        }
        let mut doubtful = Vec::new();
        for publisher in std::mem::take(&mut self.publishers) {
            let again = |sent: &Sent| sent.once && !self.refused.contains(&sent.number);
            doubtful.push(publisher.doubtful.into_iter().chain(publisher.sent).filter(again).collect());
        }
        let mut desk = Desk::new(&self.config);
        let (router, mut disk) = Disk::attach(desk.core.router);
        disk.take_over(&mut self.disk, desk.core.now, &router);
        (desk.core.router, self.disk) = (router, disk);
        self.desk = desk;
        self.check_disk();
        self.arrive(&mut positions, doubtful);
        // What was sent with `once` is sent again, in order, and is at most once in its log.
        for at in 0..self.publishers.len() {
            for sent in std::mem::take(&mut self.publishers[at].doubtful) {
                self.send_when_read(at, sent);
            }
        }
        for subscriber in &mut self.subscribers {
            // What comes again comes later than what has been sent since.
            subscriber.last.clear();
        }
    }

    /// Everything that was promised is on the disk, as far back as a log reaches, and each event is there at most once.
    fn check_disk(&self) {
        for (name, log) in &self.disk.logs {
            let number = |text: &str| serde_json::from_str::<Value>(text).unwrap()["data"].as_u64().unwrap();
            let kept: BTreeMap<u64, u64> = log.entries.iter().map(|(at, it)| (*at, number(&it.text))).collect();
            for ((channel, epoch, offset), number) in &self.promised {
                let is_kept = kept.first_key_value().is_some_and(|(first, _)| offset >= first);
                if **channel == *name.channel && **epoch == *log.epoch && is_kept {
                    assert_eq!(kept.get(offset), Some(number), "{name}: offset {offset} is lost");
                }
            }
            let mut once = BTreeSet::new();
            for number in kept.values() {
                assert!(!self.once.contains(number) || once.insert(number), "{name}: {number} is there twice");
                assert!(!self.refused.contains(number), "{name}: {number} was refused");
            }
        }
    }

    /// Everything comes to rest. What was promised is received.
    fn quiesce(&mut self) {
        self.disk.is_failing = false;
        for _ in 0..200 {
            self.commit();
            (0..PUBLISHERS.len()).for_each(|at| self.hear_publisher(at));
            (0..SUBSCRIBERS.len()).for_each(|at| drop(self.take(at)));
        }
        self.check_disk();
        for publisher in &self.publishers {
            assert!(publisher.client.connection.reads(), "nothing waits any more");
        }
        for (name, log) in &self.disk.logs {
            let Some((last, _)) = log.entries.last_key_value() else { continue };
            for subscriber in &self.subscribers {
                let position = subscriber.positions.get(&*name.channel);
                assert_eq!(position, Some(&(log.epoch.to_string(), *last)), "{name}");
            }
        }
    }
}

fn play(seed: u64) -> World {
    let mut world = World::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        (0..STEPS).for_each(|_| world.step());
        world.quiesce();
    }));
    assert!(outcome.is_ok(), "{}\nSIMULATION_SEED={seed} cargo nextest run commits", world.said);
    world
}

#[test]
fn every_promise_of_a_durable_channel_holds_in_every_world() {
    let from = |variable: &str| std::env::var(variable).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = from("SIMULATION_SEED") {
        drop(play(seed));
        return;
    }
    let (mut deaths, mut refused, mut from_disk, mut promised) = (0, 0, 0, 0);
    for seed in 0..from("SIMULATION_SEEDS").unwrap_or(SEEDS) {
        let world = play(seed);
        deaths += world.deaths;
        refused += world.refused.len();
        from_disk += world.from_disk;
        promised += world.promised.len();
    }
    assert!(
        deaths > 20 && refused > 20 && from_disk > 20 && promised > 1000,
        "{deaths} {refused} {from_disk} {promised}"
    );
}
