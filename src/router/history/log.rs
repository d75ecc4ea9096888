//! [`Log`]: the kept events of one channel and user, oldest first, in chunks that a replay shares.
//!
//! A replay takes a snapshot: the chunks from its first event on. It walks it without a lock, and what the log drops
//! meanwhile stays there; it then counts as memory of messages that wait to be sent. If a snapshot holds a chunk, the log
//! copies its list of at most [`CHUNK`] pointers before it changes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::Position;
use super::arrive::Arrived;
use super::clustered::Arrivals;
use crate::config::LogBounds;
use crate::websocket::{Frame, FrameMemory};

/// The entries of a chunk.
const CHUNK: usize = 64;

/// The memory of an entry besides its texts: itself, its place in a chunk, and the headers of its allocations.
const ENTRY_BYTES: usize = 256;

/// The memory of a log besides its entries and its key: itself, and its places in the maps.
const LOG_BYTES: usize = 512;

/// An event as later subscribers receive it.
pub(super) struct Entry {
    pub(super) offset: u64,
    /// When it was accepted.
    pub(super) at: Instant,
    pub(super) address: Address,
    /// Marked `replayed`. On a user-scoped channel without `user`.
    pub(super) frame: Frame,
}

/// What decides who may have an event, and wants it.
pub(super) struct Address {
    /// Its triple as it was sent: whether its channel folds can change.
    pub(super) triple: Box<str>,
    pub(super) target: Option<Box<str>>,
    /// Whose it is.
    pub(super) of: Of,
}

/// Whose an event is.
pub(super) enum Of {
    /// The user's to whom the log belongs.
    Owner,
    /// Every user's: an adapter announced it to all of a user-scoped channel.
    Everyone,
    /// On a shared channel, the one in whose name it was sent.
    Sender(Option<Box<str>>),
}

impl Entry {
    /// The memory that it counts with.
    fn bytes(&self) -> usize {
        let Address { triple, target, of } = &self.address;
        let sender = match of {
            Of::Sender(user) => user.as_deref(),
            Of::Owner | Of::Everyone => None,
        };
        let texts = [Some(&**triple), target.as_deref(), sender];
        ENTRY_BYTES + self.frame.wire().len() + texts.into_iter().flatten().map(str::len).sum::<usize>()
    }

    fn has_expired(&self, now: Instant, bounds: &LogBounds) -> bool {
        now.saturating_duration_since(self.at) > bounds.ttl
    }
}

type Chunk = Arc<VecDeque<Arc<Entry>>>;

/// The kept events of one channel and user.
pub(super) struct Log {
    /// Later ones are greater.
    pub(super) number: u64,
    pub(super) key: Box<str>,
    /// The memory of its entries, to be read without the lock.
    pub(super) bytes: AtomicUsize,
    pub(super) state: Mutex<State>,
    /// In a cluster: the subscriptions that are being made after the log was read from the stream.
    subscribing: AtomicUsize,
}

/// A subscription that is being made. While there is one, this node follows the log.
pub(in crate::router) struct Subscribing(Arc<Log>);

impl Subscribing {
    pub(super) fn new(log: &Arc<Log>) -> Self {
        log.subscribing.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(log))
    }
}

