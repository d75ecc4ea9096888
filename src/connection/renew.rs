//! `Broker/Application/Renew`: a new proof for a session that goes on.
//!
//! The connection is not read until the verifier has answered, as with Register. A refused Renew changes nothing: the
//! session keeps its old proof, with its end and its permissions.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::proof::Proven;
use super::register::{DELAY, Verifying};
use super::timer::Timer;
use super::{Connection, Effect, Phase};
use crate::audit::{Entry, Event};
use crate::auth::{AuthError, Claim, Identity};
use crate::router::{Router, Session};
use wire::command::Renew;
use wire::{ErrorCode, Refusal, Triple, notice};

/// A renewal while the verifier looks at it.
pub(super) struct Renewing {
    id: Option<String>,
    /// What is verified, and again if there is a reload meanwhile.
    claim: Claim,
    /// The number of the last reload when the verification began.
    reloads: u64,
}

fn renew() -> Triple<'static> {
    notice::triple("Application", "Renew")
}

impl Connection {
    /// Begins a renewal: asks the verifier about the token, for the source of this session.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        session: &Session,
        id: Option<&str>,
        options: Renew,
        router: &Router,
    ) -> Effect {
        // No connection waits longer for a verifier, as when it registers.
        self.timers.set(Timer::Renewal, now + self.limits.registration);
        let (source, user) = (session.source().to_owned(), session.user().map(str::to_owned));
        let claim = Claim { source, user, token: Some(options.token), certificate: None };
        self.verify_renewal(Renewing { id: id.map(str::to_owned), claim, reloads: router.reloads() })
    }

    fn verify_renewal(&mut self, renewing: Renewing) -> Effect {
        let claim = renewing.claim.clone();
        self.verifying = Some(Box::new(Verifying::Renew(renewing)));
        self.heartbeat.not_read();
        Effect::Verify(claim)
    }

    /// The verifier has answered a renewal.
    pub(super) fn renewed(
        &mut self,
        now: Instant,
        mut renewing: Renewing,
        outcome: Result<Identity, AuthError>,
        router: &Router,
    ) -> Option<Effect> {
        let refusal = match outcome.map(|identity| self.check_same(&identity).map(|()| identity)) {
            Ok(Ok(identity)) => {
                if self.replace_proof(now, &renewing, identity, router) {
                    return None;
                }
                renewing.reloads = router.reloads();
                return Some(self.verify_renewal(renewing));
            }
            Ok(Err(refusal)) => refusal,
            Err(AuthError::Unauthenticated(why)) => {
                if self.settings.failed_logins.fail(now, self.address) {
                    self.timers.stop(Timer::Renewal);
                    renewing.claim.token = None;
                    self.verifying = Some(Box::new(Verifying::Renew(renewing)));
                    self.timers.set(Timer::Delay, now + DELAY);
                    return None;
                }
                Refusal::new(ErrorCode::Unauthenticated, why)
            }
            Err(AuthError::Forbidden(why)) => Refusal::new(ErrorCode::Forbidden, why),
            Err(AuthError::Unavailable(why)) => Refusal::new(ErrorCode::UpstreamUnavailable, why),
        };
        self.timers.stop(Timer::Renewal);
        self.refuse_renewal(now, &renewing, &refusal, router);
        None
    }

    /// The verifier has not answered a renewal in time.
    pub(super) fn renewal_late(&mut self, now: Instant, router: &Router) {
        let Some(Verifying::Renew(renewing)) = self.verifying.take().map(|it| *it) else { return };
        let words = "the new proof could not be verified within limits.registration; try again in a moment";
        self.refuse_renewal(now, &renewing, &Refusal::new(ErrorCode::UpstreamUnavailable, words), router);
    }

    /// Whether an identity may take the place of the one that the session registered with.
    fn check_same(&self, identity: &Identity) -> Result<(), Refusal> {
        let forbid = |words| Err(Refusal::new(ErrorCode::Forbidden, words));
        let Some(session) = self.session() else { return forbid("the session has ended") };
        if session.user() != identity.principal.user() {
            return forbid(
                "the new proof is for another user or service than this session's: register with it on another connection",
            );
        }
        if session.proof() != identity.proof {
            return forbid(
                "the new proof is good, but of another kind than the one that this session registered with: a session \
                 renews with the same row of [[applications]], the same issuer or the same [auth.salesforce_*] table",
            );
        }
        Ok(())
    }

    /// Returns whether the new proof is in force. It is not if there was a reload since it was verified.
    fn replace_proof(&mut self, now: Instant, renewing: &Renewing, identity: Identity, router: &Router) -> bool {
        let Phase::Registered(session) = &self.phase else { return true };
        let (session, proven) = (Arc::clone(session), Proven::new(now, &identity));
        let is_renewed = router.renew_permissions(now, &session, identity.permissions, renewing.reloads, || {
            let expires = self.keep_proof(now, proven);
            tracing::debug!(source = session.source(), user = session.user(), session = %session.id(), expires, "renewed");
            let more = json!({ "ExpiresInSeconds": expires });
            // The reply comes before what follows from the new permissions.
            self.push(now, notice::success(&renew(), renewing.id.as_deref(), more));
        });
        if is_renewed {
            self.timers.stop(Timer::Renewal);
            self.watch_proof(now);
        }
        is_renewed
    }

    /// Answers a renewal that is refused. Everything stays as it was.
    pub(super) fn refuse_renewal(&mut self, now: Instant, renewing: &Renewing, refusal: &Refusal, router: &Router) {
        let triple = renew();
        if let (Some(audit), Some(session)) = (&self.settings.audit, self.session()) {
            // Limited as the records of unregistered connections are, since it costs a session as little to cause one.
            audit.record_unregistered(&Entry {
                outcome: Some(refusal.code),
                source: Some(session.source()),
                user: session.user(),
                session: Some(session.id().to_string()),
                address: Some(self.address),
                target: Some(triple.to_string().into()),
                ..Entry::new(Event::RegistrationRefused)
            });
        }
        self.log_refused_renewal(now, refusal);
        self.note_refusal(now, router, (Some(&triple), renewing.id.as_deref()), refusal);
        self.push(now, notice::failure(&triple, renewing.id.as_deref(), &[], refusal));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;
    use serde_json::Value;
    use wire::CloseCode;

    use super::*;
    use crate::auth::{Ends, Permissions, Principal, Proof};
    use crate::config::Limits;
    use crate::connection::tests::{alice, check_close, registered_as, start, taken};
    use crate::connection::{Input, Settings};

    const RENEW: &str =
        r#"{"channel":"Broker","topic":"Application","subtopic":"Renew","id":"n","data":{"token":"next"}}"#;

    /// Alice, proved by a row of the configuration for this long.
    fn proved(row: u8, minutes: u64) -> Identity {
        Identity { proof: Proof::Token([row; 32]), ends: Ends::After(Duration::from_mins(minutes)), ..alice() }
    }

    fn renewing(limits: &Limits) -> (Instant, Connection, Router) {
        let limits = Limits { heartbeat: Duration::from_hours(100), ..limits.clone() };
        let (now, mut connection, router) = registered_as(start(), Settings::new(limits), proved(1, 30));
        taken(now, &mut connection, &router);
        ask(now, &mut connection, &router);
        (now, connection, router)
    }

    fn ask(now: Instant, connection: &mut Connection, router: &Router) {
        let effect = connection.handle(now, Input::Text(RENEW), router);
        let Some(Effect::Verify(Claim { source, token, .. })) = effect else { panic!("{effect:?}") };
        assert_eq!((source.as_str(), token.unwrap().expose_secret()), ("phone", "next"));
        assert!(!connection.reads(), "nothing is read until the verifier has answered");
        assert!(connection.take_secret_read(), "what was read is wiped");
    }

    /// The code of the reply and its `ExpiresInSeconds`, and the subtopics of what follows.
    fn told(now: Instant, connection: &mut Connection, router: &Router) -> (String, Value, Vec<String>) {
        let mut texts = taken(now, connection, router).into_iter();
        let read = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let reply = texts.next().map(read).unwrap();
        assert_eq!((&reply["subtopic"], &reply["inReplyTo"]), (&"Renew".into(), &"n".into()), "{reply}");
        let data = &reply["data"];
        let code = data["ErrorCode"].as_str().unwrap_or("done").to_owned();
        let more = texts.map(|text| read(text)["subtopic"].as_str().unwrap().to_owned());
        (code, data["ExpiresInSeconds"].clone(), more.collect())
    }

    #[test]
    fn a_session_goes_on_with_the_end_of_its_new_proof() {
        for (minutes, notice) in [(90, &[][..]), (1, &["Expiring".to_owned()])] {
            let (now, mut connection, router) = renewing(&Limits::default());
            let session = connection.session().unwrap().id();
            let renewed = Identity { permissions: Permissions::default(), ..proved(1, minutes) };
            assert!(connection.handle(now, Input::Verified(Ok(renewed)), &router).is_none());
            let (code, expires, more) = told(now, &mut connection, &router);
            assert_eq!((code.as_str(), expires, &*more), ("done", (minutes * 60).into(), notice));
            assert!(connection.reads());
            assert_eq!(connection.session().unwrap().id(), session);
            let end = now + Duration::from_mins(minutes);
            let before = now + Duration::from_secs(minutes * 60 - 1);
            assert!(connection.handle(before, Input::Timeout, &router).is_none());
            let effect = connection.handle(end, Input::Timeout, &router);
            check_close(effect, CloseCode::Unauthenticated, "the proof of identity has expired");
        }
    }

    #[test]
    fn a_refused_renewal_changes_nothing() {
        let of = |principal| Identity { principal, ..proved(1, 90) };
        let bob = Principal::User("bob".into());
        let issuer = Identity { proof: Proof::Issuer("idp".into()), ..proved(1, 90) };
        for (outcome, code) in [
            (Ok(of(bob)), "FORBIDDEN"),
            (Ok(of(Principal::Service)), "FORBIDDEN"),
            (Ok(proved(2, 90)), "FORBIDDEN"),
            (Ok(issuer), "FORBIDDEN"),
            (Err(AuthError::Forbidden("another source".into())), "FORBIDDEN"),
            (Err(AuthError::Unauthenticated("unknown".into())), "UNAUTHENTICATED"),
            (Err(AuthError::Unavailable("not now".into())), "UPSTREAM_UNAVAILABLE"),
        ] {
            let (now, mut connection, router) = renewing(&Limits::default());
            let session = connection.session().unwrap().id();
            assert!(connection.handle(now, Input::Verified(outcome), &router).is_none());
            assert_eq!(told(now, &mut connection, &router).0, code);
            assert!(connection.reads());
            assert_eq!(connection.session().unwrap().id(), session);
            let (before, end) = (now + Duration::from_mins(29), now + Duration::from_mins(30));
            assert!(connection.handle(before, Input::Timeout, &router).is_none());
            assert!(connection.handle(end, Input::Timeout, &router).is_some(), "the old proof still counts");
        }
    }

    #[test]
    fn failed_renewals_count_as_failed_registrations() {
        let (mut now, mut connection, router) = renewing(&Limits { failed_registrations: 2, ..Limits::default() });
        let unknown = || Err(AuthError::Unauthenticated("unknown".into()));
        for _ in 0..2 {
            connection.handle(now, Input::Verified(unknown()), &router);
            assert_eq!(told(now, &mut connection, &router).0, "UNAUTHENTICATED");
            ask(now, &mut connection, &router);
        }
        connection.handle(now, Input::Verified(unknown()), &router);
        assert!(taken(now, &mut connection, &router).is_empty() && !connection.reads(), "the answer is delayed");
        now += DELAY;
        assert_eq!(connection.deadline(), Some(now));
        assert!(connection.handle(now, Input::Timeout, &router).is_none());
        assert_eq!(told(now, &mut connection, &router).0, "RATE_LIMITED");
        // A good token passes.
        ask(now, &mut connection, &router);
        connection.handle(now, Input::Verified(Ok(proved(1, 90))), &router);
        assert_eq!(told(now, &mut connection, &router).0, "done");
    }

    /// The verifier may still be at a question that was given up.
    #[test]
    fn an_answer_to_an_earlier_question_does_not_lift_a_delayed_refusal() {
        let (now, mut connection, router) = renewing(&Limits { failed_registrations: 1, ..Limits::default() });
        let unknown = || Err(AuthError::Unauthenticated("unknown".into()));
        connection.handle(now, Input::Verified(unknown()), &router);
        assert_eq!(told(now, &mut connection, &router).0, "UNAUTHENTICATED");
        ask(now, &mut connection, &router);
        connection.handle(now, Input::Verified(unknown()), &router);
        assert!(!connection.is_verifying() && !connection.reads(), "the answer is delayed");
        assert!(connection.handle(now, Input::Verified(Ok(proved(1, 90))), &router).is_none());
        assert!(taken(now, &mut connection, &router).is_empty() && !connection.reads());
        assert!(connection.handle(now + DELAY, Input::Timeout, &router).is_none());
        assert_eq!(told(now + DELAY, &mut connection, &router).0, "RATE_LIMITED");
    }

    #[test]
    fn a_verifier_that_does_not_answer_costs_a_session_10_s() {
        let (now, mut connection, router) = renewing(&Limits::default());
        let late = now + Duration::from_secs(10);
        assert_eq!(connection.deadline(), Some(late));
        assert!(connection.handle(late, Input::Timeout, &router).is_none());
        assert_eq!(told(late, &mut connection, &router).0, "UPSTREAM_UNAVAILABLE");
        assert!(connection.reads() && !connection.is_verifying());
        assert!(connection.handle(late, Input::Verified(Ok(proved(1, 90))), &router).is_none());
        assert!(taken(late, &mut connection, &router).is_empty(), "its answer is too late");
    }

    #[test]
    fn a_proof_that_ends_during_its_renewal_ends_the_session() {
        let (now, mut connection, router) =
            renewing(&Limits { registration: Duration::from_hours(1), ..Limits::default() });
        let end = now + Duration::from_mins(30);
        let effect = connection.handle(end, Input::Timeout, &router);
        check_close(effect, CloseCode::Unauthenticated, "the proof of identity has expired");
        assert!(connection.handle(end, Input::Verified(Ok(proved(1, 90))), &router).is_none());
        assert!(connection.session().is_none());
    }
}
