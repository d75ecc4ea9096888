//! [`World`]: three nodes, and what happens to them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::Session;

use super::model::{Held, Model};
use super::node::Node;
use crate::cluster::network::{Nats, Weather};
use crate::support::core::event;

const NODES: usize = 3;
const STEP: Duration = Duration::from_millis(10);

/// How long bad things happen, and how long the network is calm before and afterwards.
const STORM: Duration = Duration::from_secs(5);
const BEGIN: Duration = Duration::from_millis(1500);
const SETTLE: Duration = Duration::from_secs(6);

/// Lines that a failure prints.
const LINES_MAX: usize = 120;

pub(super) struct World {
    random: StdRng,
    start: Instant,
    now: Instant,
    nats: Nats,
    nodes: Vec<Node>,
    model: Model,
    /// Bad things per step, of 1.
    trouble: f64,
    /// Requests that a handler answers later: its node, the request's id, and when.
    unanswered: Vec<(usize, String, Instant)>,
    /// Sessions that leave again, and their nodes.
    comers: Vec<(usize, Arc<Session>)>,
    count: u64,
    lines: VecDeque<String>,
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

    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter")]
    fn with(mut random: StdRng, weather: Weather, trouble: f64) -> Self {
        let start = Instant::now();
        let link_bytes = if trouble > 0.0 { [32, 256][random.random_range(0..2)] << 10 } else { 1 << 20 };
        let shared = Channel { scope: Scope::Shared, ..Channel::default() };
        let config = Config { channels: HashMap::from([("Queue".to_owned(), shared)]), ..Config::default() };
        let mut nats = Nats::new(Weather::CALM);
        let nodes: Vec<_> = (0..NODES).map(|number| Node::new(start, number, link_bytes, &config)).collect();
        for (at, node) in nodes.iter().enumerate() {
            node.bus(|bus| nats.subscribe(at, bus));
        }
        let mut world = Self {
            random,
            start,
            now: start,
            nats,
            nodes,
            model: Model::default(),
            trouble,
            unanswered: Vec::new(),
            comers: Vec::new(),
            count: 0,
            lines: VecDeque::new(),
        };
        world.begin(weather);
        world
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    pub(super) fn seen(&self) -> &BTreeMap<&'static str, u64> {
        self.model.seen()
    }

