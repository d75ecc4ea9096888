//! [`Model`]: what must hold, by plain lists of what was sent and what has arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};

use crate::cluster::{Bus, BusEvent, Incarnation, NodeId, Number, PeerState};

/// How long ago an incarnation must have run to be found: the packets that prove it take this long.
const PROOF_AGE_MAX: Duration = Duration::from_millis(2500);

/// How long a link may be silent before its peer is lost, with the step of the simulation.
const SILENT_MAX: Duration = Duration::from_millis(2020);

/// How long a peer may have stopped before it is lost, though what it sent before still arrives.
const STOPPED_MAX: Duration = Duration::from_millis(6020);

/// How long a node may stand still and still read what has arrived meanwhile.
const PAUSE: Duration = Duration::from_millis(1500);

/// A message of the simulation: what it is of, and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content {
    pub(super) from: Incarnation,
    pub(super) to: Incarnation,
    /// How many messages were sent for this pair, this one included, a snapshot excluded.
    pub(super) sequence: u64,
    pub(super) is_snapshot: bool,
    /// Different for all messages.
    pub(super) id: u64,
}

impl Content {
    pub(super) const BYTES: usize = 49;

    /// Returns a message of at least this length.
    pub(super) fn write(&self, length: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(length);
        bytes.put_slice(&self.from.0);
        bytes.put_slice(&self.to.0);
        bytes.put_u64(self.sequence);
        bytes.put_u8(self.is_snapshot.into());
        bytes.put_u64(self.id);
        // The end of a long message must belong to its beginning.
        while bytes.len() < length {
            bytes.put_u64(self.id);
        }
        bytes.into()
    }

    fn read(mut bytes: Bytes) -> Result<Self, String> {
        let mut read = || -> Option<Self> {
            let (mut from, mut to) = ([0; 16], [0; 16]);
            bytes.try_copy_to_slice(&mut from).ok()?;
            bytes.try_copy_to_slice(&mut to).ok()?;
            let (sequence, is_snapshot) = (bytes.try_get_u64().ok()?, bytes.try_get_u8().ok()? == 1);
            let id = bytes.try_get_u64().ok()?;
            while !bytes.is_empty() {
                (bytes.try_get_u64().ok()? == id).then_some(())?;
            }
            Some(Self { from: Incarnation(from), to: Incarnation(to), sequence, is_snapshot, id })
        };
        read().ok_or_else(|| "a message is not as it was sent".to_owned())
    }
}

/// What one incarnation holds of a peer.
struct Held {
    peer: Incarnation,
    /// The last sequence that arrived since a snapshot, which is missing after the link broke.
    since_snapshot: Option<u64>,
    /// The last one that ever arrived.
    last: u64,
    /// When the link last began.
    begun: Instant,
    /// When something of the peer last arrived on the link.
    heard: Instant,
    lost: bool,
}

struct Life {
    node: usize,
    born: Instant,
    /// When it last ran, and its last packet.
    ran: Instant,
}

