//! [`Proven`]: when the proof of a session ends. A session whose proof never ends has none.
//!
//! Some proofs end by the time of day, which the connection gets from [`Settings`](super::Settings): a clock that stands
//! still while a laptop sleeps would accept a token for too long. So the time of day is looked at every 30 s.

use std::time::{Duration, Instant, SystemTime};

use wire::{Close, CloseCode, ErrorCode, Refusal, notice};

use super::timer::Timer;
use super::{Connection, Effect};
use crate::auth::{Ends, Identity};
use crate::router::Router;

/// How long before the end the application gets `Broker/Connection/Expiring`.
const NOTICE_BEFORE: Duration = Duration::from_mins(1);

/// The longest time between two looks at the time of day.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// One moment, by the monotonic clock and by the calendar.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) time_of_day: SystemTime,
}

/// The end of what proves a session.
pub(super) struct Proven {
    end: End,
    /// A reload has changed what proves the session: the proof ends at this time, if not earlier.
    limit: Option<Instant>,
    /// The application has been sent `Broker/Connection/Expiring` for this proof.
    is_announced: bool,
}

/// When a proof ends.
#[derive(Clone, Copy)]
enum End {
    /// By the monotonic clock.
    At(Instant),
    /// By the time of day. The broker accepts it for `leeway` longer than it tells the application.
    OnDay { expires: SystemTime, leeway: Duration },
}

impl Proven {
    /// The end of the proof of an identity that was verified just now. `None` if it never ends.
    pub(super) fn new(now: Instant, identity: &Identity) -> Option<Self> {
        let end = match identity.ends {
            Ends::Never => return None,
            Ends::After(lasts) => End::At(now + lasts),
            Ends::At { expires, leeway } => End::OnDay { expires, leeway },
        };
        Some(Self { end, limit: None, is_announced: false })
    }

    /// A proof that would never end, and ends at this time because of a reload.
    fn limited(limit: Instant) -> Self {
        Self { end: End::At(limit), limit: Some(limit), is_announced: false }
    }

    /// Returns `ExpiresInSeconds`: whole seconds, rounded up.
    fn expires_in_seconds(&self, moment: Moment) -> u64 {
        let left = self.left(moment);
        left.as_secs() + u64::from(left.subsec_nanos() > 0)
    }

    /// The time until the proof expires, without leeway.
    fn left(&self, moment: Moment) -> Duration {
        self.own_time(moment).min(self.limit_in(moment.now))
    }

    /// The same without regard to a reload.
    fn own_time(&self, Moment { now, time_of_day }: Moment) -> Duration {
        match self.end {
            End::At(end) => end.saturating_duration_since(now),
            End::OnDay { expires, .. } => expires.duration_since(time_of_day).unwrap_or_default(),
        }
    }

    /// The time until the limit that a reload has set.
    fn limit_in(&self, now: Instant) -> Duration {
        self.limit.map_or(Duration::MAX, |limit| limit.saturating_duration_since(now))
    }

    /// The time until the broker no longer accepts the proof.
    fn accepted_for(&self, moment: Moment) -> Duration {
        let own = self.own_time(moment);
        let accepted = match self.end {
            End::OnDay { expires, leeway } => {
                let over = moment.time_of_day.duration_since(expires).unwrap_or_default();
                own.saturating_add(leeway).saturating_sub(over)
            }
            End::At(_) => own,
        };
        accepted.min(self.limit_in(moment.now))
    }

    /// Returns `ExpiresInSeconds` if the application has to be told now that the proof ends soon. It is told once.
    fn announce(&mut self, moment: Moment) -> Option<u64> {
        let is_soon = self.left(moment) <= NOTICE_BEFORE;
        if !is_soon || std::mem::replace(&mut self.is_announced, true) {
            return None;
        }
        Some(self.expires_in_seconds(moment))
    }

    /// When to look at it next.
    fn next_look(&self, moment: Moment) -> Instant {
        let next = match self.is_announced {
            true => self.accepted_for(moment),
            false => self.left(moment).saturating_sub(NOTICE_BEFORE),
        };
        let most = match self.end {
            End::OnDay { .. } => LOOK_EVERY,
            End::At(_) => Duration::MAX,
        };
        moment.now + next.min(most)
    }

