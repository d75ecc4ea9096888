//! [`Known`]: the ids of events with `once`, so that a second one is not delivered.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::Position;

/// How often the log says that ids are forgotten early.
const LOGGED_EVERY: Duration = Duration::from_mins(1);

/// An id with its log, source and user, as two keyed hashes: 1,000,000 of them would otherwise take hundreds of megabytes.
/// Nobody knows the keys, so nobody can look for two that have the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::router) struct Name([u64; 2]);

/// What became of the first event with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router) struct First {
    pub(in crate::router) position: Position,
    pub(in crate::router) receivers: usize,
}

/// The ids that are known.
#[derive(Default)]
pub(super) struct Known {
    by_name: HashMap<Name, (First, Instant), foldhash::fast::RandomState>,
    /// In the order in which they came.
    order: VecDeque<(Instant, Name)>,
    hashers: [RandomState; 2],
    /// How many were forgotten before their time since the log said so.
    dropped: u64,
    /// How many were forgotten before their time.
    forgotten: u64,
    logged: Option<Instant>,
}

impl Known {
    /// The name of an id.
    pub(super) fn name(&self, log: &str, source: &str, user: Option<&str>, id: &str) -> Name {
        Name(
            [0, 1].map(|which: usize| {
                self.hashers.get(which).map_or(0, |hasher| hasher.hash_one((log, source, user, id)))
            }),
        )
    }

    /// The first event with an id, if it is known still.
    pub(super) fn get(&self, now: Instant, name: &Name, retry: Duration) -> Option<&First> {
        let (first, at) = self.by_name.get(name)?;
        (now.saturating_duration_since(*at) <= retry).then_some(first)
    }

    /// Adds an id.
    pub(super) fn insert(&mut self, now: Instant, name: Name, first: First, (retry, most): (Duration, usize)) {
        self.expire(now, retry);
        while self.by_name.len() >= most && !self.by_name.contains_key(&name) && self.forget_oldest() {
            self.dropped += 1;
            self.forgotten += 1;
        }
        self.by_name.insert(name, (first, now));
        self.order.push_back((now, name));
        let logged_lately = self.logged.is_some_and(|at| now.saturating_duration_since(at) < LOGGED_EVERY);
        if self.dropped > 0 && !logged_lately {
            tracing::warn!(
                dropped = self.dropped,
                "more ids of events with 'once' than history.ids: the oldest are forgotten before history.retry is over"
            );
            (self.dropped, self.logged) = (0, Some(now));
        }
    }

    /// Forgets the ids whose time is over.
    pub(super) fn expire(&mut self, now: Instant, retry: Duration) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > retry) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((at, name)) = self.order.pop_front() else { return false };
        // One that came again after its time has a later place, too.
        if self.by_name.get(&name).is_some_and(|(_, own)| *own == at) {
            self.by_name.remove(&name);
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// How many were forgotten before their time.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}
