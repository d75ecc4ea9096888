//! [`ReadWatch`]: gives up what the disk does not read in time, so that no subscription waits for a disk that hangs.
//!
//! A thread that waits for the disk cannot do anything else. This one refuses what that thread reads, and then everything
//! that waits or arrives, until the disk answers. What the disk reads after all is discarded. Either the thread that reads
//! takes a read back from here, or this one refuses it, never both.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::now;
use crate::router::{DiskRead, ReadQueue, Router};
use crate::server::committer::Settings;
use crate::store::StoreError;
use crate::store::history::{Entry, Pin, ReadRange, Unread};
use crate::telemetry::metrics::StoredFile;

/// The reads that take turns. Others wait in the queue.
const TURNS_MAX: usize = 1024;

/// How often reads are refused while the disk does not answer.
const REFUSE_EVERY: Duration = Duration::from_millis(20);

/// The reads that wait for the disk, and the one that it does now.
pub(in crate::server) struct ReadWatch {
    router: Arc<Router>,
    settings: Arc<ArcSwap<Settings>>,
    state: Mutex<State>,
    /// `None`: the thread that reads has ended. This lock may be taken while that of the state is held. The thread that
    /// reads holds it while it waits for reads, and the disk does nothing meanwhile.
    queue: Mutex<Option<ReadQueue>>,
    /// Something other than time decides when to look next.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    turns: VecDeque<Turn>,
    /// When the read began that the disk does now.
    begun: Option<Instant>,
    /// That read, unless it was refused.
    read: Option<DiskRead>,
    is_given_up: bool,
    has_ended: bool,
}

/// A read that waits for its turn.
struct Turn {
    read: DiskRead,
    since: Instant,
}

impl ReadWatch {
    pub(in crate::server) fn new(router: &Arc<Router>, queue: ReadQueue, settings: &Arc<ArcSwap<Settings>>) -> Self {
        Self {
            router: Arc::clone(router),
            settings: Arc::clone(settings),
            state: Mutex::default(),
            queue: Mutex::new(Some(queue)),
            changed: Condvar::new(),
        }
    }

    /// Takes the next read, which begins. Waits for it up to `wait`. Refuses reads that have waited too long for their turns.
    ///
    /// # Errors
    /// None came in time, or none will come.
    pub(super) fn begin_next(&self, wait: Duration) -> Result<(ReadRange, Pin), RecvTimeoutError> {
        self.fill_turns()?;
        loop {
            let next = self.state.lock().turns.pop_front();
            let Turn { read, since } = match next {
                Some(turn) => turn,
                None => Turn { read: self.receive(wait)?, since: now() },
            };
            if read.is_abandoned() {
                continue;
            }
            let now = now();
            if now.saturating_duration_since(since) >= self.settings.load().timeout {
                self.refuse(read);
                continue;
            }
            let begun = (read.range().clone(), read.pin().clone());
            let mut state = self.state.lock();
            (state.begun, state.read) = (Some(now), Some(read));
            return Ok(begun);
        }
    }

    /// Lets reads that have arrived take turns.
    fn fill_turns(&self) -> Result<(), RecvTimeoutError> {
        let mut state = self.state.lock();
        let queue = self.queue.lock();
        let Some(queue) = queue.as_ref() else { return Err(RecvTimeoutError::Disconnected) };
        let since = now();
        while state.turns.len() < TURNS_MAX {
            match queue.try_receive() {
                Ok(read) => state.turns.push_back(Turn { read, since }),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            }
        }
        Ok(())
    }

    fn receive(&self, wait: Duration) -> Result<DiskRead, RecvTimeoutError> {
        self.queue.lock().as_ref().map_or(Err(RecvTimeoutError::Disconnected), |queue| queue.receive(wait))
    }

    /// The disk has done its work. Returns the read, unless it was refused.
    pub(super) fn end_use(&self) -> Option<DiskRead> {
        let mut state = self.state.lock();
        (state.begun, state.is_given_up) = (None, false);
        state.read.take()
    }

    /// Hands over what was read. If more is to be read for the same purpose, that waits for its turn.
    pub(super) fn take_read(&self, read: DiskRead, outcome: Result<Vec<(u64, Entry)>, Unread>) {
        if let Some(read) = self.router.take_read(read, outcome) {
            self.state.lock().turns.push_back(Turn { read, since: now() });
        }
    }

    /// Counts an error of the disk.
    pub(super) fn count_error(&self) {
        self.router.metrics().storage_errors.count(StoredFile::History);
    }

    /// Lets the thread that watches look at the settings.
    pub(in crate::server) fn look(&self) {
        self.changed.notify_one();
    }

    /// Ends the thread that watches.
    pub(in crate::server) fn end(&self) {
        self.state.lock().has_ended = true;
        self.changed.notify_one();
    }

    /// Watches until [`ReadWatch::end`] is called.
    pub(in crate::server) fn run(&self) {
        let mut state = self.state.lock();
        while !state.has_ended {
            let timeout = self.settings.load().timeout;
            let wait = match state.begun.map(|begun| (begun + timeout).saturating_duration_since(now())) {
                _ if state.is_given_up => {
                    let late = self.take_waiting(&mut state);
                    // Not under the lock: it wakes connections.
                    MutexGuard::unlocked(&mut state, || late.into_iter().for_each(|read| self.refuse(read)));
                    REFUSE_EVERY
                }
                Some(Duration::ZERO) => {
                    state.is_given_up = true;
                    self.count_error();
                    tracing::error!(
                        ?timeout,
                        "the disk does not answer: subscriptions that need events from it are refused"
                    );
                    continue;
                }
                Some(left) => left,
                // What begins from now on is not late before that.
                None => timeout,
            };
            self.changed.wait_for(&mut state, wait);
        }
    }

    /// Takes what the disk reads now, and what waits for it.
    fn take_waiting(&self, state: &mut State) -> Vec<DiskRead> {
        let mut waiting: Vec<DiskRead> = state.read.take().into_iter().collect();
        waiting.extend(state.turns.drain(..).map(|turn| turn.read));
        let queue = self.queue.lock();
        let arrived = || queue.as_ref().and_then(|queue| queue.try_receive().ok());
        waiting.extend(std::iter::from_fn(arrived).take(TURNS_MAX));
        waiting
    }

    fn refuse(&self, read: DiskRead) {
        let words = "the disk took longer than history.timeout to read the history".to_owned();
        // Nothing else is read for it.
        self.router.take_read(read, Err(Unread::Fault(StoreError::Unusable(words))));
    }

    /// Refuses every read when the returned value is dropped. For the end of the thread that reads.
    #[must_use]
    pub(super) fn close_at_end(&self) -> Closing<'_> {
        Closing(self)
    }
}

/// Closes a [`ReadWatch`] when it is dropped.
pub(super) struct Closing<'w>(&'w ReadWatch);

/// Nobody waits for a thread that has ended.
impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        let queue = self.0.queue.lock().take();
        let dropped = (queue, std::mem::take(&mut state.turns), state.read.take());
        (state.begun, state.is_given_up) = (None, false);
        drop(state);
        // Not under the lock: it wakes connections.
        drop(dropped);
    }
}
