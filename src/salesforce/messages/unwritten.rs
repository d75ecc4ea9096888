//! [`Unwritten`]: the ended calls whose variables Salesforce could not take, because it failed or was away. No other event
//! of such a call follows, so each is tried again until its variables are written or expire.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::calls::CallKey;
use crate::backoff::Backoff;
use crate::expiring::Expiring;

/// The waits of one call between attempts.
const OF_CALL: Backoff =
    Backoff { least: Duration::from_millis(500), first: Duration::from_secs(1), most: Duration::from_mins(5) };

/// The waits between attempts of any calls while they fail: an outage costs about eight attempts a minute, however many
/// calls wait.
const OF_ALL: Backoff =
    Backoff { least: Duration::from_millis(500), first: Duration::from_secs(1), most: Duration::from_secs(15) };

/// The calls that wait for another attempt.
pub(super) struct Unwritten {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// The number of attempts of each call. An entry expires when the next attempt is due.
    waiting: Expiring<CallKey, u32>,
    due: VecDeque<(CallKey, u32)>,
    /// Attempts that failed in a row.
    failures: u32,
    chance: StdRng,
}

impl Unwritten {
    /// Room for `calls_max` calls.
    pub(super) fn new(calls_max: usize) -> Self {
        let state = State {
            waiting: Expiring::new(calls_max),
            due: VecDeque::new(),
            failures: 0,
            chance: StdRng::seed_from_u64(rand::random()),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Adds a call after its first attempt failed.
    pub(super) fn add(&self, key: CallKey) {
        self.put_off(key, 0);
    }

    /// Waits until a call is due, and returns it with the number of its attempts. Cancel-safe.
    pub(super) async fn next(&self) -> (CallKey, u32) {
        loop {
            let changed = self.changed.notified();
            let deadline = {
                let mut state = self.state.lock();
                if state.due.is_empty() {
                    let due = state.waiting.expire(Instant::now().into_std());
                    state.due.extend(due);
                }
                if let Some(next) = state.due.pop_front() {
                    return next;
                }
                state.waiting.deadline()
            };
            match deadline {
                Some(deadline) => tokio::select! {
                    () = sleep_until(deadline.into()) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// The attempt is over, and the call is done.
    pub(super) fn succeeded(&self) {
        self.state.lock().failures = 0;
    }

    /// The attempt has failed. Returns when the next one of any call may be made.
    pub(super) fn failed(&self, key: CallKey, attempts: u32) -> Instant {
        self.put_off(key, attempts.saturating_add(1));
        let mut state = self.state.lock();
        let State { failures, chance, .. } = &mut *state;
        let wait = OF_ALL.wait(*failures, chance);
        *failures = failures.saturating_add(1);
        Instant::now() + wait
    }

    fn put_off(&self, key: CallKey, attempts: u32) {
        let mut state = self.state.lock();
        let State { waiting, chance, .. } = &mut *state;
        let wait = OF_CALL.wait(attempts, chance);
        waiting.insert(Instant::now().into_std(), key, attempts, wait);
        drop(state);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> CallKey {
        CallKey::new("alice", &number.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_tried_again_with_growing_waits_that_have_an_end() {
        let unwritten = Unwritten::new(10);
        unwritten.add(key(1));
        let mut last = Duration::ZERO;
        for attempts in 0..20 {
            let before = Instant::now();
            assert_eq!(unwritten.next().await, (key(1), attempts));
            last = before.elapsed();
            assert!(last >= OF_CALL.least && last <= OF_CALL.most + Duration::from_millis(1), "{last:?}");
            let next = unwritten.failed(key(1), attempts);
            assert!(next <= Instant::now() + OF_ALL.most);
        }
        assert!(last > OF_ALL.first, "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_call_that_is_due_comes_first_and_one_that_is_added_later_is_noticed() {
        let unwritten = Unwritten::new(10);
        for attempts in 0..10 {
            unwritten.failed(key(1), attempts);
        }
        let added = async {
            sleep_until(Instant::now() + Duration::from_millis(10)).await;
            unwritten.add(key(2));
        };
        let ((next, _), ()) = tokio::join!(unwritten.next(), added);
        assert_eq!(next, key(2), "although the other was there first");
        unwritten.succeeded();
        assert!(unwritten.failed(key(2), 0) <= Instant::now() + OF_ALL.first, "a success starts the waits anew");
    }

    #[tokio::test(start_paused = true)]
    async fn many_threads_add_each_call_once_and_no_more_than_there_is_room_for() {
        const THREADS: usize = 20;
        const CALLS: usize = 50;
        let (all, few) = (Unwritten::new(THREADS * CALLS), Unwritten::new(100));
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (all, few, runtime) = (&all, &few, runtime.clone());
                scope.spawn(move || {
                    let _clock = runtime.enter();
                    for number in 0..CALLS {
                        all.add(key(thread * CALLS + number));
                        all.add(key(thread * CALLS + number));
                        few.add(key(thread * CALLS + number));
                    }
                });
            }
        });
        for (unwritten, expected) in [(all, THREADS * CALLS), (few, 100)] {
            let mut found = std::collections::HashSet::new();
            while let Ok((key, _)) = tokio::time::timeout(OF_CALL.most, unwritten.next()).await {
                assert!(found.insert(key), "each comes once");
            }
            assert_eq!(found.len(), expected);
        }
    }
}
