//! [`Kept`]: how much is kept for all resumable sessions together, and the bounds of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::Resume;
use crate::router::SessionId;
use crate::router::sync::Mutex;

/// What an entry of a queue counts beside its frame.
pub(in crate::router) const ENTRY_BYTES: usize = 48;

/// How long after too much was kept the sessions lose their oldest messages.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// The memory that one session keeps at most before it is counted. A new event to many sessions is then counted for few.
const CREDIT_MAX: usize = 64 << 10;

/// What the queues of resumable sessions keep, and its bounds.
pub(in crate::router) struct Kept {
    messages_max: AtomicUsize,
    bytes_max: AtomicUsize,
    total_bytes_max: AtomicUsize,
    /// Memory of the frames, each counted once.
    frame_bytes: AtomicUsize,
    entries: AtomicUsize,
    /// The number of sessions that keep messages.
    windows: AtomicUsize,
    /// The memory that these may keep without counting it.
    lent_bytes: AtomicUsize,
    is_armed: AtomicBool,
    sweep_at: Mutex<Option<Instant>>,
    /// Sessions that are away and whose outbox has ended.
    ended: Mutex<Vec<SessionId>>,
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
            entries: AtomicUsize::new(0),
            windows: AtomicUsize::new(0),
            lent_bytes: AtomicUsize::new(0),
            is_armed: AtomicBool::new(false),
            sweep_at: Mutex::default(),
            ended: Mutex::default(),
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

    /// A session begins to keep messages.
    pub(in crate::router) fn open_window(&self) {
        self.windows.fetch_add(1, Ordering::Relaxed);
    }

    /// A session keeps messages no longer. It gives this credit back.
    pub(in crate::router) fn close_window(&self, lent_bytes: usize) {
        self.windows.fetch_sub(1, Ordering::Relaxed);
        self.take_back(lent_bytes);
    }

    /// Lets a session keep up to this number of bytes without counting them. Returns how many: all sessions together get no
    /// more than about a quarter of the bound, and none any more when half of it is used.
    pub(in crate::router) fn lend(&self, most: usize) -> usize {
        let total_bytes_max = self.total_bytes_max.load(Ordering::Relaxed);
        if self.bytes_at_most() > total_bytes_max / 2 {
            return 0;
        }
        let share = total_bytes_max / 4 / self.windows.load(Ordering::Relaxed).max(1);
        let lent = most.min(share).min(CREDIT_MAX);
        self.lent_bytes.fetch_add(lent, Ordering::Relaxed);
        lent
    }

    /// A session gives credit back.
    pub(in crate::router) fn take_back(&self, lent_bytes: usize) {
        if lent_bytes > 0 {
            self.lent_bytes.fetch_sub(lent_bytes, Ordering::Relaxed);
        }
    }

    /// Counts entries, and memory of frames that no other queue keeps. [`Kept::look`] follows.
    pub(in crate::router) fn add(&self, entries: usize, frame_bytes: usize) {
        if entries > 0 {
            self.entries.fetch_add(entries, Ordering::Relaxed);
        }
        if frame_bytes > 0 {
            self.frame_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        }
    }

    /// Looks whether too much may be kept.
    pub(in crate::router) fn look(&self, now: Instant) {
        if self.bytes_at_most() > self.total_bytes_max.load(Ordering::Relaxed) {
            self.arm(now);
        }
    }

    /// Entries, and memory of frames, are no longer kept.
    pub(in crate::router) fn subtract(&self, entries: usize, frame_bytes: usize) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
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

    /// Returns whether a sweep is due: everything has to be counted then.
    pub(super) fn begin_sweep(&self, now: Instant) -> bool {
        let mut sweep_at = self.sweep_at.lock();
        if sweep_at.is_none_or(|at| at > now) {
            return false;
        }
        *sweep_at = None;
        self.is_armed.store(false, Ordering::Relaxed);
        true
    }

    /// Returns whether more is kept than the bound allows.
    pub(super) fn is_over(&self) -> bool {
        self.bytes() > self.total_bytes_max.load(Ordering::Relaxed)
    }

    /// Returns whether a sweep has to go on: until nine tenths of the bound are reached.
    pub(super) fn is_over_target(&self) -> bool {
        self.bytes() > self.total_bytes_max.load(Ordering::Relaxed) / 10 * 9
    }

    /// Everything that is kept at most, in bytes.
    fn bytes_at_most(&self) -> usize {
        self.bytes() + self.lent_bytes.load(Ordering::Relaxed)
    }

    /// Everything that is counted, in bytes.
    pub(in crate::router) fn bytes(&self) -> usize {
        self.frame_bytes() + self.entries() * ENTRY_BYTES
    }

    /// Memory of the frames that are counted.
    pub(in crate::router) fn frame_bytes(&self) -> usize {
        self.frame_bytes.load(Ordering::Relaxed)
    }

    /// The number of entries that are counted.
    pub(in crate::router) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_a_quarter_of_the_bound_and_none_when_half_is_used() {
        let total_bytes = 16 * CREDIT_MAX;
        let kept = Kept::new(&Resume { total_bytes, ..Resume::default() }, Arc::default());
        (0..8).for_each(|_| kept.open_window());
        assert_eq!(kept.lend(usize::MAX), CREDIT_MAX / 2, "a share of eight");
        assert_eq!(kept.lend(100), 100);
        kept.close_window(100);
        kept.add(0, 8 * CREDIT_MAX);
        assert_eq!(kept.lend(usize::MAX), 0, "what is lent counts as used");
        kept.subtract(0, 8 * CREDIT_MAX);
        (0..6).for_each(|_| kept.close_window(0));
        assert_eq!(kept.lend(usize::MAX), CREDIT_MAX);
    }
}