    /// Why the session ends, for the application.
    fn refusal(&self, now: Instant) -> Refusal {
        let words = match self.end {
            _ if self.limit_in(now).is_zero() => {
                "the configuration of the issuer that proved this session has changed (its keys, audience or claims): connect \
                 again, and register with a new token; Broker/Application/Renew replaces it in time"
            }
            End::At(_) => {
                "the proof of who this session is has expired (auth.session_max): connect again, and register with a new \
                 one; Broker/Application/Renew replaces it in time"
            }
            End::OnDay { .. } => {
                "the proof of who this session is has expired: connect again, and register with a new one; \
                 Broker/Application/Renew replaces it in time"
            }
        };
        Refusal::new(ErrorCode::Unauthenticated, words)
    }
}

impl Connection {
    /// Keeps what proves the session now. Returns `ExpiresInSeconds` for the reply, after which
    /// [`Connection::watch_proof`] has to follow.
    pub(super) fn keep_proof(&mut self, now: Instant, proven: Option<Proven>) -> Option<u64> {
        let expires = proven.as_ref().map(|proven| proven.expires_in_seconds(self.settings.moment(now)));
        self.proven = proven.map(Box::new);
        expires
    }

    /// Takes over that a reload has set an end to the proof of the session.
    pub(super) fn limit_proof(&mut self, now: Instant, limit: Instant) {
        match &mut self.proven {
            Some(proven) => proven.limit = Some(proven.limit.map_or(limit, |other| other.min(limit))),
            none => *none = Some(Box::new(Proven::limited(limit))),
        }
        self.watch_proof(now);
    }

    /// Says that the proof ends soon if it does, and sets the timer for the next look at it.
    pub(super) fn watch_proof(&mut self, now: Instant) {
        let Some(proven) = &mut self.proven else {
            self.timers.stop(Timer::Proof);
            return;
        };
        let moment = self.settings.moment(now);
        let (announced, next) = (proven.announce(moment), proven.next_look(moment));
        if let Some(seconds) = announced {
            self.push(now, notice::expiring(seconds));
        }
        self.timers.set(Timer::Proof, next);
    }

    /// Looks at the proof. Ends the session if the proof has ended.
    pub(super) fn check_proof(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let accepted = self.proven.as_ref()?.accepted_for(self.settings.moment(now));
        if !accepted.is_zero() {
            self.watch_proof(now);
            return None;
        }
        let refusal = self.proven.as_ref()?.refusal(now);
        self.log_refusal(None, &refusal);
        self.push(now, notice::error(None, &refusal));
        Some(self.close(now, router, Close::new(CloseCode::Unauthenticated, "the proof of identity has expired")))
    }

    /// When the broker no longer accepts the proof, if it ends.
    pub(super) fn proof_ends(&self, now: Instant) -> Option<Instant> {
        self.proven.as_ref().and_then(|proven| self.proof_accepted_until(now, proven))
    }

    /// Until when a proof is accepted.
    pub(super) fn proof_accepted_until(&self, now: Instant, proven: &Proven) -> Option<Instant> {
        now.checked_add(proven.accepted_for(self.settings.moment(now)))
    }

