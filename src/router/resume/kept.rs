//! [`Kept`]: how much is kept for all resumable sessions together, and the bounds of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::Resume;
use crate::router::SessionId;

/// What an entry of a queue counts beside its frame.
pub(in crate::router) const ENTRY_BYTES: usize = 48;

/// How long after too much was kept the sessions lose their oldest messages.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// Entries are counted in shards, so that threads do not contend for one counter.
const SHARDS: usize = 16;

/// How many entries are counted in a shard between two looks whether too much is kept.
const LOOK_EVERY: usize = 64;

/// A counter with a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicUsize);

/// What the queues of resumable sessions keep, and its bounds.
pub(in crate::router) struct Kept {
    messages_max: AtomicUsize,
    bytes_max: AtomicUsize,
    total_bytes_max: AtomicUsize,
    /// Memory of the frames, each counted once.
    frame_bytes: AtomicUsize,
    entries: [Counter; SHARDS],
    is_armed: AtomicBool,
    sweep_at: Mutex<Option<Instant>>,
    /// Sessions that are away and whose outbox has ended.
    ended: Mutex<Vec<SessionId>>,
    /// Notices to resumable sessions that their queue is nearly full, and the events that their queues dropped.
    lagging: AtomicU64,
    dropped: AtomicU64,
    /// Notified when a time of [`Kept::sweep_at`] was set, or a session was added to `ended`.
    earlier: Arc<Notify>,
}

impl Kept {
    pub(super) fn new(limits: &Resume, earlier: Arc<Notify>) -> Self {
        Self {
            messages_max: AtomicUsize::new(limits.messages),
            bytes_max: AtomicUsize::new(limits.bytes),
            total_bytes_max: AtomicUsize::new(limits.total_bytes),
            frame_bytes: AtomicUsize::new(0),
            entries: Default::default(),
            is_armed: AtomicBool::new(false),
            sweep_at: Mutex::default(),
            ended: Mutex::default(),
            lagging: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            earlier,
        }
    }

    pub(super) fn set(&self, limits: &Resume) {
        self.messages_max.store(limits.messages, Ordering::Relaxed);
        self.bytes_max.store(limits.bytes, Ordering::Relaxed);
        self.total_bytes_max.store(limits.total_bytes, Ordering::Relaxed);
    }

    /// Messages and bytes that are kept for one session at most.
    pub(in crate::router) fn session_max(&self) -> (usize, usize) {
        (self.messages_max.load(Ordering::Relaxed), self.bytes_max.load(Ordering::Relaxed))
    }

    /// Counts what a session is told about its own queue.
    pub(in crate::router) fn count_notices(&self, lags: bool, dropped: u64) {
        self.lagging.fetch_add(u64::from(lags), Ordering::Relaxed);
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    /// The notices that a queue is nearly full, and the dropped events.
    pub(in crate::router) fn notices(&self) -> (u64, u64) {
        (self.lagging.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }

    /// Counts entries of the session with this number, and memory of frames that no other queue keeps.
    pub(in crate::router) fn add(&self, now: Instant, session: u64, entries: usize, frame_bytes: usize) {
        let before = self.shard(session).fetch_add(entries, Ordering::Relaxed);
        if frame_bytes > 0 {
            self.frame_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        }
        // One frame that is new, or some entries, are soon enough.
        if frame_bytes > 0 || before / LOOK_EVERY != (before + entries) / LOOK_EVERY {
            self.look(now, before + entries);
        }
    }

    /// Looks whether too much may be kept.
    fn look(&self, now: Instant, entries_in_shard: usize) {
        let half = self.total_bytes_max.load(Ordering::Relaxed) / 2;
        // If the total is over its bound, one of these is over half of it.
        if self.frame_bytes() > half || entries_in_shard * ENTRY_BYTES > half / SHARDS {
            self.arm(now);
        }
    }

    /// Entries of the session with this number, and memory of frames, are no longer kept.
    pub(in crate::router) fn subtract(&self, session: u64, entries: usize, frame_bytes: usize) {
        self.shard(session).fetch_sub(entries, Ordering::Relaxed);
        if frame_bytes > 0 {
            self.frame_bytes.fetch_sub(frame_bytes, Ordering::Relaxed);
        }
    }

    #[cold]
    fn arm(&self, now: Instant) {
        if !self.is_armed.swap(true, Ordering::Relaxed) {
            *self.sweep_at.lock() = Some(now + SWEEP_EVERY);
            self.earlier.notify_one();
        }
    }

    /// When a sweep is due, if one is.
    pub(super) fn sweep_at(&self) -> Option<Instant> {
        *self.sweep_at.lock()
    }

    /// Returns whether a sweep is due and more is kept than the bound allows.
    pub(super) fn begin_sweep(&self, now: Instant) -> bool {
        let mut sweep_at = self.sweep_at.lock();
        if sweep_at.is_none_or(|at| at > now) {
            return false;
        }
        *sweep_at = None;
        self.is_armed.store(false, Ordering::Relaxed);
        drop(sweep_at);
        self.bytes() > self.total_bytes_max.load(Ordering::Relaxed)
    }

    /// Returns whether a sweep has to go on: until nine tenths of the bound are reached.
    pub(super) fn is_over_target(&self) -> bool {
        self.bytes() > self.total_bytes_max.load(Ordering::Relaxed) / 10 * 9
    }

    /// Everything that is kept, in bytes.
    pub(in crate::router) fn bytes(&self) -> usize {
        self.frame_bytes() + self.entries() * ENTRY_BYTES
    }

    /// Memory of the frames that are kept.
    pub(in crate::router) fn frame_bytes(&self) -> usize {
        self.frame_bytes.load(Ordering::Relaxed)
    }

    /// The number of entries that are kept.
    pub(in crate::router) fn entries(&self) -> usize {
        self.entries.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }

    /// Notes that the outbox of a session that is away has ended.
    pub(super) fn note_ended(&self, session: SessionId) {
        self.ended.lock().push(session);
        self.earlier.notify_one();
    }

    pub(super) fn has_ended(&self) -> bool {
        !self.ended.lock().is_empty()
    }

    pub(super) fn take_ended(&self) -> Vec<SessionId> {
        std::mem::take(&mut self.ended.lock())
    }

    #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a remainder of SHARDS")]
    fn shard(&self, session: u64) -> &AtomicUsize {
        &self.entries[(session % SHARDS as u64) as usize].0
    }
}
