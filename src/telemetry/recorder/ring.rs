//! [`Ring`]: the entries of one worker, oldest first. The oldest segment is dropped when there is no room for another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::Triple;

use super::entry::{NOWHERE, Published, Record, What, Who};
use super::mark::Mark;
use super::segment::{SEGMENT_BYTES, Segment};

/// How many names are found without a search: their index is one byte of a number.
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
    sessions: Vec<SessionAtHand>,
    triples: Vec<(Option<Mark>, u32)>,
    clock: Clock,
    left_out: Vec<LeftOut>,
}

/// The present second, counted from the start.
struct Clock {
    started: Instant,
    second: u32,
    /// When it began, and when the next one does.
    begun: Instant,
    next: Instant,
}

/// A session whose name was used lately.
#[derive(Clone, Copy)]
struct SessionAtHand {
    number: u64,
    /// Where its name is.
    place: u32,
    /// Where it was last in the list of what is left out.
    left_out: usize,
}

/// How many entries of a session are left out in one second.
struct LeftOut {
    /// The place of the session.
    who: u32,
    second: u32,
    at: Instant,
    count: u32,
}

/// What a ring of at most this many bytes, at least [`SEGMENTS_MIN`] segments, leaves for sealed segments.
fn sealed_bytes_max(bytes: usize) -> usize {
    bytes.saturating_sub(3 * SEGMENT_BYTES)
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
    /// A ring without room; see [`Ring::set_bytes`].
    pub(super) fn new(started: Instant) -> Self {
        Self {
            active: Segment::default(),
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            sealed_bytes_max: 0,
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

    /// Adds an event.
    #[inline]
    pub(super) fn push_event<'a>(
        &mut self,
        now: Instant,
        number: u64,
        who: &dyn Fn() -> Who<'a>,
        event: &Published<'_>,
    ) {
        if self.active.is_full() {
            self.seal();
        }
        let who = self.session(number, who);
        let triple = self.triple(event.mark, event.triple);
        self.active.push_event(now, (who, triple), event);
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, now: Instant, record: &Record<'_>) {
        if self.active.is_full() {
            self.seal();
        }
        let mut place = |who: &Who<'_>| self.session(who.number, &|| *who);
        let who = place(&record.who);
        let peer = record.peer.as_ref().map_or(NOWHERE, place);
        let triple = record.triple.map_or(NOWHERE, |triple| self.triple(None, triple));
        self.active.push(now, (who, peer, triple), record);
    }

    /// Counts an entry of this second that is left out.
    #[inline]
    pub(super) fn leave_out<'a>(&mut self, now: Instant, second: u32, number: u64, who: &dyn Fn() -> Who<'a>) {
        // Of a session that sends too much, nearly all are left out after another one of the same second.
        if let Some(session) = self.sessions.get(at_hand(number))
            && session.number == number
            && let Some(known) = self.left_out.get_mut(session.left_out)
            && (known.who, known.second) == (session.place, second)
        {
            known.count = known.count.saturating_add(1);
            return;
        }
        self.leave_out_first(now, second, number, who);
    }

    /// Counts an entry that is left out, and finds the place where others of its session and second are counted.
    #[inline(never)]
    fn leave_out_first<'a>(&mut self, now: Instant, second: u32, number: u64, who: &dyn Fn() -> Who<'a>) {
        if self.left_out.len() >= LEFT_OUT_MAX {
            self.record_left_out();
        }
        if self.active.is_full() {
            self.seal();
        }
        let who = self.session(number, who);
        let Some(session) = self.sessions.get_mut(at_hand(number)) else { return };
        let is_it = |it: &LeftOut| (it.who, it.second) == (who, second);
        // Searched for only if it is not where it was last: a worker may have a hundred sessions that send too much.
        if !self.left_out.get(session.left_out).is_some_and(is_it) {
            session.left_out = self.left_out.iter().position(is_it).unwrap_or(self.left_out.len());
        }
        match self.left_out.get_mut(session.left_out) {
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
        self.drop_oldest();
        self.sessions.clear();
        self.triples.clear();
    }

    /// Drops sealed segments until they are within their bound.
    fn drop_oldest(&mut self) {
        while self.sealed_bytes > self.sealed_bytes_max
            && let Some(oldest) = self.sealed.pop_front()
        {
            self.sealed_bytes -= oldest.bytes();
            self.dropped += oldest.entries.len() as u64;
        }
    }

    /// Changes the bound of the ring. With 0, all entries are dropped.
    pub(super) fn set_bytes(&mut self, bytes: usize) {
        self.sealed_bytes_max = sealed_bytes_max(bytes);
        match bytes {
            0 if self.next_number() > self.dropped || !self.left_out.is_empty() => self.seal(),
            _ => self.drop_oldest(),
        }
    }

    /// The place of a session's name. Sessions with the same remainder take each other's place at hand, and are named again.
    #[inline]
    fn session<'a>(&mut self, number: u64, who: &dyn Fn() -> Who<'a>) -> u32 {
        match self.sessions.get(at_hand(number)) {
            // Clients without a session share the number 0, which is never at hand.
            Some(known) if known.number == number && known.place != NOWHERE => known.place,
            _ => self.new_session(&who()),
        }
    }

    #[cold]
    fn new_session(&mut self, who: &Who<'_>) -> u32 {
        self.sessions.resize(NAMES_AT_HAND, SessionAtHand { number: 0, place: NOWHERE, left_out: 0 });
        let place = self.active.add_session(who);
        if let Some(known) = self.sessions.get_mut(at_hand(who.number)).filter(|_| who.number != 0) {
            *known = SessionAtHand { number: who.number, place, left_out: 0 };
        }
        place
    }

    /// The place of a triple. `mark`: its mark, if it is known.
    #[inline]
    fn triple(&mut self, mark: Option<Mark>, triple: &Triple<'_>) -> u32 {
        let mark = mark.unwrap_or_else(|| Mark::of(triple));
        match self.triples.get(mark.at_hand()) {
            Some((known, place)) if *known == Some(mark) => *place,
            _ => self.new_triple(mark, triple),
        }
    }

    #[cold]
    fn new_triple(&mut self, mark: Mark, triple: &Triple<'_>) -> u32 {
        self.triples.resize(NAMES_AT_HAND, (None, NOWHERE));
        let place = self.active.add_triple(triple);
        if let Some(at_hand) = self.triples.get_mut(mark.at_hand()) {
            *at_hand = (Some(mark), place);
        }
        place
    }
}

/// Where a session's name is at hand, by its number.
#[inline]
fn at_hand(number: u64) -> usize {
    usize::from(number.to_le_bytes()[0])
}