    /// Forgets the proof of a session that has ended.
    pub(super) fn forget_proof(&mut self) {
        self.proven = None;
        self.timers.stop(Timer::Proof);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::task::{Context, Poll, Waker};

    use serde_json::Value;

    use super::*;
    use crate::auth::{Claim, Permissions, Proved, Review, Verification, Verifier};
    use crate::config::Limits;
    use crate::connection::tests::{alice, check_close, registered_as, start, taken};
    use crate::connection::{Input, Settings};
    use crate::router::{Registration, Session};

    const MINUTE: Duration = Duration::from_mins(1);

    /// Settings of a broker that never pings, so that only the proof is waited for.
    fn quiet() -> Settings {
        Settings::new(Limits { heartbeat: Duration::from_hours(100), ..Limits::default() })
    }

    /// `ExpiresInSeconds` of the messages that wait, each with its subtopic.
    fn told(now: Instant, connection: &mut Connection, router: &Router) -> Vec<(String, Value)> {
        let read = |text: String| {
            let message: Value = serde_json::from_str(&text).unwrap();
            (message["subtopic"].as_str().unwrap().to_owned(), message["data"]["ExpiresInSeconds"].clone())
        };
        taken(now, connection, router).into_iter().map(read).collect()
    }

    fn said(subtopic: &str, seconds: impl Into<Value>) -> (String, Value) {
        (subtopic.to_owned(), seconds.into())
    }

    #[test]
    fn an_application_is_told_a_minute_before_its_proof_ends() {
        let identity = Identity { ends: Ends::After(60 * MINUTE), ..alice() };
        let (now, mut connection, router) = registered_as(start(), quiet(), identity);
        assert_eq!(told(now, &mut connection, &router), [said("Register", 3600)]);
        let soon = now + 59 * MINUTE;
        assert_eq!(connection.deadline(), Some(soon));
        assert!(connection.handle(soon, Input::Timeout, &router).is_none());
        assert_eq!(told(soon, &mut connection, &router), [said("Expiring", 60)]);
        let end = now + 60 * MINUTE;
        assert_eq!(connection.deadline(), Some(end));
        let effect = connection.handle(end, Input::Timeout, &router);
        check_close(effect, CloseCode::Unauthenticated, "the proof of identity has expired");
        assert!(taken(end, &mut connection, &router).last().is_some_and(|text| text.contains("auth.session_max")));
        assert!(connection.session().is_none());
    }

    #[test]
    fn an_application_with_less_than_a_minute_is_told_after_the_reply() {
        let identity = Identity { ends: Ends::After(Duration::from_millis(20_500)), ..alice() };
        let (now, mut connection, router) = registered_as(start(), quiet(), identity);
        assert_eq!(told(now, &mut connection, &router), [said("Register", 21), said("Expiring", 21)]);
        assert_eq!(connection.deadline(), Some(now + Duration::from_millis(20_500)));
    }

    #[test]
    fn a_session_without_an_end_is_told_so_and_waits_for_nothing() {
        let (now, mut connection, router) = registered_as(start(), quiet(), alice());
        assert_eq!(told(now, &mut connection, &router), [said("Register", Value::Null)]);
        assert!(connection.timers.get(Timer::Proof).is_none());
    }

    /// A laptop sleeps: the calendar jumps ahead, and the monotonic clock stands still.
    #[test]
    fn the_time_of_day_is_looked_at_every_30_s() {
        let (began, slept) = (start(), Arc::new(AtomicU64::new(0)));
        let asleep = Arc::clone(&slept);
        let day = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let time_of_day = move |now: Instant| day + (now - began) + Duration::from_secs(asleep.load(Ordering::Relaxed));
        let (expires, leeway) = (day + 60 * MINUTE, Duration::from_secs(30));
        let identity = Identity { ends: Ends::At { expires, leeway }, ..alice() };
        let (mut now, mut connection, router) = registered_as(began, quiet().with_time_of_day(time_of_day), identity);
        assert_eq!(told(now, &mut connection, &router), [said("Register", 3600)]);
        let look = |connection: &mut Connection, now: &mut Instant, waited: u64| {
            assert_eq!(connection.deadline(), Some(*now + Duration::from_secs(waited)));
            *now += Duration::from_secs(waited);
            connection.handle(*now, Input::Timeout, &router)
        };
        assert!(look(&mut connection, &mut now, 30).is_none());
        assert_eq!(told(now, &mut connection, &router), []);

        slept.store(3600 - 30 - 45, Ordering::Relaxed);
        assert!(look(&mut connection, &mut now, 30).is_none());
        assert_eq!(told(now, &mut connection, &router), [said("Expiring", 15)]);
        assert!(look(&mut connection, &mut now, 30).is_none(), "the broker accepts it for the leeway");
        assert_eq!(told(now, &mut connection, &router), []);
        let effect = look(&mut connection, &mut now, 15);
        check_close(effect, CloseCode::Unauthenticated, "the proof of identity has expired");
    }

    /// Says that all proofs end in a minute, if not earlier.
    struct Replaced;

    impl Verifier for Replaced {
        fn verify(&self, _claim: Claim) -> Verification<'_> {
            Box::pin(std::future::pending())
        }

        fn review(&self, proved: &Proved<'_>) -> Review {
            Review::KeepFor { permissions: proved.permissions.clone(), longest: MINUTE }
        }
    }

