//! [`Applications`]: what all calls of one application use together, so that a rate holds for the application and not for
//! each of its calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wire::{ErrorCode, Refusal};

use crate::auth::Principal;
use crate::config::Limits;
use crate::connection::Rate;
use crate::expiring::Expiring;
use crate::router::Allowance;

/// The applications that are remembered. Beyond that, the one that has not called for longest is forgotten.
const APPLICATIONS_MAX: usize = 10_000;

/// How long an application is remembered after its last call. By then it has earned its burst again.
const REMEMBERED: Duration = Duration::from_mins(1);

/// The applications that called in the last minute.
pub(in crate::server) struct Applications(Mutex<Expiring<(String, Principal), Arc<Application>>>);

impl Default for Applications {
    fn default() -> Self {
        Self(Mutex::new(Expiring::new(APPLICATIONS_MAX)))
    }
}

impl Applications {
    /// The application of this source and user.
    pub(super) fn of(&self, now: Instant, source: &str, principal: &Principal, limits: &Limits) -> Arc<Application> {
        let mut applications = self.0.lock();
        applications.expire(now);
        let key = (source.to_owned(), principal.clone());
        let make = || Arc::new(Application(Mutex::new(Used::new(now, limits))));
        Arc::clone(applications.touch(now, &key, REMEMBERED, make))
    }
}

/// What the calls of one application use.
pub(super) struct Application(Mutex<Used>);

struct Used {
    /// The limits that are counted against.
    limits: [u64; 4],
    messages: Rate,
    bytes: Option<Box<Rate>>,
    requests: usize,
    /// How long its calls may wait for slow receivers.
    allowance: Allowance,
}

impl Used {
    fn new(now: Instant, limits: &Limits) -> Self {
        Self {
            limits: rates(limits),
            messages: Rate::new(now, limits.rate, limits.burst),
            bytes: Rate::of_bytes(now, limits),
            requests: 0,
            allowance: Allowance::publisher(now),
        }
    }
}

fn rates(limits: &Limits) -> [u64; 4] {
    [limits.rate.into(), limits.burst.into(), limits.rate_bytes.into(), limits.message_bytes as u64]
}

impl Application {
    /// Counts a call with a body of this size against `limits.rate` and `limits.rate_bytes`.
    ///
    /// # Errors
    /// After what time it can be made.
    pub(super) fn count(&self, now: Instant, limits: &Limits, body_bytes: usize) -> Result<(), Duration> {
        let mut used = self.0.lock();
        if used.limits != rates(limits) {
            // A reload has changed them.
            let Used { requests, .. } = *used;
            *used = Used { requests, ..Used::new(now, limits) };
        }
        let body_bytes = u32::try_from(body_bytes).unwrap_or(u32::MAX);
        used.messages.lacks(now, 1).map_or(Ok(()), Err)?;
        if let Some(bytes) = &mut used.bytes {
            bytes.lacks(now, body_bytes).map_or(Ok(()), Err)?;
            bytes.count(now, body_bytes);
        }
        used.messages.count(now, 1);
        Ok(())
    }

    /// Counts a request against `limits.pending_requests` until the guard is dropped.
    ///
    /// # Errors
    /// `TOO_MANY_REQUESTS`.
    pub(super) fn begin_request(self: &Arc<Self>, most: usize) -> Result<PendingRequest, Refusal> {
        let mut used = self.0.lock();
        if used.requests >= most {
            let words = format!("the application has {most} requests pending already (limits.pending_requests)");
            return Err(Refusal::new(ErrorCode::TooManyRequests, words));
        }
        used.requests += 1;
        Ok(PendingRequest(Arc::clone(self)))
    }

    /// How long its calls may still wait for slow receivers.
    pub(super) fn may_wait(&self, now: Instant) -> Duration {
        self.0.lock().allowance.left(now)
    }

    /// Its calls have waited for slow receivers.
    pub(super) fn waited(&self, from: Instant, now: Instant) {
        self.0.lock().allowance.spend(from, now);
    }
}

/// Counts a request while it is pending.
pub(super) struct PendingRequest(Arc<Application>);

impl Drop for PendingRequest {
    fn drop(&mut self) {
        self.0.0.lock().requests -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    fn user(name: &str) -> Principal {
        Principal::User(Arc::from(name))
    }

    #[test]
    fn the_calls_of_an_application_share_its_rate() {
        let (now, applications) = (start(), Applications::default());
        let limits = Limits { rate: 2, burst: 3, ..Limits::default() };
        let count = |now, source, whose: &Principal| {
            applications.of(now, source, whose, &limits).count(now, &limits, 10).is_ok()
        };
        let alice = user("alice");
        let counted: Vec<bool> = (0..5).map(|_| count(now, "crm", &alice)).collect();
        assert_eq!(counted, [true, true, true, false, false]);
        assert!(
            count(now, "crm", &user("bob")) && count(now, "cron", &alice) && count(now, "crm", &Principal::Service)
        );
        let later = now + Duration::from_secs(1);
        let counted: Vec<bool> = (0..3).map(|_| count(later, "crm", &alice)).collect();
        assert_eq!(counted, [true, true, false], "what is refused uses nothing");
    }

    #[test]
    fn bytes_count_too_and_a_reload_is_noticed() {
        let (now, applications) = (start(), Applications::default());
        let limits = Limits { rate_bytes: 100, message_bytes: 100, ..Limits::default() };
        let application = applications.of(now, "crm", &Principal::Service, &limits);
        assert_eq!(application.count(now, &limits, 80), Ok(()));
        let after = application.count(now, &limits, 80).unwrap_err();
        assert!((Duration::from_millis(550)..Duration::from_millis(650)).contains(&after), "{after:?}");
        let larger = Limits { rate_bytes: 1000, ..limits };
        assert_eq!(application.count(now, &larger, 80), Ok(()));
    }

    #[test]
    fn pending_requests_are_counted_until_they_end() {
        let (now, applications) = (start(), Applications::default());
        let application = applications.of(now, "crm", &Principal::Service, &Limits::default());
        let first = application.begin_request(1).unwrap();
        assert_eq!(application.begin_request(1).err().unwrap().code, ErrorCode::TooManyRequests);
        drop(first);
        assert!(application.begin_request(1).is_ok());
    }
}