    fn note(&mut self, line: &str) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        let at = self.now.saturating_duration_since(self.start);
        self.lines.push_back(format!("{:>7.3} {line}", at.as_secs_f64()));
    }

    /// Lets the nodes find each other on a calm network. What applications were told until then does not count.
    fn begin(&mut self, weather: Weather) {
        let until = self.now + BEGIN;
        while self.now < until {
            self.pass(STEP);
        }
        for at in 0..NODES {
            let Node { core, cast, .. } = &self.nodes[at];
            for session in [&cast.phone, &cast.crm, &cast.board, &cast.worker, &cast.handler] {
                core.take(session);
                // A session is not told of itself.
                self.model.known(&session.id().to_string(), at, NODES);
            }
        }
        self.nats.weather = weather;
    }

    pub(super) fn run(&mut self) -> Held {
        let storm = self.now + STORM;
        while self.now < storm {
            if self.random.random_bool(self.trouble) {
                self.trouble();
            }
            self.act()?;
            self.step()?;
        }
        self.nats.heal();
        let rest = self.now + SETTLE;
        while self.now < rest {
            self.step()?;
        }
        for at in 0..NODES {
            self.publish(at);
        }
        let rest = self.now + Duration::from_secs(2);
        while self.now < rest {
            self.step()?;
        }
        self.model.at_rest(NODES)
    }

    /// Something bad happens.
    fn trouble(&mut self) {
        let at = self.random.random_range(0..NODES);
        let other = (at + self.random.random_range(1..NODES)) % NODES;
        let until = self.now + Duration::from_millis([100, 600, 1200, 2600, 3500][self.random.random_range(0..5)]);
        match self.random.random_range(0..6) {
            0 => {
                self.nodes[at].frozen = Some(until);
                self.note(&format!("node {at} freezes for {:?}", until - self.now));
            }
            1 => {
                self.nats.cut(at, other, until);
                self.note(&format!("nothing passes from node {at} to {other} for {:?}", until - self.now));
            }
            2 => {
                self.nats.cut(at, other, until);
                self.nats.cut(other, at, until);
                self.note(&format!("nothing passes between nodes {at} and {other} for {:?}", until - self.now));
            }
            3 => {
                (0..NODES).for_each(|other| {
                    self.nats.cut(at, other, until);
                    self.nats.cut(other, at, until);
                });
                self.note(&format!("node {at} is cut off for {:?}", until - self.now));
            }
            4 => {
                let node = &mut self.nodes[at];
                node.away = Some(until);
                if node.frozen.is_none() {
                    let now = self.now;
                    node.bus(|bus| bus.connected(now, false));
                }
                self.note(&format!("node {at} has no connection for {:?}", until - self.now));
            }
            _ => self.nats.replay(self.now, &mut self.random),
        }
    }

    /// The applications of the nodes that run do something.
    fn act(&mut self) -> Held {
        for at in 0..NODES {
            if self.nodes[at].frozen.is_some() {
                continue;
            }
            match self.random.random_range(0..12) {
                0..3 => self.publish(at),
                3 => self.ask(at)?,
                4 => self.job(at),
                5 => self.come_or_leave(at),
                _ => {}
            }
        }
        Ok(())
    }

    fn publish(&mut self, at: usize) {
        let number = self.model.publish(self.now.saturating_duration_since(self.start), at);
        let more = format!(r#","data":{{"node":{at},"number":{number}}}"#);
        self.send(at, &Arc::clone(&self.nodes[at].cast.phone), &event("Calls/Call/Ringing", &more)).unwrap();
    }

    fn job(&mut self, at: usize) {
        let job = self.model.job();
        let more = format!(r#","data":{{"job":{job}}}"#);
        self.send(at, &Arc::clone(&self.nodes[at].cast.phone), &event("Queue/Job/New", &more)).unwrap();
    }

    fn ask(&mut self, at: usize) -> Held {
        self.count += 1;
        let id = format!("r{}", self.count);
        let (idempotent, gather) = (self.random.random_bool(0.3), self.random.random_bool(0.2));
        self.model.ask(&id, at, idempotent || gather);
        let flag = |name: &str, is_set| if is_set { format!(r#","{name}":true"#) } else { String::new() };
        let (idempotent, gather) = (flag("idempotent", idempotent), flag("gather", gather));
        let more = format!(r#","id":"{id}","timeout":1500{idempotent}{gather}"#);
        match self.send(at, &Arc::clone(&self.nodes[at].cast.phone), &event("Calls/Call/Dial", &more)) {
            Ok(()) => Ok(()),
            Err(code) => {
                self.note(&format!("node {at} refuses {id}: {code}"));
                self.model.answer(&id, at, false, true)
            }
        }
    }

    fn come_or_leave(&mut self, at: usize) {
        let leaves = self.comers.iter().position(|(node, _)| *node == at).filter(|_| self.random.random_bool(0.5));
        match leaves {
            Some(place) => {
                let (_, session) = self.comers.remove(place);
                self.note(&format!("{} leaves node {at}", session.id()));
                self.model.left(&session.id().to_string());
                self.nodes[at].core.router.detach(self.now, &session);
            }
            None => {
                let session = self.nodes[at].core.attach("comer", Some("alice"));
                self.note(&format!("{} joins node {at}", session.id()));
                self.model.joined(&session.id().to_string(), at);
                self.comers.push((at, session));
            }
        }
    }

    fn send(&mut self, at: usize, session: &Arc<Session>, text: &str) -> Result<(), &'static str> {
        self.nodes[at].core.send(session, text).map(drop).map_err(|denied| denied.refusal.code.as_str())
    }

    /// Time passes, and what was told is looked at.
    fn step(&mut self) -> Held {
        self.pass(STEP);
        for at in 0..NODES {
            if self.nodes[at].frozen.is_none() {
                self.look(at)?;
            }
        }
        let (due, later) = std::mem::take(&mut self.unanswered).into_iter().partition(|(_, _, at)| *at <= self.now);
        self.unanswered = later;
        let due: Vec<(usize, String, Instant)> = due;
        for (at, id, _) in due {
            if self.nodes[at].frozen.is_none() {
                self.reply(at, &id);
            }
        }
        Ok(())
    }

    /// A handler answers. It may be too late.
    fn reply(&mut self, at: usize, id: &str) {
        let text = event("Calls/Call/Dial", &format!(r#","inReplyTo":"{id}""#));
        self.send(at, &Arc::clone(&self.nodes[at].cast.handler), &text).ok();
    }

    /// Time passes: messages arrive, timers fire, nodes transmit.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        while let Some(delivery) = self.nats.arrived(self.now) {
            self.nodes[delivery.to].waiting.push(delivery);
        }
        for at in 0..NODES {
            let now = self.now;
            let node = &mut self.nodes[at];
            if node.frozen.is_some_and(|until| now < until) {
                continue;
            }
            node.set_now(now);
            node.frozen = None;
            if node.away.is_some_and(|until| now >= until) {
                node.away = None;
                node.bus(|bus| bus.connected(now, true));
            } else if node.away.is_some() {
                node.bus(|bus| bus.connected(now, false));
                // What was sent to it meanwhile is lost.
                node.waiting.clear();
            }
            for delivery in std::mem::take(&mut node.waiting) {
                self.nodes[at].receive(delivery.inbound, &delivery.payload);
                self.happen(at);
            }
            self.nodes[at].fire();
            self.happen(at);
            while let Some(outbound) = self.nodes[at].transmit() {
                self.nats.publish(now, &mut self.random, at, &outbound);
            }
        }
    }

    fn happen(&mut self, at: usize) {
        while let Some(what) = self.nodes[at].happened() {
            if what == "Paused" {
                let Self { nodes, nats, .. } = self;
                nodes[at].bus(|bus| nats.subscribe(at, bus));
            }
            if !matches!(what, "Acknowledged" | "Message" | "Peer") {
                self.model.count(what);
                self.note(&format!("node {at}: {what}"));
            }
        }
    }

    /// Looks at what the applications of a node were told.
    fn look(&mut self, at: usize) -> Held {
        let cast = &self.nodes[at].cast;
        let [phone, crm, board, worker, handler] =
            [&cast.phone, &cast.crm, &cast.board, &cast.worker, &cast.handler].map(Arc::clone);
        for (name, session) in [("crm", &crm), ("board", &board)] {
            for told in self.nodes[at].core.take(session) {
                self.told(at, name, &told)?;
            }
        }
        for told in self.nodes[at].core.take(&phone) {
            let Some(id) = told["inReplyTo"].as_str() else { continue };
            self.note(&format!("node {at} is told {told}"));
            let is_failure = told["data"]["ErrorCode"].is_string();
            self.model.answer(id, at, told["more"] == true, is_failure)?;
        }
        for told in self.nodes[at].core.take(&worker) {
            self.model.worked(number(&told["data"]["job"]))?;
        }
        for told in self.nodes[at].core.take(&handler) {
            self.handle(at, &told)?;
        }
        let comers: Vec<_> = self.comers.iter().filter(|(node, _)| *node == at).map(|(_, it)| Arc::clone(it)).collect();
        for comer in comers {
            self.nodes[at].core.take(&comer);
        }
        Ok(())
    }

    /// A receiver of events is told something.
    fn told(&mut self, at: usize, name: &'static str, told: &Value) -> Held {
        match (told["topic"].as_str().unwrap(), told["subtopic"].as_str().unwrap()) {
            ("Call", "Ringing") => {
                let data = &told["data"];
                self.model.event((at, name), number(&data["node"]), number(&data["number"]))
            }
            ("Cluster", "Gap") => {
                let since = humantime::parse_rfc3339(told["data"]["Since"].as_str().unwrap()).unwrap();
                let since = since.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
                self.note(&format!("{name} of node {at} is told of a gap since {since:?}"));
                self.model.gap((at, name), since, NODES);
                Ok(())
            }
            ("Application", change) => {
                let session = told["data"]["SessionId"].as_str().unwrap();
                self.note(&format!("{name} of node {at} is told: {session} {change}"));
                self.model.presence(at, session, change == "Joined")
            }
            _ => Err(format!("{name} of node {at} is told {told}")),
        }
    }

    /// A handler gets a request, or is told that it was cancelled.
    fn handle(&mut self, at: usize, told: &Value) -> Held {
        if told["channel"] == "Broker" {
            return Ok(());
        }
        self.model.given(told["requestId"].as_str().unwrap())?;
        let id = told["id"].as_str().unwrap().to_owned();
        match self.random.random_range(0..10) {
            0 => {}
            1..4 => {
                let at_time = self.now + Duration::from_millis(self.random.random_range(10..2500));
                self.unanswered.push((at, id, at_time));
            }
            _ => self.reply(at, &id),
        }
        Ok(())
    }
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}
