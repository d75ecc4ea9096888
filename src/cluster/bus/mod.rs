//! [`Bus`]: all peers of a node and their timers.
//!
//! `receive` is what arrives, `transmit` what leaves.

#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod net;
mod receive;
mod transmit;

#[cfg(test)]
pub(super) use tests::start;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::chance::Chance;
use super::greeting::{GREET_EVERY, Greetings};
use super::outgoing::Outgoing;
use super::packet::{About, DATA_HEAD_BYTES, PART_HEAD_BYTES};
use super::peer::{Peer, Report};
use super::seal::{SEAL_BYTES, Sealer};
use super::{
    BrokenWhy, BusCounts, BusEvent, BusSettings, DIGEST_BYTES_MAX, Incarnation, LostWhy, NoLink, NodeId, Number,
    PeerState, PeerView, Refusal, Seed, VERSIONS, beats_subject, node_subject,
};

/// How often a node has a beat.
const BEAT_EVERY: Duration = Duration::from_millis(500);

/// More time than this between two beats is a pause.
const PAUSE: Duration = Duration::from_millis(1500);

/// How long a node may miss its own beats.
const CUT_OFF_AFTER: Duration = Duration::from_secs(2);

/// How long a starting node listens before it says that all keys are unknown.
const LISTEN_FOR: Duration = Duration::from_millis(1500);

/// How often this node tells at most that the keys of others do not match.
const APART_EVERY: Duration = Duration::from_mins(1);

/// The least length of a NATS message that is used.
const LARGEST_MIN: usize = 1024;

/// What the rules for starting nodes need to know.
#[derive(Clone, Copy, Debug, Default)]
struct Joining {
    /// Whether a beat of another node has opened.
    others_open: bool,
    /// Whether one was sealed with an unknown key.
    others_unknown: bool,
    /// Whether this node was told why it cannot start.
    refused: bool,
}

/// The links of this node with all others. The page of the room says what it promises.
#[derive(Debug)]
pub struct Bus {
    name: String,
    about: About,
    sealer: Sealer,
    chance: Chance,
    link_bytes: usize,
    largest: usize,
    incarnation: Incarnation,
    /// Of all packets that this node has sealed.
    counter: u64,
    connected: bool,
    /// Sorted by name.
    peers: Vec<Peer>,
    /// The peer after which it is the next one's turn to send.
    turn: usize,
    greetings: Greetings,
    beat_at: Instant,
    beat_due: bool,
    /// The last of its own beats that arrived, and when.
    own_counter: u64,
    own_beat: Instant,
    cut_off: bool,
    started: Instant,
    joining: Joining,
    /// The live node of the same name that was told last.
    namesake: Option<Incarnation>,
    /// When it was told last that the keys of a node do not match.
    apart_told: Option<Instant>,
    events: VecDeque<BusEvent>,
    counts: BusCounts,
}

impl Bus {
    /// Returns a starting node that has no peers yet. `now` is a monotonic clock that includes suspension
    /// (`CLOCK_BOOTTIME`), here and everywhere.
    #[must_use]
    pub fn new(settings: BusSettings, seed: Seed, now: Instant) -> Self {
        let BusSettings { name, node, keys, link_bytes, largest, mut digest } = settings;
        digest.truncate(DIGEST_BYTES_MAX);
        let mut chance = Chance::new(seed);
        Self {
            sealer: Sealer::new(&name, &keys),
            name,
            about: About { node, versions: VERSIONS, live: false, keys: keys.fingerprints().into(), digest },
            link_bytes,
            largest: largest.max(LARGEST_MIN),
            incarnation: chance.incarnation(),
            chance,
            counter: 0,
            connected: false,
            peers: Vec::new(),
            turn: 0,
            greetings: Greetings::default(),
            beat_at: now,
            beat_due: true,
            own_counter: 0,
            own_beat: now,
            cut_off: false,
            started: now,
            joining: Joining::default(),
            namesake: None,
            apart_told: None,
            events: VecDeque::new(),
            counts: BusCounts::default(),
        }
    }

    /// Returns this node's incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Returns the subject of the link messages to this incarnation. It changes with [`BusEvent::Paused`].
    #[must_use]
    pub fn node_subject(&self) -> String {
        node_subject(&self.name, &self.about.node, self.incarnation)
    }

    /// Returns the subject of the beats of all nodes.
    #[must_use]
    pub fn beats_subject(&self) -> String {
        beats_subject(&self.name)
    }

    /// Says whether NATS is connected. While it is not, [`Bus::transmit`] returns nothing, and the windows are the only
    /// queue.
    pub fn connected(&mut self, now: Instant, connected: bool) {
        self.look_for_pause(now);
        self.connected = connected;
        match connected {
            true => {
                self.beat_due = true;
                self.peers.iter_mut().for_each(Peer::make_due);
            }
            false => self.greetings.drop_waiting(),
        }
    }

