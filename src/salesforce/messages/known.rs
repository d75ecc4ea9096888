//! [`Known`]: the records of each call that messages have named. They are kept per user, in memory, for a limited time and
//! within limits: a user with too many loses its own. Does no I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::calls::CallKey;
use crate::config::CallVariables;
use crate::expiring::Expiring;

/// How many calls of all users have known records. Beyond that, the oldest are forgotten.
const CALLS_MAX: usize = 100_000;

/// A record of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The NAME of its table `[salesforce.objects.NAME]`.
    pub(super) name: String,
    /// The record's id in Salesforce, of 18 characters.
    pub(super) id: String,
}

/// The records of all calls.
pub(super) struct Known {
    state: Mutex<State>,
}

struct State {
    /// How long records are known.
    keep: Duration,
    /// How many calls of a user have known records.
    calls_max: usize,
    /// The records of each call, the one named last in front.
    records: Expiring<CallKey, Vec<Record>>,
    /// The calls of each user in `records`, the one known first in front.
    calls: HashMap<Arc<str>, VecDeque<CallKey>>,
}

impl Known {
    /// An empty store with these limits.
    pub(super) fn new(bounds: &CallVariables) -> Self {
        let CallVariables { keep, calls: calls_max, .. } = *bounds;
        let state = State { keep, calls_max, records: Expiring::new(CALLS_MAX), calls: HashMap::new() };
        Self { state: Mutex::new(state) }
    }

    /// Changes the limits. A user with too many calls loses its oldest when another one becomes known. Each record is known
    /// for as long as if it had been named under the new limits.
    pub(super) fn set_bounds(&self, now: Instant, bounds: &CallVariables) {
        let mut state = self.state.lock();
        state.expire(now);
        let before = std::mem::replace(&mut state.keep, bounds.keep);
        state.calls_max = bounds.calls;
        state.records.change_span(now, before, bounds.keep);
    }

    /// Remembers a record of a call, in place of an earlier one of the same NAME.
    pub(super) fn know(&self, now: Instant, key: &CallKey, record: Record) {
        let mut state = self.state.lock();
        state.expire(now);
        if state.records.get(now, key).is_none() {
            state.make_room(key);
            state.calls.entry(Arc::from(key.user())).or_default().push_back(key.clone());
        }
        let keep = state.keep;
        let records = state.records.touch(now, key, keep, Vec::new);
        records.retain(|it| it.name != record.name);
        records.insert(0, record);
    }

    /// The records of a call, the one named last in front.
    pub(super) fn records(&self, now: Instant, key: &CallKey) -> Vec<Record> {
        let mut state = self.state.lock();
        state.expire(now);
        state.records.get(now, key).cloned().unwrap_or_default()
    }
}

impl State {
    fn expire(&mut self, now: Instant) {
        for (key, _) in self.records.expire(now) {
            self.forget(&key);
        }
    }

    fn make_room(&mut self, key: &CallKey) {
        while let Some(own) = self.calls.get(key.user()).filter(|own| own.len() >= self.calls_max.max(1))
            && let Some(oldest) = own.front().cloned()
        {
            self.records.remove(&oldest);
            self.forget(&oldest);
        }
        if self.records.len() >= CALLS_MAX
            && let Some(next) = self.records.deadline()
        {
            self.expire(next);
        }
    }

    fn forget(&mut self, key: &CallKey) {
        if let Some(own) = self.calls.get_mut(key.user()) {
            own.retain(|it| it != key);
            if own.is_empty() {
                self.calls.remove(key.user());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(10);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        Instant::now()
    }

    fn known(calls: usize) -> Known {
        Known::new(&CallVariables { keep: KEEP, calls, ..CallVariables::default() })
    }

    fn record(name: &str, id: &str) -> Record {
        Record { name: name.to_owned(), id: id.to_owned() }
    }

    fn ids(known: &Known, now: Instant, key: &CallKey) -> Vec<String> {
        known.records(now, key).into_iter().map(|it| it.id).collect()
    }

    #[test]
    fn the_records_of_a_call_are_known_the_last_named_first() {
        let (known, now) = (known(10), start());
        let key = CallKey::new("alice", "1");
        for (name, id) in [("Task", "00T1"), ("Case", "5001"), ("Task", "00T2")] {
            known.know(now, &key, record(name, id));
        }
        assert_eq!(ids(&known, now, &key), ["00T2", "5001"]);
        assert!(known.records(now, &CallKey::new("bob", "1")).is_empty());
        assert!(known.records(now + KEEP, &key).is_empty());
        assert!(known.state.lock().calls.is_empty());
    }

    #[test]
    fn a_user_with_too_many_calls_loses_its_own_oldest() {
        let (known, now) = (known(2), start());
        let bobs = CallKey::new("bob", "1");
        known.know(now, &bobs, record("Task", "00T0"));
        for call in ["1", "2", "1", "3", "4"] {
            known.know(now, &CallKey::new("alice", call), record("Task", call));
        }
        let left = |call| ids(&known, now, &CallKey::new("alice", call)).len();
        assert_eq!((left("1"), left("2"), left("3"), left("4")), (0, 0, 1, 1));
        assert_eq!(ids(&known, now, &bobs), ["00T0"]);
    }

    #[test]
    fn other_bounds_hold_from_the_next_record_on() {
        let (known, now) = (known(10), start());
        for call in ["1", "2", "3"] {
            known.know(now, &CallKey::new("alice", call), record("Task", call));
        }
        known.set_bounds(now, &CallVariables { keep: KEEP / 2, calls: 2, ..CallVariables::default() });
        known.know(now, &CallKey::new("alice", "4"), record("Task", "4"));
        let left = |now, call| ids(&known, now, &CallKey::new("alice", call)).len();
        assert_eq!(["1", "2", "3", "4"].map(|call| left(now, call)), [0, 0, 1, 1]);
        assert_eq!(left(now + KEEP / 2, "3"), 0);
        assert!(known.state.lock().calls.is_empty());
    }

    #[test]
    fn many_threads_leave_exactly_the_calls_that_there_is_room_for() {
        const THREADS: usize = 50;
        const CALLS: usize = 40;
        let (known, now) = (known(CALLS), start());
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let known = &known;
                scope.spawn(move || {
                    for number in 0..CALLS {
                        // Every two threads share a user.
                        let key = CallKey::new(&format!("user {}", thread / 2), &format!("{thread}/{number}"));
                        known.know(now, &key, record("Task", "00T1"));
                    }
                });
            }
        });
        let state = known.state.lock();
        assert_eq!((state.records.len(), state.calls.len()), (CALLS * THREADS / 2, THREADS / 2));
        assert!(state.calls.values().all(|own| own.len() == CALLS));
    }
}
