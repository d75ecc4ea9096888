//! [`Ring`]: the entries of one worker, oldest first. The oldest segment is dropped when there is no room for another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::Triple;

use super::entry::{NOWHERE, Record, What, Who};
use super::segment::{SEGMENT_BYTES, Segment};

/// The places of names that are found without a search, by one byte.
const NAMES_AT_HAND: usize = 256;

/// The sessions of which a ring counts at the same time what it leaves out.
const LEFT_OUT_MAX: usize = 128;

/// The segments for which there must be room: the one that is written may use more than twice its size.
pub(super) const SEGMENTS_MIN: usize = 4;

/// The entries of one worker.
pub(super) struct Ring {
    active: Segment,
    sealed: VecDeque<Arc<Segment>>,
    /// The memory of the sealed ones.
    sealed_bytes: usize,
    /// Their bound.
    sealed_bytes_max: usize,
    /// The number of entries in dropped segments.
    dropped: u64,
    /// The number of entries in sealed segments, dropped ones included.
    sealed_entries: u64,
    /// Where the names are that were used last. Empty until the first entry.
    sessions: Vec<(u64, u32)>,
    triples: Vec<u32>,
    clock: Clock,
    left_out: Vec<LeftOut>,
}

/// The second that it is, counted from the start.
struct Clock {
    started: Instant,
    second: u32,
    /// When it began, and when the next one does.
    begun: Instant,
    next: Instant,
}

/// What is left out of a session's entries in this second.
struct LeftOut {
    /// The place of the session.
    who: u32,
    second: u32,
    at: Instant,
    count: u32,
}

impl Clock {
    fn second_of(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.started).as_secs()).unwrap_or(u32::MAX)
    }
}

/// Segments of a ring, the oldest first, and the number of the first entry in the first of them.
pub(super) struct Content {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) first: u64,
}

impl Ring {
    /// A ring of at most this many bytes, at least [`SEGMENTS_MIN`] segments.
    pub(super) fn new(started: Instant, bytes: usize) -> Self {
        Self {
            active: Segment::default(),
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            sealed_bytes_max: bytes.saturating_sub(3 * SEGMENT_BYTES),
            dropped: 0,
            sealed_entries: 0,
            sessions: Vec::new(),
            triples: Vec::new(),
            clock: Clock { started, second: 0, begun: started, next: started + Duration::from_secs(1) },
            left_out: Vec::new(),
        }
    }

    /// The second of `now`, counted from the start. If it is a new one, what was left out before becomes entries.
    #[inline]
    pub(super) fn second(&mut self, now: Instant) -> u32 {
        if now >= self.clock.next {
            self.next_second(now);
        }
        // Another thread may have been here with a later time.
        if now >= self.clock.begun { self.clock.second } else { self.clock.second_of(now) }
    }

    #[cold]
    fn next_second(&mut self, now: Instant) {
        self.record_left_out();
        let clock = &mut self.clock;
        clock.second = clock.second_of(now);
        clock.begun = clock.started + Duration::from_secs(clock.second.into());
        clock.next = clock.begun + Duration::from_secs(1);
    }

    /// Adds an entry.
    #[inline]
    pub(super) fn push(&mut self, now: Instant, record: &Record<'_>) {
        if self.active.is_full() {
            self.seal();
        }
        let who = self.session(&record.who);
        let peer = record.peer.as_ref().map_or(NOWHERE, |peer| self.session(peer));
        let triple = record.triple.map_or(NOWHERE, |triple| self.triple(triple));
        self.active.push(now, (who, peer, triple), record);
    }

    /// Counts an entry of this second that is left out.
    #[inline(never)]
    pub(super) fn leave_out(&mut self, now: Instant, second: u32, who: &Who<'_>) {
        if self.active.is_full() || self.left_out.len() >= LEFT_OUT_MAX {
            self.record_left_out();
        }
        if self.active.is_full() {
            self.seal();
        }
        let who = self.session(who);
        // The session that sends most is near the end.
        match self.left_out.iter_mut().rev().find(|it| (it.who, it.second) == (who, second)) {
            Some(known) => known.count = known.count.saturating_add(1),
            None => self.left_out.push(LeftOut { who, second, at: now, count: 1 }),
        }
    }