    /// Says how large a NATS message may be from now on.
    pub fn set_largest(&mut self, bytes: usize) {
        self.largest = bytes.max(LARGEST_MIN);
    }

    /// Returns what happened next.
    pub fn event(&mut self) -> Option<BusEvent> {
        self.events.pop_front()
    }

    /// Returns when [`Bus::timeout`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let beat = self.beat_at + BEAT_EVERY;
        let cut_off = (!self.cut_off).then(|| self.own_beat + CUT_OFF_AFTER);
        let listened = self.may_refuse_keys().then(|| self.started + LISTEN_FOR);
        let timers = self.peers.iter().map(Peer::deadline).chain(cut_off).chain(listened);
        timers.chain(self.greetings.deadline()).chain([beat]).min()
    }

    /// Fires the timers that are due. Give what has already arrived to [`Bus::receive`] first.
    pub fn timeout(&mut self, now: Instant) {
        self.look_for_pause(now);
        if now >= self.beat_at + BEAT_EVERY {
            (self.beat_at, self.beat_due) = (now, true);
        }
        if !self.cut_off && now >= self.own_beat + CUT_OFF_AFTER {
            self.cut_off = true;
            self.counts.cut_off += 1;
            self.events.push_back(BusEvent::CutOff);
        }
        if self.may_refuse_keys() && now >= self.started + LISTEN_FOR {
            self.refuse(Refusal::UnknownKeys);
        }
        let mut report = Report { events: &mut self.events, counts: &mut self.counts };
        for peer in &mut self.peers {
            if let Some(why) = peer.fire(now) {
                peer.lose(now, why, &mut report);
            }
        }
        self.peers.retain(|peer| !peer.is_forgotten(now));
        self.greetings.fire(now);
    }

    /// Queues a message for a peer, and returns its number. If it exceeds the window, the link breaks.
    pub fn send(&mut self, now: Instant, node: &NodeId, message: Bytes) -> Result<Number, NoLink> {
        self.look_for_pause(now);
        let peer = self.peer(node).ok_or(NoLink::Down)?;
        let sent = peer.send(message);
        match sent {
            Ok(_) => self.counts.messages_sent += 1,
            Err(NoLink::WindowExceeded) => {
                let node = node.clone();
                self.break_link(now, &node, BrokenWhy::WindowExceeded);
            }
            Err(NoLink::Down | NoLink::TooLong) => {}
        }
        sent
    }

    /// Answers [`BusEvent::SnapshotWanted`] with everything that this node announces. If it is too large, the peer is lost.
    pub fn snapshot(&mut self, now: Instant, node: &NodeId, message: Bytes) -> Result<Number, NoLink> {
        self.look_for_pause(now);
        let Self { peers, events, counts, .. } = self;
        let at = position(peers, node).ok().ok_or(NoLink::Down)?;
        let peer = peers.get_mut(at).ok_or(NoLink::Down)?;
        let sent = peer.snapshot(message);
        match sent {
            Ok(_) => counts.messages_sent += 1,
            Err(NoLink::WindowExceeded | NoLink::TooLong) => {
                peer.lose(now, LostWhy::SnapshotTooLarge, &mut Report { events, counts });
            }
            Err(NoLink::Down) => {}
        }
        sent
    }

    /// Returns the last number that a peer has acknowledged.
    #[must_use]
    pub fn acknowledged(&self, node: &NodeId) -> Option<Number> {
        let at = position(&self.peers, node).ok()?;
        self.peers.get(at).filter(|peer| !peer.is_lost()).map(Peer::acknowledged)
    }

    /// Returns whether the window of a peer is over half full.
    #[must_use]
    pub fn is_over_half(&self, node: &NodeId) -> bool {
        let peer = position(&self.peers, node).ok().and_then(|at| self.peers.get(at));
        peer.is_some_and(|peer| peer.window_bytes() * 2 > self.link_bytes)
    }

    /// Returns whether there is a link to every live peer, and something of each arrived in the last `within`.
    #[must_use]
    pub fn is_complete(&self, now: Instant, within: Duration) -> bool {
        let mut others = self.peers().filter(|peer| peer.live && peer.state != PeerState::Lost);
        others.all(|peer| peer.state == PeerState::Linked && now.saturating_duration_since(peer.last_heard) <= within)
    }

    /// Returns the peers, sorted by name.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        self.peers.iter().map(Peer::view)
    }

    /// Returns the version of the link protocol that the cluster speaks: the lowest highest one of this node and its peers.
    #[must_use]
    pub fn version(&self) -> u8 {
        let peers = self.peers.iter().filter(|peer| !peer.is_lost());
        peers.map(|peer| peer.about.versions.highest).fold(VERSIONS.highest, u8::min)
    }

    /// Replaces the digest, from the next beat on.
    pub fn digest_changed(&mut self, now: Instant, mut digest: Vec<u8>) {
        self.look_for_pause(now);
        digest.truncate(DIGEST_BYTES_MAX);
        self.about.digest = digest;
        self.beat_due = true;
    }

    /// Says from the next beat on that this node accepts sessions.
    pub fn say_live(&mut self, now: Instant) {
        self.look_for_pause(now);
        self.about.live = true;
        self.beat_due = true;
    }

    /// Returns what was counted so far.
    #[must_use]
    pub fn counts(&self) -> BusCounts {
        self.counts
    }

    /// Takes a new incarnation if the clock stood still. Everything that looks at `now` begins with this, so that nothing
    /// that was sent to the old incarnation is read.
    fn look_for_pause(&mut self, now: Instant) {
        if now <= self.beat_at + PAUSE {
            return;
        }
        // What was under way then is lost, too.
        let complete = self.peers.iter().filter(|peer| !peer.is_lost()).map(Peer::complete);
        let since = complete.fold(self.beat_at, Instant::min);
        self.counts.paused += 1;
        self.incarnation = self.chance.incarnation();
        self.peers.clear();
        self.greetings = Greetings::default();
        (self.beat_at, self.beat_due) = (now, true);
        (self.own_beat, self.own_counter) = (now, 0);
        // Messages that the caller has not taken are as old as those that were not received.
        let own = |event: &BusEvent| {
            matches!(
                event,
                BusEvent::CutOff
                    | BusEvent::Restored
                    | BusEvent::Refused(_)
                    | BusEvent::NameShared { .. }
                    | BusEvent::KeysApart { .. }
            )
        };
        self.events.retain(own);
        self.events.push_back(BusEvent::Paused { since });
    }

    /// Breaks a link, and asks the peer for a new proof.
    fn break_link(&mut self, now: Instant, node: &NodeId, why: BrokenWhy) {
        let Self { peers, events, counts, greetings, chance, .. } = self;
        let Some(peer) = position(peers, node).ok().and_then(|at| peers.get_mut(at)) else { return };
        peer.break_link(now, why, &mut Report { events, counts });
        // Not at once: a link that breaks again and again would do nothing else.
        greetings.candidate(now, peer.incarnation, &peer.about, GREET_EVERY, || chance.challenge());
    }

    fn peer(&mut self, node: &NodeId) -> Option<&mut Peer> {
        let at = position(&self.peers, node).ok()?;
        self.peers.get_mut(at)
    }

    fn may_refuse_keys(&self) -> bool {
        let Joining { others_open, others_unknown, refused } = self.joining;
        others_unknown && !others_open && !self.about.live && !refused
    }

    /// Says that the keys of another node do not match. A starting node is refused instead.
    fn tell_apart(&mut self, now: Instant, incarnation: Incarnation, node: Option<NodeId>) {
        let is_due = self.apart_told.is_none_or(|told| now >= told + APART_EVERY);
        if self.about.live && is_due {
            self.apart_told = Some(now);
            self.events.push_back(BusEvent::KeysApart { incarnation, node });
        }
    }

    /// Says once why this node cannot start.
    fn refuse(&mut self, refusal: Refusal) {
        if !self.about.live && !self.joining.refused {
            self.joining.refused = true;
            self.events.push_back(BusEvent::Refused(refusal));
        }
    }

    /// The clock that packets carry: microseconds since the start, from 1. The peers send it back.
    fn clock(&self, now: Instant) -> u64 {
        let micros = now.saturating_duration_since(self.started).as_micros();
        u64::try_from(micros).unwrap_or_default().saturating_add(1)
    }

    /// Returns the time at which this node sent a clock that a peer sends back.
    fn at_clock(&self, now: Instant, clock: u64) -> Option<Instant> {
        let micros = Duration::from_micros(clock.checked_sub(1)?);
        self.started.checked_add(micros).filter(|at| *at <= now)
    }

    /// Returns numbers and window of a new link.
    fn outgoing(&self) -> Outgoing {
        Outgoing::new(self.link_bytes, self.largest - SEAL_BYTES - DATA_HEAD_BYTES - PART_HEAD_BYTES)
    }
}

#[cfg(test)]
impl Bus {
    /// Returns the bus with checksums in place of ciphers, which are slow in tests.
    pub(super) fn without_ciphers(mut self) -> Self {
        self.sealer.without_ciphers();
        self
    }
}

/// Where a peer is among the sorted ones, or where it would be.
fn position(peers: &[Peer], node: &NodeId) -> Result<usize, usize> {
    peers.binary_search_by(|peer| peer.about.node.cmp(node))
}

#[cfg(test)]
mod tests;
