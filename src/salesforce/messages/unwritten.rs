//! [`Unwritten`]: the ended calls whose variables Salesforce could not take, because it failed or was away. No other event
//! of such a call follows, so each is tried again until its variables are written or expire.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::calls::{CallKey, VARIABLE_BYTES};
use crate::backoff::Backoff;
use crate::config::CallVariables;
use crate::expiring::Expiring;

/// The waits of one call between attempts.
const OF_CALL: Backoff =
    Backoff { least: Duration::from_millis(500), first: Duration::from_secs(1), most: Duration::from_mins(5) };

/// The waits between attempts of any calls while Salesforce as a whole fails: an outage costs about eight attempts a
/// minute, however many calls wait.
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
    /// Attempts in a row that failed because Salesforce as a whole did.
    failures: u32,
    chance: StdRng,
}

impl Unwritten {
    /// Room for every call that can have variables.
    pub(super) fn new(bounds: &CallVariables) -> Self {
        let state = State {
            waiting: Expiring::new(calls_max(bounds)),
            due: VecDeque::new(),
            failures: 0,
            chance: StdRng::seed_from_u64(rand::random()),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Changes the bounds. Calls that wait already stay until another one needs the room.
    pub(super) fn set_bounds(&self, bounds: &CallVariables) {
        self.state.lock().waiting.set_entries_max(calls_max(bounds));
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

    /// The attempt has failed, as those of other calls will. Returns when the next one of any call may be made.
    pub(super) fn all_failed(&self) -> Instant {
        let mut state = self.state.lock();
        let State { failures, chance, .. } = &mut *state;
        let wait = OF_ALL.wait(*failures, chance);
        *failures = failures.saturating_add(1);
        Instant::now() + wait
    }

    /// Adds a call whose variables could not be written. The next attempt is number `attempts`, counted from 0 after the
    /// first, and not made before `pause` is over.
    pub(super) fn put_off(&self, key: CallKey, attempts: u32, pause: Option<Duration>) {
        let mut state = self.state.lock();
        let State { waiting, chance, .. } = &mut *state;
        let wait = OF_CALL.wait(attempts, chance).max(pause.unwrap_or_default());
        waiting.insert(Instant::now().into_std(), key, attempts, wait);
        drop(state);
        self.changed.notify_one();
    }
}

/// The number of calls that can have variables.
fn calls_max(bounds: &CallVariables) -> usize {
    bounds.total_bytes / VARIABLE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for this number of calls.
    fn room(calls: usize) -> Unwritten {
        Unwritten::new(&CallVariables { total_bytes: calls * VARIABLE_BYTES, ..CallVariables::default() })
    }

    fn key(number: usize) -> CallKey {
        CallKey::new("alice", &number.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_tried_again_with_growing_waits_that_have_an_end() {
        let unwritten = room(10);
        unwritten.put_off(key(1), 0, None);
        let mut last = Duration::ZERO;
        for attempts in 0..20 {
            let before = Instant::now();
            assert_eq!(unwritten.next().await, (key(1), attempts));
            last = before.elapsed();
            assert!(last >= OF_CALL.least && last <= OF_CALL.most + Duration::from_millis(1), "{last:?}");
            unwritten.put_off(key(1), attempts + 1, None);
            assert!(unwritten.all_failed() <= Instant::now() + OF_ALL.most);
        }
        assert!(last > OF_ALL.first, "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_pause_that_is_longer_than_its_own_and_the_others_do_not() {
        let unwritten = room(10);
        let start = Instant::now();
        unwritten.put_off(key(1), 0, Some(Duration::from_secs(42)));
        unwritten.put_off(key(2), 0, Some(Duration::ZERO));
        assert_eq!(unwritten.next().await, (key(2), 0));
        assert!(start.elapsed() <= OF_CALL.first + Duration::from_millis(1));
        assert_eq!(unwritten.next().await, (key(1), 0));
        assert!(start.elapsed() >= Duration::from_secs(42));
    }

    #[tokio::test(start_paused = true)]
    async fn the_call_that_is_due_comes_first_and_one_that_is_added_later_is_noticed() {
        let unwritten = room(10);
        unwritten.put_off(key(1), 10, Some(Duration::from_mins(1)));
        for _ in 0..10 {
            unwritten.all_failed();
        }
        let added = async {
            sleep_until(Instant::now() + Duration::from_millis(10)).await;
            unwritten.put_off(key(2), 0, None);
        };
        let ((next, _), ()) = tokio::join!(unwritten.next(), added);
        assert_eq!(next, key(2), "although the other was there first");
        unwritten.succeeded();
        assert!(unwritten.all_failed() <= Instant::now() + OF_ALL.first, "a success starts the waits anew");
    }

    #[tokio::test(start_paused = true)]
    async fn many_threads_add_each_call_once_and_no_more_than_there_is_room_for() {
        const THREADS: usize = 20;
        const CALLS: usize = 50;
        let (all, few) = (room(THREADS * CALLS), room(100));
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (all, few, runtime) = (&all, &few, runtime.clone());
                scope.spawn(move || {
                    let _clock = runtime.enter();
                    for number in 0..CALLS {
                        for unwritten in [all, all, few] {
                            unwritten.put_off(key(thread * CALLS + number), 0, None);
                        }
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
