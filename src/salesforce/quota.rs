//! [`Quota`]: how many calls to the org one user may cause in a minute.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fault::Fault;
use crate::expiring::Expiring;

/// The time that a user's calls are counted for, from the first of them.
const MINUTE: Duration = Duration::from_mins(1);

/// The most users that are counted at once. Beyond, the count that would end next is forgotten.
const USERS_MAX: usize = 10_000;

/// The calls of each user.
pub(super) struct Quota {
    /// Zero: no limit.
    calls_max: u32,
    users: Mutex<Expiring<String, Calls>>,
}

struct Calls {
    /// Calls, refused ones included.
    asked: u32,
    since: Instant,
}

impl Quota {
    /// Allows each user `calls_max` calls a minute; zero: any number.
    pub(super) fn new(calls_max: u32) -> Self {
        Self { calls_max, users: Mutex::new(Expiring::new(USERS_MAX)) }
    }

    /// Counts a call that a user is about to cause, or refuses it.
    pub(super) fn take(&self, now: Instant, user: &str) -> Result<(), Fault> {
        if self.calls_max == 0 {
            return Ok(());
        }
        let mut users = self.users.lock();
        users.expire(now);
        let Some(calls) = users.get_mut(user) else {
            users.insert(now, user.to_owned(), Calls { asked: 1, since: now }, MINUTE);
            return Ok(());
        };
        calls.asked = calls.asked.saturating_add(1);
        if calls.asked <= self.calls_max {
            return Ok(());
        }
        let left = MINUTE.saturating_sub(now.saturating_duration_since(calls.since));
        let refused = Fault::too_many_calls(self.calls_max, left);
        // One line in the log for each user and minute is enough.
        Err(if calls.asked == self.calls_max.saturating_add(1) { refused } else { refused.while_open() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        Instant::now()
    }

    #[test]
    fn each_user_has_so_many_calls_in_a_minute() {
        let now = start();
        let quota = Quota::new(2);
        assert!(quota.take(now, "alice").is_ok() && quota.take(now + MINUTE / 2, "alice").is_ok());
        let refused = quota.take(now + MINUTE / 2, "alice").unwrap_err();
        assert_eq!(
            refused.refusal().to_string(),
            "RATE_LIMITED: this user has caused 2 calls to Salesforce within a minute; try again in 30 s"
        );
        let again = quota.take(now + MINUTE / 2, "alice").unwrap_err();
        assert!(again != refused && again == refused.while_open(), "logged once");
        assert!(quota.take(now, "bob").is_ok() && quota.take(now + MINUTE, "alice").is_ok());
        let unlimited = Quota::new(0);
        assert!((0..1000).all(|_| unlimited.take(now, "alice").is_ok()));
    }

    #[test]
    fn many_threads_take_exactly_what_is_allowed() {
        const THREADS: usize = 64;
        const USERS: [&str; 4] = ["a", "b", "c", "d"];
        let now = start();
        let (quota, taken) = (Quota::new(120), [const { AtomicU32::new(0) }; USERS.len()]);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for call in 0..400 {
                        let user = call % USERS.len();
                        if quota.take(now, USERS[user]).is_ok() {
                            taken[user].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.map(AtomicU32::into_inner), [120; USERS.len()]);
    }

    #[test]
    fn the_number_of_users_that_are_counted_is_bounded() {
        let now = start();
        let quota = Quota::new(1);
        for user in 0..=USERS_MAX {
            assert!(quota.take(now, &user.to_string()).is_ok());
        }
        assert_eq!(quota.users.lock().len(), USERS_MAX);
    }
}
