//! [`Peer`]: one incarnation of another node that has proved that it is there, and the link with it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::incoming::{Begun, Incoming, Taken};
use super::outgoing::{Filled, Outgoing};
use super::packet::{About, DATA_HEAD_BYTES, Data, Numbers, PARTS_MAX, Part, SnapshotMark, Start};
use super::{
    BrokenWhy, BusCounts, BusEvent, Incarnation, LostWhy, MESSAGE_BYTES_MAX, MessageBytes, NoLink, Number, PeerState,
    PeerView,
};

/// How often a link has a packet, if nothing else is sent.
const LINK_BEAT: Duration = Duration::from_millis(50);

/// How long an acknowledgement waits for others that can go with it. A Register waits for it.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(5);

/// Bytes after which it waits no longer: fewer than a full NATS message has.
const ACKNOWLEDGE_BYTES: usize = 192 * 1024;

/// How long a peer may take to answer.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// For how much longer a peer may leave what is sent to it without an answer, while it takes messages or sends new ones: its
/// answer waits behind data. It is not longer, because somebody could hold such packets back.
const BUSY_FOR: Duration = Duration::from_secs(4);

/// How long a lost peer is remembered.
const REMEMBER_FOR: Duration = Duration::from_mins(1);

/// Where a peer reports what happened.
pub(super) struct Report<'a> {
    pub(super) events: &'a mut VecDeque<BusEvent>,
    pub(super) counts: &'a mut BusCounts,
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// The peer has proved that it is there.
    Up,
    /// Since then, the link waits for a new proof.
    Broken(Instant),
    /// Since then.
    Lost(Instant),
}

/// One incarnation of another node, and the link with it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) incarnation: Incarnation,
    pub(super) about: About,
    line: Line,
    outgoing: Outgoing,
    incoming: Incoming,
    /// The greatest counters of its packets on the link and of its beats. Those that are not greater are repeated.
    pub(super) link_counter: u64,
    pub(super) beat_counter: u64,
    /// The peer answered what was sent then.
    heard: Instant,
    /// When a packet of it arrived that acknowledged more, or had new messages.
    moved: Instant,
    /// Its greatest clock.
    clock: u64,
    /// Whether a packet is to be sent even without parts.
    due: bool,
    beat_at: Instant,
    acknowledge_at: Option<Instant>,
    unacknowledged_bytes: usize,
    /// What the next snapshot begins with, if one is wanted.
    snapshot_wanted: Option<SnapshotMark>,
    /// The number of the first part of the last snapshot that was queued.
    snapshot_first: u64,
}

impl Peer {
    /// Returns a peer without a link. [`Peer::begin`] follows.
    pub(super) fn new(now: Instant, incarnation: Incarnation, about: About, outgoing: Outgoing) -> Self {
        Self {
            incarnation,
            about,
            line: Line::Lost(now),
            outgoing,
            incoming: Incoming::new(now),
            link_counter: 0,
            beat_counter: 0,
            heard: now,
            moved: now,
            clock: 0,
            due: false,
            beat_at: now,
            acknowledge_at: None,
            unacknowledged_bytes: 0,
            snapshot_wanted: None,
            snapshot_first: 0,
        }
    }

    /// Begins the link: the peer has proved with a packet with this counter that it is there.
    pub(super) fn begin(&mut self, now: Instant, counter: u64, numbers: Numbers, report: &mut Report<'_>) {
        self.outgoing.clear();
        self.outgoing.continue_after(numbers.taken);
        self.incoming.begin();
        self.incoming.continue_after(numbers.acknowledged);
        self.link_counter = self.link_counter.max(counter);
        self.beat_counter = self.beat_counter.max(counter);
        (self.heard, self.due, self.beat_at) = (now, true, now + LINK_BEAT);
        let node = self.about.node.clone();
        if let Line::Lost(_) = self.line {
            let (digest, live) = (self.about.digest.clone(), self.about.live);
            let found = BusEvent::PeerFound { node: node.clone(), incarnation: self.incarnation, digest, live };
            report.events.push_back(found);
        }
        self.line = Line::Up;
        self.want_snapshot(false, report);
    }

    /// Breaks the link, until [`Peer::begin`].
    pub(super) fn break_link(&mut self, now: Instant, why: BrokenWhy, report: &mut Report<'_>) {
        self.end(Line::Broken(now));
        self.say_broken(why, report);
    }

    /// Loses the peer, until [`Peer::begin`].
    pub(super) fn lose(&mut self, now: Instant, why: LostWhy, report: &mut Report<'_>) {
        self.end(Line::Lost(now));
        let since = self.incoming.complete();
        report.counts.lost += 1;
        report.events.push_back(BusEvent::Lost { node: self.about.node.clone(), why, since });
    }