    fn is_ready(connection: &Connection) -> bool {
        connection.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_proof_that_a_reload_replaces_ends_in_a_minute() {
        for ends in [Ends::After(60 * MINUTE), Ends::Never] {
            let (now, mut connection, router) = registered_as(start(), quiet(), Identity { ends, ..alice() });
            taken(now, &mut connection, &router);
            assert!(!is_ready(&connection));
            let reviewed = router.review(now, &Replaced);
            assert_eq!((reviewed.ended, reviewed.changed, reviewed.expiring), (0, 0, 1));
            assert!(is_ready(&connection), "its task is woken");
            assert_eq!(told(now, &mut connection, &router), []);
            assert_eq!(told(now, &mut connection, &router), [said("Expiring", 60)]);
            // Another reload does not prolong it.
            let later = now + MINUTE / 2;
            router.review(later, &Replaced);
            assert_eq!(told(later, &mut connection, &router), []);
            assert!(!is_ready(&connection), "it is told once");
            let end = now + MINUTE;
            assert_eq!(connection.deadline(), Some(end));
            let effect = connection.handle(end, Input::Timeout, &router);
            check_close(effect, CloseCode::Unauthenticated, "the proof of identity has expired");
            let last = taken(end, &mut connection, &router).pop();
            assert!(last.is_some_and(|text| text.contains("UNAUTHENTICATED") && text.contains("of the issuer")));
        }
    }

    #[test]
    fn a_proof_that_ends_earlier_is_not_prolonged_by_a_reload() {
        let identity = Identity { ends: Ends::After(MINUTE / 2), ..alice() };
        let (now, mut connection, router) = registered_as(start(), quiet(), identity);
        assert_eq!(told(now, &mut connection, &router), [said("Register", 30), said("Expiring", 30)]);
        router.review(now, &Replaced);
        assert_eq!(told(now, &mut connection, &router), []);
        assert_eq!(told(now, &mut connection, &router), []);
        assert_eq!(connection.deadline(), Some(now + MINUTE / 2));
    }

    /// While the peer takes nothing, no frames are taken from the queue either.
    #[test]
    fn a_peer_that_takes_nothing_does_not_put_off_the_end() {
        let (now, mut connection, router) = registered_as(start(), quiet(), alice());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(connection.poll_end(&mut cx).is_pending());
        router.review(now, &Replaced);
        assert!(matches!(connection.poll_end(&mut cx), Poll::Ready(None)));
        assert!(connection.handle(now, Input::Timeout, &router).is_none());
        assert!(connection.poll_end(&mut cx).is_pending());
        let effect = connection.handle(now + MINUTE, Input::Timeout, &router);
        check_close(effect, CloseCode::Unauthenticated, "the proof of identity has expired");
    }

    #[test]
    fn a_renewed_proof_has_no_limit_of_an_earlier_reload() {
        const RENEW: &str = r#"{"channel":"Broker","topic":"Application","subtopic":"Renew","data":{"token":"t"}}"#;
        // The connection knows of the reload when it renews, or not yet.
        for knows in [true, false] {
            let identity = || Identity { ends: Ends::After(60 * MINUTE), ..alice() };
            let (now, mut connection, router) = registered_as(start(), quiet(), identity());
            taken(now, &mut connection, &router);
            router.review(now, &Replaced);
            if knows {
                told(now, &mut connection, &router);
            }
            let effect = connection.handle(now, Input::Text(RENEW), &router);
            assert!(matches!(effect, Some(Effect::Verify(_))), "{effect:?}");
            assert!(connection.handle(now, Input::Verified(Ok(identity())), &router).is_none());
            assert_eq!(told(now, &mut connection, &router).last(), Some(&said("Renew", 3600)));
            assert!(!is_ready(&connection));
            assert_eq!(connection.deadline(), Some(now + 59 * MINUTE));
        }
    }

    /// Judges the first session as `Replaced` does, and renews the other one before it is judged.
    struct RenewsOther<'a> {
        now: Instant,
        router: &'a Router,
        sessions: [Arc<Session>; 2],
        has_renewed: AtomicBool,
    }

    impl Verifier for RenewsOther<'_> {
        fn verify(&self, claim: Claim) -> Verification<'_> {
            Replaced.verify(claim)
        }

        fn review(&self, proved: &Proved<'_>) -> Review {
            let mut others = self.sessions.iter().filter(|session| session.source() != proved.source);
            if !self.has_renewed.swap(true, Ordering::Relaxed) {
                let (router, permissions) = (self.router, Permissions::default());
                let renewed =
                    router.renew_permissions(self.now, others.next().unwrap(), permissions, router.reloads(), || ());
                assert!(renewed);
            }
            Replaced.review(proved)
        }
    }

    #[test]
    fn a_proof_that_is_renewed_during_a_reload_is_not_limited_by_it() {
        let (now, connection, router) = registered_as(start(), quiet(), alice());
        let (source, outbox) = ("screen".to_owned(), quiet().outbox());
        let registration = Registration { source, identity: alice(), echo: false, address: None, outbox, will: None };
        let sessions = [Arc::clone(connection.session().unwrap()), router.attach(now, registration).unwrap()];
        let verifier = RenewsOther { now, router: &router, sessions, has_renewed: AtomicBool::new(false) };
        let reviewed = router.review(now, &verifier);
        assert_eq!((reviewed.ended, reviewed.changed, reviewed.expiring), (0, 0, 1));
        let limited = verifier.sessions.iter().filter(|session| session.outbox().take_proof_end().is_some());
        assert_eq!(limited.count(), 1);
    }
}
