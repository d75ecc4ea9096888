//! [`Requests`]: what was asked and not answered yet. Whoever ends a [`Pending`] under its lock answers, and nobody else:
//! exactly one answer, the handler's or the broker's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::router::RequestId;
use crate::router::index::Subscription;
use crate::router::request::gather::Gather;
use crate::router::session::Session;
use wire::Triple;

/// Deadlines are sharded, so that askers do not fight for one lock.
const SHARDS: usize = 16;

/// One request, or one handler's part of a gather.
pub(in crate::router) struct Pending {
    pub(in crate::router) id: RequestId,
    pub(in crate::router) asker: Arc<Session>,
    /// The asker's own id, which it sees as `inReplyTo`.
    pub(in crate::router) asker_id: Option<Box<str>>,
    pub(in crate::router) triple: Triple<'static>,
    /// For which user.
    pub(in crate::router) user: Option<Box<str>>,
    pub(in crate::router) timeout: Duration,
    /// Protected: its bytes are zeroised.
    pub(in crate::router) secret: bool,
    pub(in crate::router) idempotent: bool,
    pub(in crate::router) gather: Option<Arc<Gather>>,
    pub(in crate::router) progress: Mutex<Progress>,
}

/// How far a request is.
pub(in crate::router) struct Progress {
    pub(in crate::router) stage: Stage,
    pub(in crate::router) deadline: Instant,
    /// How many handlers it was given to.
    pub(in crate::router) attempts: u8,
    /// The request as it came, where it may have to be sent later or again.
    pub(in crate::router) text: Option<Zeroizing<String>>,
}

/// Where a request is.
#[derive(Clone)]
pub(in crate::router) enum Stage {
    /// With nobody; waits for the turn of one of these ordered handlers.
    Waiting(SmallVec<[Arc<Subscription>; 1]>),
    /// With this handler.
    Given(Arc<Subscription>),
    /// Answered, one way or the other.
    Ended,
}

impl Pending {
    /// Ends it; what it was before, or `None` when somebody else has ended it already.
    pub(in crate::router) fn end(&self) -> Option<Stage> {
        match std::mem::replace(&mut self.progress.lock().stage, Stage::Ended) {
            Stage::Ended => None,
            stage => Some(stage),
        }
    }
}

/// All pending requests, and when they end.
pub(in crate::router) struct Requests {
    by_id: DashMap<RequestId, Arc<Pending>, foldhash::fast::RandomState>,
    deadlines: [Mutex<BTreeSet<(Instant, RequestId)>>; SHARDS],
    started: Instant,
    /// When whoever calls `expire` means to wake up: microseconds since `started`.
    armed: AtomicU64,
    earlier: Notify,
}

impl Requests {
    pub(in crate::router) fn new(now: Instant) -> Self {
        Self {
            by_id: DashMap::default(),
            deadlines: Default::default(),
            started: now,
            armed: AtomicU64::new(u64::MAX),
            earlier: Notify::new(),
        }
    }

    pub(in crate::router) fn find(&self, id: RequestId) -> Option<Arc<Pending>> {
        self.by_id.get(&id).map(|pending| Arc::clone(&pending))
    }

    pub(in crate::router) fn insert(&self, pending: &Arc<Pending>, deadline: Instant) {
        self.by_id.insert(pending.id, Arc::clone(pending));
        pending.asker.holds.lock().asked.insert(pending.id);
        self.schedule(pending.id, deadline);
    }

    /// Forgets a request that has ended.
    pub(in crate::router) fn remove(&self, pending: &Pending) {
        self.by_id.remove(&pending.id);
        pending.asker.holds.lock().asked.remove(&pending.id);
        let deadline = pending.progress.lock().deadline;
        self.shard(pending.id).lock().remove(&(deadline, pending.id));
    }

    /// Moves a deadline.
    pub(in crate::router) fn reschedule(&self, id: RequestId, from: Instant, to: Instant) {
        self.shard(id).lock().remove(&(from, id));
        self.schedule(id, to);
    }

    fn schedule(&self, id: RequestId, deadline: Instant) {
        self.shard(id).lock().insert((deadline, id));
        if self.micros(deadline) < self.armed.load(Ordering::SeqCst) {
            self.earlier.notify_one();
        }
    }

    #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a remainder of SHARDS")]
    fn shard(&self, id: RequestId) -> &Mutex<BTreeSet<(Instant, RequestId)>> {
        &self.deadlines[(id.number() % SHARDS as u64) as usize]
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    /// The next deadline; whoever asks means to wake up then.
    pub(in crate::router) fn deadline(&self) -> Option<Instant> {
        // Armed before the look: a deadline that comes meanwhile is told rather than missed.
        self.armed.store(u64::MAX, Ordering::SeqCst);
        let next = self.deadlines.iter().filter_map(|shard| shard.lock().first().map(|(at, _)| *at)).min();
        if let Some(next) = next {
            self.armed.store(self.micros(next), Ordering::SeqCst);
        }
        next
    }

    /// Told whenever a deadline comes before the one that [`Requests::deadline`] gave.
    pub(in crate::router) fn earlier(&self) -> &Notify {
        &self.earlier
    }

    /// The requests that are due, earliest first.
    pub(in crate::router) fn due(&self, now: Instant) -> Vec<Arc<Pending>> {
        let mut due = Vec::new();
        for shard in &self.deadlines {
            due.extend(shard.lock().iter().take_while(|(at, _)| *at <= now).copied());
        }
        due.sort_unstable();
        due.into_iter().filter_map(|(_, id)| self.find(id)).collect()
    }

    /// Those that are pending, in no order.
    pub(in crate::router) fn ids(&self) -> Vec<RequestId> {
        self.by_id.iter().map(|pending| *pending.key()).collect()
    }

    /// How many are pending.
    pub(in crate::router) fn len(&self) -> usize {
        self.by_id.len()
    }
}
