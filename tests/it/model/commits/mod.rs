//! A broker with durable channels whose disk is played: commits come late or fail, the broker dies and starts again with what
//! is on disk, connections are lost and resumed, events are read from the disk. After each step the promises of
//! docs/protocol.md, "Durable channels", are compared with what was sent and received.
//!
//! A failure prints its seed and what happened; `SIMULATION_SEED=7 cargo nextest run commits` plays it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Waker};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use switchboard::config::{Channel, Config, LogBounds, Scope};
use switchboard::connection::Input;
use switchboard::router::Batch;

use crate::support::client::{Client, Desk};
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

/// An event that a publisher sends.
#[derive(Clone, Debug)]
struct Sent {
    channel: &'static str,
    number: u64,
    once: bool,
}

impl Sent {
    fn text(&self) -> String {
        let Self { channel, number, once } = self;
        let once = if *once { r#","once":true"# } else { "" };
        format!(r#"{{"channel":"{channel}","topic":"Call","subtopic":"Ring","id":"{number}","data":{number}{once}}}"#)
    }
}

struct Publisher {
    client: Client,
    /// What it has sent in this session, and for which the broker has not said yet whether it took it in.
    sent: Vec<Sent>,
    /// What its session has sent in all.
    count: u64,
    /// What became of it is unknown, since the broker has died. It is sent again if `once` allows that.
    doubtful: Vec<Sent>,
}

struct Subscriber {
    client: Client,
    /// The last number that came live, by publisher.
    last: BTreeMap<String, u64>,
    /// The last position that it has of each durable channel.
    positions: BTreeMap<&'static str, (String, u64)>,
    /// The offsets of each channel that came in this session.
    seen: BTreeSet<(String, String, u64)>,
}

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

    /// Subscribes, from the last position on. Waits for the disk if that is needed.
    fn subscribe(&mut self, at: usize, channel: &'static str) {
        let subscriber = &mut self.subscribers[at];
        let mut data = json!({"channel": channel, "topic": "*", "subtopic": "*"});
        if DURABLE.contains(&channel) {
            data["recover"] = match subscriber.positions.get(channel) {
                Some((epoch, offset)) => json!({ "epoch": epoch, "offset": offset }),
                None => json!({ "last": 1000 }),
            };
        }
        self.subscribers[at].client.command(&self.desk, "Subscription", "Subscribe", &data);
        let mut replies = Vec::new();
        // Nothing else is read before all that is replayed was taken.
        while replies.is_empty() || !self.subscribers[at].client.connection.reads() {
            self.read_disk(at);
            replies.extend(self.take(at));
        }
        let data = &replies[0]["data"];
        assert_eq!(data["Success"], true, "{data}");
        if data["Recovered"] == false {
            let position = (data["Epoch"].as_str().unwrap().to_owned(), data["Offset"].as_u64().unwrap());
            self.subscribers[at].positions.insert(channel, position);
        }
    }

    /// Reads what is asked of the disk, and lets a connection go on. Reading does not fail here.
    fn read_disk(&mut self, at: usize) {
        let is_failing = std::mem::replace(&mut self.disk.is_failing, false);
        self.from_disk += self.disk.read_some(&self.desk.core.router);
        self.disk.is_failing = is_failing;
        let cx = &mut Context::from_waker(Waker::noop());
        let client = &mut self.subscribers[at].client;
        if client.connection.poll_look(cx).is_ready() {
            client.handle(&self.desk, Input::Looked);
        }
        if client.connection.poll_pause(cx).is_ready() {
            client.handle(&self.desk, Input::Relieved);
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

    fn publish(&mut self, at: usize) {
        self.hear_publisher(at);
        if !self.publishers[at].client.connection.reads() {
            return;
        }
        let channel = CHANNELS[self.chance.random_range(0..CHANNELS.len())];
        self.number += 1;
        let once = channel != "Other" && self.chance.random();
        let sent = Sent { channel, number: self.number, once };
        if once {
            self.once.insert(sent.number);
        }
        self.send(at, sent);
    }

    fn send(&mut self, at: usize, sent: Sent) {
        self.note(&format!("{} > {sent:?}", PUBLISHERS[at]));
        let publisher = &mut self.publishers[at];
        publisher.client.say(&self.desk, &sent.text());
        publisher.sent.push(sent);
        publisher.count += 1;
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

    /// A publisher's connection is lost, and it returns. What was not taken in is sent again.
    fn lose(&mut self, at: usize) {
        self.hear_publisher(at);
        self.note(&format!("{} resumes", PUBLISHERS[at]));
        let publisher = &mut self.publishers[at];
        if self.chance.random() {
            publisher.client.lose(&self.desk);
        }
        let reply = publisher.client.resume(&self.desk);
        assert_eq!(reply["Resumed"], true, "{reply}");
        let missing = publisher.count - reply["Received"].as_u64().unwrap();
        publisher.count -= missing;
        let kept = publisher.sent.len() - usize::try_from(missing).unwrap();
        for sent in publisher.sent.split_off(kept) {
            self.send_when_read(at, sent);
        }
    }

    /// A publisher learns what became of its events.
    fn hear_publisher(&mut self, at: usize) {
        let publisher = &mut self.publishers[at];
        publisher.client.poll_commits(&self.desk);
        for answer in publisher.client.take(&self.desk, 1000) {
            let number: u64 = answer["inReplyTo"].as_str().unwrap().parse().unwrap();
            let place = publisher.sent.iter().position(|sent| sent.number == number);
            let sent = publisher.sent[place.expect("an answer to something that it sent")].clone();
            match answer["subtopic"].as_str().unwrap() {
                "Receipt" if DURABLE.contains(&sent.channel) => {
                    let data = &answer["data"];
                    let key = (
                        sent.channel.to_owned(),
                        data["Epoch"].as_str().unwrap().to_owned(),
                        data["Offset"].as_u64().unwrap(),
                    );
                    self.promised.insert(key, number);
                }
                "Receipt" => {}
                _ => {
                    assert_eq!(answer["data"]["ErrorCode"], "STORAGE_UNAVAILABLE", "{answer}");
                    assert_ne!(sent.channel, "Other", "it need not be on disk");
                    self.refused.insert(number);
                }
            }
        }
    }

    /// A subscriber takes what waits for it. Returns the answers to its commands.
    fn take(&mut self, at: usize) -> Vec<Value> {
        let subscriber = &mut self.subscribers[at];
        let mut received = Vec::new();
        loop {
            let more = subscriber.client.take(&self.desk, 1000);
            if more.is_empty() {
                break;
            }
            received.extend(more);
        }
        for event in received.iter().filter(|event| event["channel"] != "Broker") {
            let (number, source) = (event["data"].as_u64().unwrap(), event["source"].as_str().unwrap().to_owned());
            let name = event["channel"].as_str().unwrap();
            assert!(!self.refused.contains(&number), "{event} was refused");
            if event["replayed"] != true {
                let last = subscriber.last.insert(source, number);
                assert!(last.is_none_or(|last| last < number), "{event} came after {last:?}");
            }
            let Some(channel) = DURABLE.into_iter().find(|channel| *channel == name) else { continue };
            let (epoch, offset) = (event["epoch"].as_str().unwrap().to_owned(), event["offset"].as_u64().unwrap());
            assert!(subscriber.seen.insert((name.to_owned(), epoch.clone(), offset)), "{event} came twice");
            if let Some((known, last)) = subscriber.positions.insert(channel, (epoch.clone(), offset)) {
                assert!(known != epoch || last + 1 == offset, "{event} came after {last}");
            }
            let log = self.disk.logs.iter().find(|(log, _)| *log.channel == *name).map(|(_, log)| log);
            let log = log.filter(|log| *log.epoch == *epoch).expect("a log that is on disk");
            let first = log.entries.first_key_value().map_or(0, |(first, _)| *first);
            assert!(offset < first || log.entries.contains_key(&offset), "{event} is not on disk");
            self.promised.insert((name.to_owned(), epoch, offset), number);
        }
        self.note(&format!("{} < {} messages", SUBSCRIBERS[at], received.len()));
        received.into_iter().filter(|it| it["subtopic"] == "Subscribe").collect()
    }

    /// A subscriber's connection is lost, and it resumes.
    fn return_subscriber(&mut self, at: usize) {
        let subscriber = &mut self.subscribers[at];
        subscriber.client.lose(&self.desk);
        let reply = subscriber.client.resume(&self.desk);
        assert_eq!(reply["Resumed"], true, "{reply}");
        self.note(&format!("{} resumes", SUBSCRIBERS[at]));
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

    /// Sends as soon as the connection is read.
    fn send_when_read(&mut self, at: usize, sent: Sent) {
        while !self.publishers[at].client.connection.reads() {
            self.commit();
        }
        self.send(at, sent);
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