    fn end(&mut self, line: Line) {
        self.line = line;
        self.outgoing.clear();
        self.incoming.begin();
        (self.snapshot_wanted, self.acknowledge_at, self.due) = (None, None, false);
    }

    fn say_broken(&self, why: BrokenWhy, report: &mut Report<'_>) {
        let since = self.incoming.complete();
        report.counts.broken += 1;
        report.events.push_back(BusEvent::Broken { node: self.about.node.clone(), why, since });
    }

    fn want_snapshot(&mut self, answer: bool, report: &mut Report<'_>) {
        self.snapshot_wanted = Some(SnapshotMark { answer, taken: self.incoming.last() });
        report.events.push_back(BusEvent::SnapshotWanted { node: self.about.node.clone() });
    }

    /// Queues a message.
    pub(super) fn send(&mut self, message: Bytes) -> Result<Number, NoLink> {
        if self.line != Line::Up || self.snapshot_wanted.is_some() {
            return Err(NoLink::Down);
        }
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(NoLink::TooLong);
        }
        let (_, last) = self.outgoing.queue(Start::Message, message).map_err(|_| NoLink::WindowExceeded)?;
        Ok(last)
    }

    /// Queues the snapshot that is wanted.
    pub(super) fn snapshot(&mut self, message: Bytes) -> Result<Number, NoLink> {
        let mark = self.snapshot_wanted.filter(|_| self.line == Line::Up).ok_or(NoLink::Down)?;
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(NoLink::TooLong);
        }
        let queued = self.outgoing.queue(Start::Snapshot(mark), message);
        let (first, last) = queued.map_err(|_| NoLink::WindowExceeded)?;
        self.snapshot_wanted = None;
        self.snapshot_first = first.0;
        Ok(last)
    }

    /// Takes what a packet of the link carries, which was made after `made`. An error breaks the link.
    ///
    /// That it arrives does not say that the peer is there, because somebody can have held it back. That it answers what was
    /// sent at `made` does, and that the other direction works.
    pub(super) fn take(
        &mut self,
        now: Instant,
        made: Option<Instant>,
        data: &Data,
        mut parts: MessageBytes,
        report: &mut Report<'_>,
    ) -> Result<(), BrokenWhy> {
        self.heard = made.map_or(self.heard, |made| made.max(self.heard));
        self.clock = self.clock.max(data.clock);
        if self.outgoing.acknowledge(data.acknowledged) {
            self.moved = now;
            if let Some(made) = made {
                self.outgoing.adapt(now.saturating_duration_since(made));
            }
            let number = Number(self.outgoing.acknowledged());
            report.events.push_back(BusEvent::Acknowledged { node: self.about.node.clone(), number });
        }
        if data.again {
            self.outgoing.resend(now, made);
        }
        let last = self.incoming.last();
        for number in (data.first..).take(PARTS_MAX) {
            if parts.is_empty() {
                break;
            }
            let part = Part::read(&mut parts).ok_or(BrokenWhy::Malformed)?;
            self.unacknowledged_bytes += part.bytes.len();
            self.acknowledge_at.get_or_insert(now + ACKNOWLEDGE_AFTER);
            self.take_part(number, part, report)?;
        }
        if !parts.is_empty() {
            return Err(BrokenWhy::Malformed);
        }
        if self.incoming.last() > last {
            self.moved = now;
        }
        self.incoming.compare(made, data);
        self.due |= self.incoming.is_due(now) || self.unacknowledged_bytes >= ACKNOWLEDGE_BYTES;
        Ok(())
    }

    fn take_part(&mut self, number: u64, part: Part, report: &mut Report<'_>) -> Result<(), BrokenWhy> {
        let node = self.about.node.clone();
        match self.incoming.take(number, part) {
            Taken::No => {}
            Taken::Malformed => return Err(BrokenWhy::Malformed),
            Taken::Part(begun) => self.note_begun(begun, report),
            Taken::Whole(message) => {
                report.counts.messages_received += 1;
                report.events.push_back(BusEvent::Message { node, message });
            }
            Taken::Snapshot(begun, message) => {
                self.note_begun(begun, report);
                report.counts.messages_received += 1;
                report.events.push_back(BusEvent::Snapshot { node, message });
            }
        }
        Ok(())
    }

    /// Acts on the first part of a snapshot. If the peer has forgotten our last snapshot, it needs another one, and takes
    /// nothing else: what is in the window is useless. A snapshot that is still under way serves as the answer.
    fn note_begun(&mut self, begun: Option<Begun>, report: &mut Report<'_>) {
        let Some(Begun { mark, gap }) = begun else { return };
        let forgotten = !mark.answer && self.snapshot_wanted.is_none() && self.snapshot_first <= mark.taken;
        if forgotten || gap {
            self.say_broken(BrokenWhy::ByPeer, report);
        }
        if forgotten {
            self.outgoing.clear();
            self.want_snapshot(true, report);
        }
    }

    /// Fires the timers that are due. Returns why the peer is lost, if it is.
    pub(super) fn fire(&mut self, now: Instant) -> Option<LostWhy> {
        match self.line {
            Line::Up if now >= self.silent_at() => return Some(LostWhy::Silent),
            Line::Broken(since) if now >= since + LOST_AFTER => return Some(LostWhy::Unanswered),
            Line::Lost(_) | Line::Broken(_) => {}
            Line::Up => {
                if self.acknowledge_at.is_some_and(|at| at <= now) {
                    (self.due, self.acknowledge_at) = (true, None);
                }
                if self.beat_at <= now {
                    (self.due, self.beat_at) = (true, now + LINK_BEAT);
                }
            }
        }
        None
    }

    /// When the peer is lost, unless something of it arrives.
    fn silent_at(&self) -> Instant {
        self.heard.max(self.moved.min(self.heard + BUSY_FOR)) + LOST_AFTER
    }

    /// When [`Peer::fire`] is to be called, or the peer is to be forgotten.
    pub(super) fn deadline(&self) -> Instant {
        match self.line {
            Line::Up => self.acknowledge_at.map_or(self.beat_at, |at| at.min(self.beat_at)).min(self.silent_at()),
            Line::Broken(since) => since + LOST_AFTER,
            Line::Lost(since) => since + REMEMBER_FOR,
        }
    }

    /// Returns whether a lost peer is not worth remembering any more.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        matches!(self.line, Line::Lost(since) if now >= since + REMEMBER_FOR)
    }

    /// Sends a packet at the next opportunity.
    pub(super) fn make_due(&mut self) {
        self.due = self.line == Line::Up;
    }

    /// Returns whether a packet is to be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.line == Line::Up && (self.due || self.outgoing.is_ready())
    }

    /// The bytes that [`Peer::write`] writes at most, if there is room for all.
    pub(super) fn unsent_bytes(&self) -> usize {
        DATA_HEAD_BYTES + self.outgoing.unsent_bytes()
    }

    /// Writes the next packet, with at most `room` bytes. `clock` is this node's.
    pub(super) fn write(&mut self, now: Instant, clock: u64, room: usize, to: &mut Vec<u8>) -> Filled {
        let head_at = to.len();
        to.resize(head_at + DATA_HEAD_BYTES, 0);
        let filled = self.outgoing.fill(room.saturating_sub(DATA_HEAD_BYTES), |part| part.write(to));
        let head = Data {
            acknowledged: self.incoming.last(),
            again: self.incoming.ask(now),
            sent: self.outgoing.sent(),
            queued: self.outgoing.queued(),
            first: filled.first,
            clock,
            echo: self.clock,
        };
        head.overwrite(to, head_at);
        (self.due, self.beat_at, self.acknowledge_at) = (false, now + LINK_BEAT, None);
        self.unacknowledged_bytes = 0;
        filled
    }

    /// Returns whether this is the current link with this incarnation.
    pub(super) fn is_up(&self) -> bool {
        self.line == Line::Up
    }

    /// Returns whether the peer is lost.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.line, Line::Lost(_))
    }

    /// Where the two sides are.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers { taken: self.incoming.last(), acknowledged: self.outgoing.acknowledged() }
    }

    /// The last number that the peer has taken.
    pub(super) fn acknowledged(&self) -> Number {
        Number(self.outgoing.acknowledged())
    }

    /// When the peer was lost, or `None` if it is not.
    pub(super) fn lost_at(&self) -> Option<Instant> {
        match self.line {
            Line::Lost(since) => Some(since),
            Line::Up | Line::Broken(_) => None,
        }
    }

    /// What others see of it.
    /// The time before which nothing that it sent is missing.
    pub(super) fn complete(&self) -> Instant {
        self.incoming.complete()
    }

    /// Bytes that it has not acknowledged.
    pub(super) fn window_bytes(&self) -> usize {
        self.outgoing.window_bytes()
    }

    pub(super) fn view(&self) -> PeerView<'_> {
        PeerView {
            node: &self.about.node,
            incarnation: self.incarnation,
            state: match self.line {
                Line::Up if self.incoming.needs_snapshot() => PeerState::Joining,
                Line::Up => PeerState::Linked,
                Line::Broken(_) => PeerState::Broken,
                Line::Lost(_) => PeerState::Lost,
            },
            live: self.about.live,
            digest: &self.about.digest,
            last_heard: self.heard,
            window_bytes: self.outgoing.window_bytes(),
            versions: self.about.versions,
        }
    }
}