impl Drop for Subscribing {
    fn drop(&mut self) {
        self.0.subscribing.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Log {
    /// A log that holds nothing.
    pub(super) fn new(number: u64, key: &str, epoch: Arc<str>) -> Self {
        let state = State::new(epoch, LOG_BYTES + 2 * key.len());
        let (bytes, subscribing) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { number, key: Box::from(key), bytes, state: Mutex::new(state), subscribing }
    }

    /// Whether a subscription is being made.
    pub(super) fn is_subscribed_soon(&self) -> bool {
        self.subscribing.load(Ordering::Acquire) > 0
    }
}

/// What the lock of a log protects.
pub(in crate::router) struct State {
    pub(super) epoch: Arc<str>,
    chunks: VecDeque<Chunk>,
    pub(super) entries: usize,
    /// The memory of the entries, and of the log itself once it has held one.
    pub(super) bytes: usize,
    own_bytes: usize,
    /// The offset of the last event that entered; 0 if none did.
    pub(super) last: u64,
    /// If the log is on disk, the disk has nothing before this offset. Its size bounds it too.
    pub(super) on_disk_from: u64,
    /// When it is to be looked at, to drop what is too old.
    pub(super) due: Option<Instant>,
    /// When the last entry was dropped, if none is left.
    pub(super) emptied: Option<Instant>,
    /// The map no longer has it: a thread that waited for the lock looks it up again.
    pub(super) is_removed: bool,
    /// Counts the memory of entries that only replays have. Set when the first one begins.
    pub(super) memory: Option<Arc<FrameMemory>>,
    /// In a cluster: the events that arrive.
    pub(super) arrivals: Arrivals<Arrived>,
    /// When events that are missing are to be read.
    pub(super) gap_due: Option<Instant>,
}

impl State {
    pub(super) fn new(epoch: Arc<str>, own_bytes: usize) -> Self {
        Self {
            epoch,
            chunks: VecDeque::new(),
            entries: 0,
            bytes: 0,
            own_bytes,
            last: 0,
            on_disk_from: 1,
            due: None,
            emptied: None,
            is_removed: false,
            memory: None,
            arrivals: Arrivals::default(),
            gap_due: None,
        }
    }

    /// Lets the log end with this event, whose successor is about to enter. What was kept in memory stays if it ends there.
    pub(super) fn place(&mut self, last: &Position) {
        if (&self.epoch, self.last) != (&last.epoch, last.offset) {
            self.clear();
            (self.epoch, self.last) = (Arc::clone(&last.epoch), last.offset);
        }
    }

    /// Where the log is.
    pub(in crate::router) fn position(&self) -> Position {
        Position { offset: self.last, epoch: Arc::clone(&self.epoch) }
    }

    /// The position of the next event.
    pub(in crate::router) fn next(&self) -> Position {
        Position { offset: self.last + 1, epoch: Arc::clone(&self.epoch) }
    }

    /// Puts an entry at the end, and drops what is beyond the bounds; of many at most a few at a time.
    pub(super) fn push(&mut self, mut entry: Entry, bounds: &LogBounds) {
        debug_assert_eq!(entry.offset, self.last + 1, "offsets have no gaps");
        let last = self.chunks.back().and_then(|chunk| chunk.back());
        // Publishers may have looked at the clock before they waited for the lock.
        entry.at = last.map_or(entry.at, |last| entry.at.max(last.at));
        let now = entry.at;
        // The first entry of a log that a file had is seldom at offset 1.
        self.bytes += entry.bytes() + if self.bytes == 0 { self.own_bytes } else { 0 };
        self.last = entry.offset;
        self.entries += 1;
        self.emptied = None;
        let entry = Arc::new(entry);
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push_back(entry),
            Some(_) | None => self.chunks.push_back(Arc::new(VecDeque::from([entry]))),
        }
        self.trim(now, bounds, 4);
    }

    /// The offset of the first event that is kept; that of the next event if none is.
    pub(super) fn first(&self, now: Instant, bounds: &LogBounds) -> u64 {
        let next = self.last + 1;
        let by_size = next.saturating_sub(bounds.size as u64);
        let Some(front) = self.front() else { return next };
        let by_age = match front.has_expired(now, bounds) {
            false => front.offset,
            true => {
                let expired = |entry: &Arc<Entry>| entry.has_expired(now, bounds);
                let chunks = self.chunks.partition_point(|chunk| chunk.back().is_some_and(expired));
                let chunk = self.chunks.get(chunks);
                chunk.and_then(|chunk| chunk.get(chunk.partition_point(expired))).map_or(next, |entry| entry.offset)
            }
        };
        by_size.max(by_age)
    }

    /// Drops entries that are no longer kept, up to `most`. Returns whether all of them are dropped.
    pub(super) fn trim(&mut self, now: Instant, bounds: &LogBounds, most: usize) -> bool {
        let first = self.first(now, bounds);
        for _ in 0..most {
            if self.front().is_none_or(|front| front.offset >= first) {
                return true;
            }
            self.pop(now);
        }
        self.front().is_none_or(|front| front.offset >= first)
    }

    /// Drops the oldest entry. Returns its memory.
    pub(super) fn pop(&mut self, now: Instant) -> usize {
        let bytes = self.drop_oldest();
        if self.entries == 0 {
            self.emptied = Some(now);
        }
        bytes
    }

    fn drop_oldest(&mut self) -> usize {
        let Some(chunk) = self.chunks.front_mut() else { return 0 };
        let entry = Arc::make_mut(chunk).pop_front();
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        if let (Some(entry), Some(memory)) = (&entry, &self.memory)
            && Arc::strong_count(entry) > 1
        {
            entry.frame.count_in(memory);
        }
        let bytes = entry.map_or(0, |entry| entry.bytes());
        self.entries -= 1;
        self.bytes -= bytes;
        bytes
    }

    /// Drops all entries. Nothing of the log is counted any longer.
    pub(super) fn clear(&mut self) {
        while self.entries > 0 {
            self.drop_oldest();
        }
        self.bytes = 0;
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.chunks.front().and_then(|chunk| chunk.front()).map(|entry| &**entry)
    }

    /// A snapshot of the entries from this offset on.
    pub(super) fn snapshot(&self, from: u64) -> Snapshot {
        let is_before = |chunk: &Chunk| chunk.back().is_some_and(|last| last.offset < from);
        let skipped = self.chunks.partition_point(is_before);
        let chunks: VecDeque<Chunk> = self.chunks.iter().skip(skipped).cloned().collect();
        let at = chunks.front().map_or(0, |chunk| chunk.partition_point(|entry| entry.offset < from));
        Snapshot { chunks, at }
    }
}

/// Entries of a log, as they were at one time.
#[derive(Default)]
pub(super) struct Snapshot {
    chunks: VecDeque<Chunk>,
    /// The index in the first chunk.
    at: usize,
}

impl Snapshot {
    /// The entries, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        let (first, others) = match self.chunks.len() {
            0 => (None, 0),
            _ => (self.chunks.front(), 1),
        };
        let first = first.into_iter().flat_map(|chunk| chunk.iter().skip(self.at));
        let others = self.chunks.iter().skip(others).flat_map(|chunk| chunk.iter());
        first.chain(others).map(|entry| &**entry)
    }

    /// Puts later entries at the end.
    pub(super) fn append(&mut self, mut later: Self) {
        // The entries before `at` may be here already.
        if later.at > 0
            && let Some(chunk) = later.chunks.front_mut()
        {
            *chunk = Arc::new(chunk.iter().skip(later.at).cloned().collect());
        }
        if self.chunks.is_empty() {
            self.at = 0;
        }
        self.chunks.extend(later.chunks.into_iter().filter(|chunk| !chunk.is_empty()));
    }

    /// Moves past everything before this offset.
    pub(super) fn skip_to(&mut self, offset: u64) {
        while self.chunks.front().is_some_and(|chunk| chunk.back().is_some_and(|last| last.offset < offset)) {
            self.chunks.pop_front();
            self.at = 0;
        }
        if let Some(chunk) = self.chunks.front() {
            self.at = self.at.max(chunk.partition_point(|entry| entry.offset < offset));
        }
    }

    /// Takes the next entry. Chunks that were walked are let go.
    pub(super) fn next(&mut self) -> Option<Arc<Entry>> {
        loop {
            let chunk = self.chunks.front()?;
            if let Some(entry) = chunk.get(self.at) {
                self.at += 1;
                return Some(Arc::clone(entry));
            }
            self.chunks.pop_front();
            self.at = 0;
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.len() <= 1 && self.chunks.front().is_none_or(|chunk| self.at >= chunk.len())
    }
}
