//! Nodes on a network that does what a test says.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::start;
use crate::cluster::{Bus, BusEvent, BusSettings, Inbound, Keys, NoLink, NodeId, Number, Outbound, PeerState, Seed};

pub(super) const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
pub(super) const OTHER_KEY: &str = "0202020202020202020202020202020202020202020202020202020202020202";

/// The window of each link.
pub(super) const LINK_BYTES: usize = 8 * 1024;

const STEP: Duration = Duration::from_millis(10);

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// Nodes on a NATS that delivers everything at once, but for what the test holds back.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) buses: Vec<Bus>,
    pub(super) events: Vec<Vec<BusEvent>>,
    /// Pairs of sender and receiver between which nothing is delivered.
    pub(super) cut: Vec<(usize, usize)>,
    pub(super) frozen: Vec<usize>,
    /// The length of every snapshot.
    pub(super) snapshot_bytes: usize,
    /// Everything that was published, with the number of the sender.
    pub(super) published: Vec<(usize, Outbound)>,
}

impl Net {
    pub(super) fn new(nodes: &[(&str, &str)]) -> Self {
        let mut net = Self {
            now: start(),
            buses: Vec::new(),
            events: Vec::new(),
            cut: Vec::new(),
            frozen: Vec::new(),
            snapshot_bytes: 10,
            published: Vec::new(),
        };
        for (name, keys) in nodes {
            net.add(name, keys);
        }
        net
    }

    /// Two live nodes with a link.
    pub(super) fn pair() -> Self {
        let mut net = Self::new(&[("a", KEY), ("b", KEY)]);
        net.buses.iter_mut().for_each(|bus| bus.say_live(net.now));
        net.pass(ms(100));
        assert_eq!(net.state(0, "b"), Some(PeerState::Linked));
        assert_eq!(net.state(1, "a"), Some(PeerState::Linked));
        net.events.iter_mut().for_each(Vec::clear);
        net
    }

    fn add(&mut self, name: &str, keys: &str) {
        let settings = BusSettings {
            name: "test".to_owned(),
            node: node(name),
            keys: Keys::parse(keys).unwrap(),
            link_bytes: LINK_BYTES,
            largest: 1024,
            digest: name.as_bytes().to_vec(),
        };
        let seed = 1000 * self.buses.len() as u64 + u64::from(name.as_bytes()[0]);
        let mut bus = Bus::new(settings, Seed::Fixed(seed), self.now);
        bus.connected(self.now, true);
        self.buses.push(bus);
        self.events.push(Vec::new());
    }

    /// Lets time pass, with everything that happens in it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for at in 0..self.buses.len() {
                if !self.frozen.contains(&at) {
                    self.buses[at].timeout(self.now);
                    self.settle(at);
                }
            }
            self.exchange();
        }
    }

    /// Delivers until nobody has anything to send.
    pub(super) fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..self.buses.len() {
                while !self.frozen.contains(&at)
                    && let Some(outbound) = self.buses[at].transmit(self.now)
                {
                    quiet = false;
                    self.published.push((at, outbound.clone()));
                    self.deliver(at, &outbound);
                }
            }
            if quiet {
                break;
            }
        }
    }

    pub(super) fn deliver(&mut self, from: usize, outbound: &Outbound) {
        for to in 0..self.buses.len() {
            let inbound = self.inbound(to, &outbound.subject);
            if let Some(inbound) = inbound.filter(|_| !self.cut.contains(&(from, to)) && !self.frozen.contains(&to)) {
                self.buses[to].receive(self.now, inbound, &outbound.payload);
                self.settle(to);
            }
        }
    }

    pub(super) fn inbound(&self, at: usize, subject: &str) -> Option<Inbound> {
        let bus = &self.buses[at];
        match subject {
            _ if subject == bus.beats_subject() => Some(Inbound::Beats),
            _ if subject == bus.node_subject() => Some(Inbound::Node(bus.incarnation())),
            _ => None,
        }
    }

    /// Takes the events, and gives the snapshots that are wanted.
    pub(super) fn settle(&mut self, at: usize) {
        while let Some(event) = self.buses[at].event() {
            if let BusEvent::SnapshotWanted { node } = &event {
                // The peer may be lost by now.
                self.buses[at].snapshot(self.now, node, vec![0; self.snapshot_bytes].into()).ok();
            }
            self.events[at].push(event);
        }
    }

    pub(super) fn send(&mut self, from: usize, to: &str, message: &[u8]) -> Result<Number, NoLink> {
        let sent = self.buses[from].send(self.now, &node(to), Bytes::copy_from_slice(message));
        self.settle(from);
        sent
    }

    pub(super) fn state(&self, at: usize, peer: &str) -> Option<PeerState> {
        self.buses[at].peers().find(|view| view.node == &node(peer)).map(|view| view.state)
    }

    /// The events of a node since the last call, a word each.
    pub(super) fn words(&mut self, at: usize) -> Vec<String> {
        self.events[at].drain(..).map(|event| word(&event)).filter(|word| !word.is_empty()).collect()
    }
}

fn word(event: &BusEvent) -> String {
    match event {
        BusEvent::PeerFound { node, live, .. } => format!("found {node}{}", if *live { "" } else { ", starting" }),
        BusEvent::PeerChanged { node, live, .. } => format!("changed {node}{}", if *live { "" } else { ", starting" }),
        BusEvent::SnapshotWanted { node } => format!("wanted by {node}"),
        BusEvent::Snapshot { node, .. } => format!("snapshot of {node}"),
        BusEvent::Message { message, .. } => String::from_utf8_lossy(message).into_owned(),
        BusEvent::Acknowledged { .. } => String::new(),
        BusEvent::Broken { node, why, .. } => format!("broken {node}: {why:?}"),
        BusEvent::Lost { node, why, .. } => format!("lost {node}: {why:?}"),
        BusEvent::Paused { .. } => "paused".to_owned(),
        BusEvent::CutOff => "cut off".to_owned(),
        BusEvent::Restored => "restored".to_owned(),
        BusEvent::NameShared { .. } => "name shared".to_owned(),
        BusEvent::KeysApart { node, .. } => {
            format!("keys apart from {}", node.as_ref().map_or("another node", NodeId::as_str))
        }
        BusEvent::Refused(refusal) => format!("refused: {refusal:?}"),
    }
}
