//! [`DiskWatch`]: gives up what the disk does not write in time, so that no publisher waits for a disk that hangs.
//!
//! A thread that waits for the disk cannot do anything else. This one refuses what that thread has planned, and then
//! everything that arrives, until the disk answers. If it answers after all, what it has written is taken back: an event that
//! was refused is in no log. Either the thread that writes takes the batch back from here, or this one refuses it, never both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use super::work::EVENTS_MAX;
use super::{Settings, now};
use crate::router::{Batch, CommitQueue, Router};
use crate::telemetry::metrics::StoredFile;

/// How often events are refused while the disk does not answer.
const REFUSE_EVERY: Duration = Duration::from_millis(20);

/// What the thread that commits does with the disk, and since when.
pub(super) struct DiskWatch {
    router: Arc<Router>,
    queue: CommitQueue,
    is_failing: Arc<AtomicBool>,
    state: Mutex<State>,
    /// Something other than time decides when to look next.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// When the work began that the disk does now.
    begun: Option<Instant>,
    /// The events for which it is done, unless they were refused.
    batch: Option<Batch>,
    is_given_up: bool,
    has_ended: bool,
}

impl DiskWatch {
    pub(super) fn new(router: &Arc<Router>, queue: &CommitQueue, is_failing: &Arc<AtomicBool>) -> Self {
        Self {
            router: Arc::clone(router),
            queue: queue.clone(),
            is_failing: Arc::clone(is_failing),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The thread that commits begins to use the disk, for these events.
    pub(super) fn begin(&self, now: Instant, batch: Option<Batch>) {
        let mut state = self.state.lock();
        (state.begun, state.batch) = (Some(now), batch);
    }

    /// The disk has done its work. Returns whether it was in time; from then on it cannot be given up.
    pub(super) fn is_wanted(&self) -> bool {
        let mut state = self.state.lock();
        if !state.is_given_up {
            state.begun = None;
        }
        !state.is_given_up
    }

    /// The thread that commits no longer uses the disk. Returns the events, unless they were refused.
    pub(super) fn end_use(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        (state.begun, state.is_given_up) = (None, false);
        state.batch.take()
    }

    /// Lets the thread that watches look at the settings.
    pub(super) fn look(&self) {
        self.changed.notify_one();
    }

    /// Ends the thread that watches.
    pub(super) fn end(&self) {
        self.state.lock().has_ended = true;
        self.changed.notify_one();
    }

    /// Watches until [`DiskWatch::end`] is called.
    pub(super) fn run(&self, settings: &ArcSwap<Settings>) {
        let mut state = self.state.lock();
        while !state.has_ended {
            let (now, timeout) = (now(), settings.load().timeout);
            let wait = match state.begun.map(|begun| (begun + timeout).saturating_duration_since(now)) {
                _ if state.is_given_up => {
                    self.refuse_queued();
                    REFUSE_EVERY
                }
                Some(Duration::ZERO) => {
                    self.give_up(now, timeout, &mut state);
                    continue;
                }
                Some(left) => left,
                // What begins from now on is not late before that.
                None => timeout,
            };
            self.changed.wait_for(&mut state, wait);
        }
    }

    /// Refuses what is being written. The thread that writes takes its turn when the lock is free.
    fn give_up(&self, now: Instant, timeout: Duration, state: &mut State) {
        state.is_given_up = true;
        self.is_failing.store(true, Ordering::Relaxed);
        self.router.metrics().storage_errors.count(StoredFile::History);
        tracing::error!(?timeout, "the disk does not answer: events of durable channels are refused");
        if let Some(batch) = state.batch.take() {
            self.router.finish(now, batch, false);
        }
    }

    /// Refuses the events that have arrived since, apart from those that need not be on disk.
    fn refuse_queued(&self) {
        loop {
            let next = || self.queue.receive(Duration::ZERO).ok();
            let events: Vec<_> = std::iter::from_fn(next).take(EVENTS_MAX).collect();
            if events.is_empty() {
                return;
            }
            let batch = self.router.plan(now(), events);
            self.router.finish(now(), batch, false);
        }
    }
}