    /// Adds an entry for each session of which something was left out.
    #[cold]
    fn record_left_out(&mut self) {
        for LeftOut { who, second, at, count } in std::mem::take(&mut self.left_out) {
            self.active.push_known(at, who, What::LeftOut { count, second });
        }
    }

    /// Adds entries for what was left out in the seconds before `now`.
    pub(super) fn settle(&mut self, now: Instant) {
        self.second(now);
    }

    /// What it holds, from the entry with this number on. If `whole`, what is left out in this second is an entry of the copy.
    pub(super) fn content(&self, from: u64, whole: bool) -> Content {
        let (mut segments, mut first) = (Vec::new(), self.dropped);
        for segment in &self.sealed {
            let entries = segment.entries.len() as u64;
            match segments.is_empty() && first + entries <= from {
                true => first += entries,
                false => segments.push(Arc::clone(segment)),
            }
        }
        let mut active = self.active.clone();
        for LeftOut { who, second, at, count } in self.left_out.iter().filter(|_| whole) {
            active.push_known(*at, *who, What::LeftOut { count: *count, second: *second });
        }
        segments.push(Arc::new(active));
        Content { segments, first }
    }

    /// The number that the next entry gets.
    pub(super) fn next_number(&self) -> u64 {
        self.sealed_entries + self.active.entries.len() as u64
    }

    /// When the oldest entry was made, if there were older ones.
    pub(super) fn reaches_to(&self) -> Option<Instant> {
        let oldest = self.sealed.front().map_or(&self.active, |it| it);
        oldest.entries.first().filter(|_| self.dropped > 0).map(|entry| entry.at)
    }

    /// The memory of its entries and names.
    pub(super) fn bytes(&self) -> usize {
        self.sealed_bytes + self.active.bytes()
    }

    /// Begins another segment. What is being left out goes into the one that ends, which has its names.
    #[cold]
    fn seal(&mut self) {
        self.record_left_out();
        let mut full = std::mem::take(&mut self.active);
        full.shrink();
        self.sealed_entries += full.entries.len() as u64;
        self.sealed_bytes += full.bytes();
        self.sealed.push_back(Arc::new(full));
        while self.sealed_bytes > self.sealed_bytes_max
            && let Some(oldest) = self.sealed.pop_front()
        {
            self.sealed_bytes -= oldest.bytes();
            self.dropped += oldest.entries.len() as u64;
        }
        self.sessions.clear();
        self.triples.clear();
    }

    /// The place of a session's name. Sessions with the same remainder take each other's place at hand, and are named again.
    #[inline]
    fn session(&mut self, who: &Who<'_>) -> u32 {
        let at = usize::from(who.number.to_le_bytes()[0]);
        match self.sessions.get(at) {
            Some((number, place)) if *number == who.number && *place != NOWHERE && who.number != 0 => *place,
            _ => self.new_session(at, who),
        }
    }

    #[cold]
    fn new_session(&mut self, at: usize, who: &Who<'_>) -> u32 {
        self.sessions.resize(NAMES_AT_HAND, (0, NOWHERE));
        let place = self.active.add_session(who);
        if let Some(at_hand) = self.sessions.get_mut(at) {
            *at_hand = (who.number, place);
        }
        place
    }

    /// The place of a triple.
    #[inline]
    fn triple(&mut self, triple: &Triple<'_>) -> u32 {
        let at = remainder(triple) % NAMES_AT_HAND;
        match self.triples.get(at) {
            Some(place) if self.active.is_triple(*place, triple) => *place,
            _ => self.new_triple(at, triple),
        }
    }

    #[cold]
    fn new_triple(&mut self, at: usize, triple: &Triple<'_>) -> u32 {
        self.triples.resize(NAMES_AT_HAND, NOWHERE);
        let place = self.active.add_triple(triple);
        if let Some(at_hand) = self.triples.get_mut(at) {
            *at_hand = place;
        }
        place
    }
}

/// A number that triples seldom share: from their lengths and last letters.
#[inline]
fn remainder(triple: &Triple<'_>) -> usize {
    let mark = |part: &str| part.len() + usize::from(part.as_bytes().last().copied().unwrap_or_default());
    mark(&triple.channel) + mark(&triple.topic) * 7 + mark(&triple.subtopic) * 31
}
