//! [`Requests`]: all pending requests by the time at which they end, and the late replies by the time at which they have
//! blocked an ordered handler for too long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::router::RequestId;
use crate::router::ids::Serial;
use crate::router::request::pending::Pending;
use crate::router::session::Session;
use crate::router::sync::Mutex;

/// Deadlines are sharded, so that requesters do not contend for one lock.
const SHARDS: usize = 16;

/// What is due, by time and by the request's serial.
type Deadlines<T> = BTreeMap<(Instant, Serial), T>;

/// All pending requests, and when they end.
pub(in crate::router) struct Requests {
    by_deadline: [Mutex<Deadlines<Arc<Pending>>>; SHARDS],
    /// The sessions whose late reply blocks an ordered handler, and how long they may.
    blocked: Mutex<Deadlines<(RequestId, Arc<Session>)>>,
    /// In microseconds.
    blocked_max: AtomicU64,
    started: Instant,
    /// When the caller of [`Requests::deadline`] will wake up: microseconds since `started`.
    armed: AtomicU64,
    earlier: Arc<Notify>,
}

impl Requests {
    pub(in crate::router) fn new(now: Instant, blocked_max: Duration) -> Self {
        Self {
            by_deadline: Default::default(),
            blocked: Mutex::default(),
            blocked_max: AtomicU64::new(micros(blocked_max)),
            started: now,
            armed: AtomicU64::new(u64::MAX),
            earlier: Arc::new(Notify::new()),
        }
    }

    pub(super) fn schedule(&self, pending: &Arc<Pending>, deadline: Instant) {
        self.shard(pending.serial).lock().insert((deadline, pending.serial), Arc::clone(pending));
        self.wake_before(deadline);
    }

    pub(super) fn unschedule(&self, pending: &Pending, deadline: Instant) {
        let removed = self.shard(pending.serial).lock().remove(&(deadline, pending.serial));
        debug_assert!(removed.is_some(), "an open request has a deadline");
    }

    /// Starts the time for which a session may block an ordered handler with its late reply to this request. Returns when
    /// it ends.
    pub(in crate::router) fn start_blocked(
        &self,
        now: Instant,
        late: Serial,
        id: RequestId,
        session: &Arc<Session>,
    ) -> Instant {
        let until = now + self.blocked_max();
        self.blocked.lock().insert((until, late), (id, Arc::clone(session)));
        self.wake_before(until);
        until
    }

    /// Stops the time that [`Requests::start_blocked`] started.
    pub(in crate::router) fn stop_blocked(&self, until: Instant, late: Serial) {
        self.blocked.lock().remove(&(until, late));
    }

    /// Wakes the caller of [`Requests::deadline`] if it means to sleep longer than until this time.
    pub(in crate::router) fn wake_before(&self, deadline: Instant) {
        if self.micros(deadline) < self.armed.load(Ordering::SeqCst) {
            self.earlier.notify_one();
        }
    }

    #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a remainder of SHARDS")]
    fn shard(&self, serial: Serial) -> &Mutex<Deadlines<Arc<Pending>>> {
        &self.by_deadline[(serial.number() % SHARDS as u64) as usize]
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    /// The next deadline, of requests or of what `others` returns. The caller will wake up then.
    pub(in crate::router) fn deadline(&self, others: impl FnOnce() -> Option<Instant>) -> Option<Instant> {
        // Armed before the search, so that a deadline that is set meanwhile is told rather than missed.
        self.armed.store(u64::MAX, Ordering::SeqCst);
        let first = |shard: &Mutex<Deadlines<_>>| shard.lock().first_key_value().map(|((at, _), _)| *at);
        let blocked = self.blocked.lock().first_key_value().map(|((at, _), _)| *at);
        let next = self.by_deadline.iter().filter_map(first).chain(blocked).chain(others()).min();
        if let Some(next) = next {
            self.armed.store(self.micros(next), Ordering::SeqCst);
        }
        next
    }

    /// Notified whenever a deadline is set before the one that [`Requests::deadline`] returned.
    pub(in crate::router) fn earlier(&self) -> &Arc<Notify> {
        &self.earlier
    }

    /// A time that is over.
    pub(in crate::router) fn started(&self) -> Instant {
        self.started
    }

    /// The requests that are due, earliest first.
    pub(in crate::router) fn due(&self, now: Instant) -> impl Iterator<Item = Arc<Pending>> {
        let mut due = BTreeMap::new();
        for shard in &self.by_deadline {
            let shard = shard.lock();
            due.extend(shard.iter().take_while(|((at, _), _)| *at <= now).map(|(key, it)| (*key, Arc::clone(it))));
        }
        due.into_values()
    }

    /// The sessions that have blocked an ordered handler for too long, each with the late request.
    pub(in crate::router) fn due_blocked(&self, now: Instant) -> Vec<(RequestId, Arc<Session>)> {
        let mut blocked = self.blocked.lock();
        let mut due = Vec::new();
        while let Some(entry) = blocked.first_entry().filter(|entry| entry.key().0 <= now) {
            due.push(entry.remove());
        }
        due
    }

    /// Changes how long a late reply may block from now on.
    pub(in crate::router) fn set_blocked_max(&self, blocked_max: Duration) {
        self.blocked_max.store(micros(blocked_max), Ordering::Relaxed);
    }

    /// The time for which a late reply may block an ordered handler.
    pub(in crate::router) fn blocked_max(&self) -> Duration {
        Duration::from_micros(self.blocked_max.load(Ordering::Relaxed))
    }

    /// All that are pending.
    pub(in crate::router) fn all(&self) -> Vec<Arc<Pending>> {
        self.by_deadline.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }

    /// The number of pending requests.
    pub(in crate::router) fn len(&self) -> usize {
        self.by_deadline.iter().map(|shard| shard.lock().len()).sum()
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