pub(super) struct Model {
    lives: BTreeMap<Incarnation, Life>,
    /// By the receiver and the name of its peer.
    held: BTreeMap<(Incarnation, NodeId), Held>,
    /// When each message was sent, by sender, receiver and sequence.
    sent: BTreeMap<(Incarnation, Incarnation, u64), Instant>,
    /// The numbers of messages since the last snapshot of a sender, with their sequences.
    numbers: BTreeMap<(Incarnation, Incarnation), BTreeMap<Number, u64>>,
    greatest: BTreeMap<(Incarnation, Incarnation), Number>,
    arrived: BTreeSet<u64>,
    cut_off: BTreeSet<usize>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            lives: BTreeMap::new(),
            held: BTreeMap::new(),
            sent: BTreeMap::new(),
            numbers: BTreeMap::new(),
            greatest: BTreeMap::new(),
            arrived: BTreeSet::new(),
            cut_off: BTreeSet::new(),
        }
    }

    pub(super) fn born(&mut self, now: Instant, node: usize, incarnation: Incarnation) {
        self.cut_off.remove(&node);
        self.lives.insert(incarnation, Life { node, born: now, ran: now });
    }

    /// A pause has ended. The node is as cut off as before.
    pub(super) fn born_again(&mut self, now: Instant, node: usize, incarnation: Incarnation) {
        self.lives.insert(incarnation, Life { node, born: now, ran: now });
    }

    pub(super) fn ran(&mut self, now: Instant, incarnation: Incarnation) {
        if let Some(life) = self.lives.get_mut(&incarnation) {
            life.ran = now;
        }
    }

    /// A packet of a link arrives for an incarnation, from one that need not be a peer.
    pub(super) fn heard(&mut self, now: Instant, me: Incarnation, from: Incarnation) {
        for ((it, _), held) in &mut self.held {
            if *it == me && held.peer == from {
                held.heard = now;
            }
        }
    }

    /// Takes a message that was queued. No number is used twice.
    pub(super) fn sent(&mut self, now: Instant, content: &Content, number: Number) -> Result<(), String> {
        let greatest = self.greatest.entry((content.from, content.to)).or_default();
        let rises = std::mem::replace(greatest, number) < number;
        let numbers = self.numbers.entry((content.from, content.to)).or_default();
        match content.is_snapshot {
            true => numbers.clear(),
            false => drop(self.sent.insert((content.from, content.to, content.sequence), now)),
        }
        numbers.insert(number, content.sequence);
        ensure(rises, || format!("{number:?} is used again"))
    }

    /// Checks an event of the incarnation `me`.
    pub(super) fn happened(&mut self, now: Instant, me: Incarnation, event: &BusEvent) -> Result<(), String> {
        match event {
            BusEvent::PeerFound { node, incarnation, .. } => self.found(now, me, node, *incarnation),
            BusEvent::Snapshot { node, message } => {
                let content = self.arrived(now, me, node, message)?;
                ensure(content.is_snapshot, || "a message as a snapshot".to_owned())?;
                let held = self.held(me, node)?;
                ensure(content.sequence >= held.last, || {
                    format!("a snapshot of {} after {}", content.sequence, held.last)
                })?;
                (held.since_snapshot, held.last) = (Some(content.sequence), content.sequence);
                Ok(())
            }
            BusEvent::Message { node, message } => {
                let content = self.arrived(now, me, node, message)?;
                ensure(!content.is_snapshot, || "a snapshot as a message".to_owned())?;
                let held = self.held(me, node)?;
                let before = held.since_snapshot.ok_or("a message before a snapshot")?;
                ensure(content.sequence == before + 1, || format!("{} after {before}", content.sequence))?;
                (held.since_snapshot, held.last) = (Some(content.sequence), content.sequence);
                Ok(())
            }
            BusEvent::Acknowledged { node, number } => self.acknowledged(me, node, *number),
            BusEvent::Broken { node, since, .. } => self.ended(now, me, node, *since),
            BusEvent::Lost { node, since, .. } => {
                self.ended(now, me, node, *since)?;
                self.held(me, node)?.lost = true;
                Ok(())
            }
            BusEvent::CutOff | BusEvent::Restored => {
                let node = self.lives.get(&me).map_or(usize::MAX, |life| life.node);
                let changed = match event {
                    BusEvent::CutOff => self.cut_off.insert(node),
                    _ => self.cut_off.remove(&node),
                };
                ensure(changed, || format!("{event:?} twice"))
            }
            BusEvent::KeysApart { incarnation, .. } => Err(format!("the keys of {incarnation} do not match")),
            BusEvent::NameShared { incarnation } => Err(format!("the name is shared with {incarnation}")),
            BusEvent::Refused(refusal) => Err(format!("{refusal:?}")),
            BusEvent::SnapshotWanted { node } => {
                self.held(me, node)?.begun = now;
                Ok(())
            }
            BusEvent::PeerChanged { .. } | BusEvent::Paused { .. } => Ok(()),
        }
    }

    /// A beat, a recorded packet or a dead process makes nobody live.
    fn found(&mut self, now: Instant, me: Incarnation, node: &NodeId, peer: Incarnation) -> Result<(), String> {
        let life = self.lives.get(&peer).ok_or("an incarnation that never lived was found")?;
        ensure(now <= life.ran + PROOF_AGE_MAX, || format!("{peer} was found, but last ran {:?} ago", now - life.ran))?;
        let before = self.held.get(&(me, node.clone()));
        ensure(before.is_none_or(|held| held.lost), || "a peer was found that was not lost".to_owned())?;
        let last = before.filter(|held| held.peer == peer).map_or(0, |held| held.last);
        self.held
            .insert((me, node.clone()), Held { peer, since_snapshot: None, last, begun: now, heard: now, lost: false });
        Ok(())
    }

    /// What holds for every message: it is for this incarnation, from the one that was found, and arrives once.
    fn arrived(&mut self, now: Instant, me: Incarnation, node: &NodeId, message: &Bytes) -> Result<Content, String> {
        let content = Content::read(message.clone())?;
        let held = self.held(me, node)?;
        ensure(!held.lost, || "a message of a lost peer".to_owned())?;
        ensure(content.from == held.peer && content.to == me, || format!("{content:?} is for another pair"))?;
        ensure(self.arrived.insert(content.id), || format!("{content:?} arrived twice"))?;
        let (born, ran) = self.lives.get(&me).map_or((now, now), |life| (life.born, life.ran));
        ensure(now <= ran + PAUSE, || format!("{content:?} was read after a pause"))?;
        let sent = self.sent.get(&(content.from, me, content.sequence)).copied();
        ensure(content.is_snapshot || sent.is_some_and(|sent| sent >= born), || format!("{content:?} is stale"))
            .map(|()| content)
    }

    /// Nothing that was sent before `since` is missing.
    fn ended(&mut self, now: Instant, me: Incarnation, node: &NodeId, since: Instant) -> Result<(), String> {
        let held = self.held(me, node)?;
        ensure(!held.lost, || "a lost peer was lost".to_owned())?;
        let missing = held.since_snapshot.map(|last| (held.peer, me, last + 1));
        held.since_snapshot = None;
        let sent = missing.and_then(|missing| self.sent.get(&missing)).copied();
        ensure(since <= now && sent.is_none_or(|sent| sent >= since), || {
            format!("a message is missing that was sent {:?} before", sent.map(|sent| since - sent))
        })
    }

    /// What a peer has acknowledged has arrived there.
    fn acknowledged(&mut self, me: Incarnation, node: &NodeId, number: Number) -> Result<(), String> {
        let peer = self.held(me, node)?.peer;
        let numbers = self.numbers.get(&(me, peer));
        let last = numbers.and_then(|numbers| numbers.range(..=number).next_back()).map(|(_, last)| *last);
        let name = self.lives.get(&me).map(|life| life.node);
        // A peer that was replaced meanwhile holds nothing any more.
        let mut there =
            self.held.iter().filter(|((it, _), held)| *it == peer && held.peer == me).map(|(_, held)| held.last);
        match (last, there.next()) {
            (Some(last), Some(there)) => {
                ensure(last <= there, || format!("{name:?}: {last} is acknowledged, but {there} arrived"))
            }
            _ => Ok(()),
        }
    }

    fn held(&mut self, me: Incarnation, node: &NodeId) -> Result<&mut Held, String> {
        self.held.get_mut(&(me, node.clone())).ok_or_else(|| format!("{node} was never found"))
    }

    /// Checks what a running node shows of its peers.
    pub(super) fn look(&self, now: Instant, bus: &Bus, link_bytes: usize) -> Result<(), String> {
        for peer in bus.peers() {
            ensure(peer.window_bytes <= link_bytes, || format!("a window of {} bytes", peer.window_bytes))?;
            let held = self.held.get(&(bus.incarnation(), peer.node.clone()));
            let begun = held.map(|held| held.begun);
            let heard = held.map(|held| held.heard);
            let ran = self.lives.get(&peer.incarnation).map(|life| life.ran);
            let silent = begun.max(heard).is_none_or(|heard| now > heard + SILENT_MAX)
                || begun.max(ran).is_none_or(|ran| now > ran + STOPPED_MAX);
            let linked = matches!(peer.state, PeerState::Linked | PeerState::Joining);
            ensure(!linked || !silent, || format!("{} is {:?}, but silent", peer.node, peer.state))?;
        }
        Ok(())
    }

    /// Checks that `me` holds everything that a peer has sent.
    pub(super) fn holds_all(&self, me: Incarnation, node: &NodeId, sent: u64) -> Result<(), String> {
        let held = self.held.get(&(me, node.clone())).and_then(|held| held.since_snapshot);
        ensure(held == Some(sent), || format!("{held:?} of {sent} messages of {node}"))
    }
}

pub(super) fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}
