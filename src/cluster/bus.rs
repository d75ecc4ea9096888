//! [`Bus`]: all peers of a node and their timers.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::{
    BusCounts, BusEvent, BusSettings, Inbound, Incarnation, NoLink, NodeId, Number, Outbound, PeerView, Seed,
    beats_subject, node_subject,
};

/// The links of this node with all others. The page of the room says what it promises.
#[derive(Debug)]
pub struct Bus {
    settings: BusSettings,
    incarnation: Incarnation,
    events: VecDeque<BusEvent>,
    counts: BusCounts,
}

impl Bus {
    /// Returns a starting node that has no peers yet. `now` is a monotonic clock that includes suspension
    /// (`CLOCK_BOOTTIME`), here and everywhere.
    #[must_use]
    pub fn new(settings: BusSettings, _seed: Seed, _now: Instant) -> Self {
        Self { settings, incarnation: Incarnation([0; 16]), events: VecDeque::new(), counts: BusCounts::default() }
    }

    /// Returns this node's incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Returns the subject of the link messages to this incarnation. It changes with [`BusEvent::Paused`].
    #[must_use]
    pub fn node_subject(&self) -> String {
        node_subject(&self.settings.name, &self.settings.node, self.incarnation)
    }

    /// Returns the subject of the beats of all nodes.
    #[must_use]
    pub fn beats_subject(&self) -> String {
        beats_subject(&self.settings.name)
    }

    /// Says how large a NATS message may be from now on.
    pub fn set_largest(&mut self, bytes: usize) {
        self.settings.largest = bytes;
    }

    /// Takes a NATS message. Take all events before the next one.
    pub fn receive(&mut self, _now: Instant, _subject: Inbound, _bytes: &[u8]) {}

    /// Says whether NATS is connected. While it is not, [`Bus::transmit`] returns nothing, and the windows are the only
    /// queue.
    pub fn connected(&mut self, _now: Instant, _connected: bool) {}

    /// Returns the next message to give to NATS.
    pub fn transmit(&mut self, _now: Instant) -> Option<Outbound> {
        None
    }

    /// Returns what happened next.
    pub fn event(&mut self) -> Option<BusEvent> {
        self.events.pop_front()
    }

    /// Returns when [`Bus::timeout`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Fires the timers that are due. Give what has already arrived to [`Bus::receive`] first.
    pub fn timeout(&mut self, _now: Instant) {}

    /// Queues a message for a peer, and returns its number.
    pub fn send(&mut self, _now: Instant, _node: &NodeId, _message: Bytes) -> Result<Number, NoLink> {
        Err(NoLink::Down)
    }

    /// Answers [`BusEvent::SnapshotWanted`] with everything that this node announces.
    pub fn snapshot(&mut self, _now: Instant, _node: &NodeId, _message: Bytes) -> Result<Number, NoLink> {
        Err(NoLink::Down)
    }

    /// Returns the last number that a peer has acknowledged.
    #[must_use]
    pub fn acknowledged(&self, _node: &NodeId) -> Option<Number> {
        None
    }

    /// Returns the peers, sorted by name.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        std::iter::empty()
    }

    /// Returns the version of the link protocol that the cluster speaks: the lowest highest one.
    #[must_use]
    pub fn version(&self) -> u8 {
        super::VERSIONS.highest
    }

    /// Replaces the digest.
    pub fn digest_changed(&mut self, _now: Instant, digest: Vec<u8>) {
        self.settings.digest = digest;
    }

    /// Says in every beat from now on that this node accepts sessions.
    pub fn say_live(&mut self, _now: Instant) {}

    /// Returns what was counted so far.
    #[must_use]
    pub fn counts(&self) -> BusCounts {
        self.counts
    }
}
