//! [`World`]: nodes, and what happens to them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{Content, Model, ensure};
use super::network::{Delivery, Nats, Weather};
use crate::cluster::bus::start;
use crate::cluster::seal::Head;
use crate::cluster::{Bus, BusEvent, BusSettings, Inbound, Incarnation, Keys, NodeId, PeerState, Seed};

const STEP: Duration = Duration::from_millis(10);

/// How long bad things happen, and how long the network is calm afterwards.
const STORM: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_secs(4);

/// Lines that a failure prints.
const LINES_MAX: usize = 80;

struct Node {
    name: NodeId,
    bus: Bus,
    /// Until then the process does not run. What arrives waits for it.
    frozen: Option<Instant>,
    waiting: Vec<Delivery>,
    /// Until then it has no connection to NATS.
    away: Option<Instant>,
    /// Until then it does not exist.
    dead: Option<Instant>,
    /// Messages sent to each incarnation.
    sent: BTreeMap<Incarnation, u64>,
}

/// Whether a bus has taken a message.
enum Sent {
    Yes,
    No,
}

pub(super) struct World {
    random: StdRng,
    start: Instant,
    now: Instant,
    nats: Nats,
    nodes: Vec<Node>,
    model: Model,
    link_bytes: usize,
    /// Bad things per step, of 1.
    trouble: f64,
    ids: u64,
    lines: VecDeque<String>,
    seen: BTreeMap<String, u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let weather = Weather::any(&mut random);
        let trouble = [0.005, 0.02][random.random_range(0..2)];
        Self::with(random, weather, trouble)
    }

    /// A world in which nothing bad happens.
    pub(super) fn calm(seed: u64) -> Self {
        Self::with(StdRng::seed_from_u64(seed), Weather::CALM, 0.0)
    }

    fn with(mut random: StdRng, weather: Weather, trouble: f64) -> Self {
        let now = start();
        let count = [3, 3, 3, 4, 5][random.random_range(0..5)];
        let link_bytes = if trouble > 0.0 { [8, 16, 64][random.random_range(0..3)] * 1024 } else { 1024 * 1024 };
        let mut world = Self {
            random,
            start: now,
            now,
            nats: Nats::new(weather),
            nodes: Vec::new(),
            model: Model::new(),
            link_bytes,
            trouble,
            ids: 0,
            lines: VecDeque::new(),
            seen: BTreeMap::new(),
        };
        for at in 0..count {
            let name = NodeId::new(&format!("node-{at}")).unwrap();
            let bus = world.bus(at, &name);
            let (waiting, sent) = (Vec::new(), BTreeMap::new());
            world.nodes.push(Node { name, bus, frozen: None, waiting, away: None, dead: None, sent });
        }
        world
    }

    /// Starts a process.
    fn bus(&mut self, at: usize, name: &NodeId) -> Bus {
        let settings = BusSettings {
            name: "test".to_owned(),
            node: name.clone(),
            keys: Keys::parse(&"01".repeat(32)).unwrap(),
            link_bytes: self.link_bytes,
            largest: 1024,
            digest: b"digest".to_vec(),
        };
        let mut bus = Bus::new(settings, Seed::Fixed(self.random.random()), self.now).without_ciphers();
        bus.connected(self.now, true);
        bus.say_live(self.now);
        self.nats.subscribe(at, &bus);
        self.model.born(self.now, at, bus.incarnation());
        bus
    }

    pub(super) fn run(&mut self) -> Result<(), String> {
        let storm = self.now + STORM;
        while self.now < storm {
            if self.random.random_bool(self.trouble) {
                self.trouble();
            }
            self.step()?;
        }
        self.nats.heal();
        for at in 0..self.nodes.len() {
            self.wake(at, true)?;
        }
        let end = self.now + SETTLE;
        while self.now < end {
            self.step()?;
        }
        self.check_settled()
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += STEP;
        for at in 0..self.nodes.len() {
            self.wake(at, false)?;
        }
        while let Some(delivery) = self.nats.arrived(self.now) {
            self.deliver(delivery)?;
        }
        for at in 0..self.nodes.len() {
            if self.runs(at) {
                self.run_node(at)?;
            }
        }
        Ok(())
    }

    fn runs(&self, at: usize) -> bool {
        self.nodes[at].frozen.is_none() && self.nodes[at].dead.is_none()
    }

    /// Ends what has lasted long enough, or everything.
    fn wake(&mut self, at: usize, all: bool) -> Result<(), String> {
        let now = self.now;
        let over = |until: &mut Option<Instant>| until.take_if(|until| all || now >= *until).is_some();
        if over(&mut self.nodes[at].dead) {
            let name = self.nodes[at].name.clone();
            let bus = self.bus(at, &name);
            self.say(&format!("{name} starts as {}", bus.incarnation()));
            let node = &mut self.nodes[at];
            (node.bus, node.frozen, node.away) = (bus, None, None);
            node.waiting.clear();
            node.sent.clear();
        }
        if over(&mut self.nodes[at].away) {
            self.nodes[at].bus.connected(now, true);
        }
        if over(&mut self.nodes[at].frozen) {
            self.say(&format!("{} goes on", self.nodes[at].name));
            for delivery in std::mem::take(&mut self.nodes[at].waiting) {
                self.deliver(delivery)?;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, delivery: Delivery) -> Result<(), String> {
        let node = &mut self.nodes[delivery.to];
        if node.dead.is_some() || node.away.is_some() {
            return Ok(());
        }
        if node.frozen.is_some() {
            node.waiting.push(delivery);
            return Ok(());
        }
        if let (Inbound::Node(me), Some(head)) = (delivery.inbound, Head::read(&delivery.payload)) {
            self.model.heard(self.now, me, head.from);
        }
        node.bus.receive(self.now, delivery.inbound, &delivery.payload);
        self.settle(delivery.to)
    }

    fn run_node(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        if self.nodes[at].bus.deadline().is_some_and(|deadline| deadline <= now) {
            self.nodes[at].bus.timeout(now);
            self.settle(at)?;
        }
        if self.random.random_bool(0.1) && self.now < self.start + STORM + SETTLE / 2 {
            self.send(at)?;
            self.settle(at)?;
        }
        let incarnation = self.nodes[at].bus.incarnation();
        self.model.ran(now, incarnation);
        while let Some(outbound) = self.nodes[at].bus.transmit(now) {
            ensure(outbound.payload.len() <= 1024, || format!("a packet of {} bytes", outbound.payload.len()))?;
            self.nats.publish(now, &mut self.random, at, &outbound);
        }
        self.model.look(now, &self.nodes[at].bus, self.link_bytes)
    }

    /// Takes the events of a node as its router would.
    fn settle(&mut self, at: usize) -> Result<(), String> {
        while let Some(event) = self.nodes[at].bus.event() {
            let me = self.nodes[at].bus.incarnation();
            self.note(at, &event);
            if let BusEvent::Paused { .. } = event {
                self.nodes[at].sent.clear();
                self.nats.subscribe(at, &self.nodes[at].bus);
                self.model.born_again(self.now, at, me);
            }
            self.model.happened(self.now, me, &event).map_err(|broken| format!("{event:?} at {me}: {broken}"))?;
            if let BusEvent::SnapshotWanted { node } = &event {
                // The peer may be lost by now.
                self.message(at, node, None)?;
            }
        }
        Ok(())
    }

    /// Sends some messages to one peer. Now and then they exceed the window.
    fn send(&mut self, at: usize) -> Result<(), String> {
        let peers: Vec<NodeId> = self.nodes[at].bus.peers().map(|peer| peer.node.clone()).collect();
        let Some(peer) = peers.get(self.random.random_range(0..peers.len().max(1))) else { return Ok(()) };
        let many = self.trouble > 0.0 && self.random.random_bool(0.01);
        let count = self.random.random_range(1..if many { 200 } else { 8 });
        for _ in 0..count {
            let length = if self.random.random_bool(0.05) { 3000 } else { self.random.random_range(0..200) };
            if let Sent::No = self.message(at, peer, Some(length))? {
                break;
            }
        }
        Ok(())
    }

    /// Sends a message, or a snapshot.
    fn message(&mut self, at: usize, peer: &NodeId, length: Option<usize>) -> Result<Sent, String> {
        self.ids += 1;
        let node = &mut self.nodes[at];
        let view = node.bus.peers().find(|view| view.node == peer);
        let Some(to) = view.map(|view| view.incarnation) else { return Ok(Sent::No) };
        let sent = node.sent.get(&to).copied().unwrap_or_default();
        let is_snapshot = length.is_none();
        let sequence = if is_snapshot { sent } else { sent + 1 };
        let content = Content { from: node.bus.incarnation(), to, sequence, is_snapshot, id: self.ids };
        let number = match length {
            None => {
                let length = if self.random.random_bool(0.3) { 2500 } else { 100 };
                node.bus.snapshot(self.now, peer, content.write(length))
            }
            Some(length) => node.bus.send(self.now, peer, content.write(length.max(Content::BYTES))),
        };
        let Ok(number) = number else { return Ok(Sent::No) };
        node.sent.insert(to, sequence);
        self.model.sent(self.now, &content, number).map(|()| Sent::Yes)
    }

    /// Makes something bad happen.
    fn trouble(&mut self) {
        let at = self.random.random_range(0..self.nodes.len());
        let until = self.now + Duration::from_millis(self.random.random_range(50..3500));
        let name = self.nodes[at].name.clone();
        let span = until - self.now;
        match self.random.random_range(0..16) {
            0 | 1 if self.runs(at) => {
                self.say(&format!("{name} is frozen for {span:?}"));
                self.nodes[at].frozen = Some(until);
            }
            2 if self.nodes[at].dead.is_none() => {
                self.say(&format!("{name} dies for {span:?}"));
                self.nodes[at].dead = Some(until);
            }
            3 | 4 if self.runs(at) && self.nodes[at].away.is_none() => {
                self.say(&format!("{name} has no connection for {span:?}"));
                self.nodes[at].away = Some(until);
                self.nodes[at].bus.connected(self.now, false);
            }
            5..=7 => {
                let to = self.random.random_range(0..self.nodes.len());
                self.say(&format!("nothing passes from {name} to node-{to} for {span:?}"));
                self.nats.cut(at, to, until);
            }
            8 | 9 => {
                self.say(&format!("{name} is cut off for {span:?}"));
                for other in 0..self.nodes.len() {
                    self.nats.cut(at, other, until);
                    self.nats.cut(other, at, until);
                }
            }
            10 if self.runs(at) => {
                self.nodes[at].bus.digest_changed(self.now, vec![self.random.random(); 10]);
            }
            _ => self.nats.replay(self.now, &mut self.random),
        }
    }

    /// After a calm time, everybody has a link with everybody, and holds everything.
    fn check_settled(&mut self) -> Result<(), String> {
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            let peers: Vec<_> = node.bus.peers().collect();
            ensure(peers.len() == self.nodes.len() - 1, || format!("{} has {} peers", node.name, peers.len()))?;
            for peer in peers {
                let other = self.nodes.iter().find(|it| it.name == *peer.node).ok_or("a peer that does not exist")?;
                let linked = peer.state == PeerState::Linked && peer.incarnation == other.bus.incarnation();
                ensure(linked && peer.window_bytes == 0, || format!("{} sees {peer:?}", node.name))?;
                let sent = node.sent.get(&peer.incarnation).copied().unwrap_or_default();
                self.model.holds_all(peer.incarnation, &node.name, sent)?;
            }
        }
        for node in &self.nodes {
            let counts = node.bus.counts();
            let seen = [("resent", counts.parts_resent), ("repeated", counts.repeated)];
            for (what, count) in seen.into_iter().filter(|(_, count)| *count > 0) {
                *self.seen.entry(what.to_owned()).or_default() += count;
            }
        }
        Ok(())
    }

    /// Counts an event, and keeps it for a failure.
    fn note(&mut self, at: usize, event: &BusEvent) {
        let what = match event {
            BusEvent::Broken { why, .. } => format!("{why:?}"),
            BusEvent::Lost { why, .. } => format!("{why:?}"),
            BusEvent::Message { message, .. } if message.len() > 1024 => "several".to_owned(),
            other => format!("{other:?}").chars().take_while(|it| it.is_alphanumeric()).collect(),
        };
        *self.seen.entry(what).or_default() += 1;
        if !matches!(event, BusEvent::Message { .. } | BusEvent::Acknowledged { .. }) {
            let text = format!("{event:?}");
            let text: String = text.split("since").next().unwrap_or_default().chars().take(100).collect();
            self.say(&format!("{}: {text}", self.nodes[at].name));
        }
    }

    fn say(&mut self, line: &str) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:?} {line}", self.now - self.start));
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// How often each event has happened.
    pub(super) fn seen(&self) -> &BTreeMap<String, u64> {
        &self.seen
    }
}
