//! [`Router::deliver`]: carries a decision out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use wire::{Envelope, Refusal};

use crate::router::decide::{Decision, Facts, Verdict};
use crate::router::observe::Expected;
use crate::router::request::pending::Pending;
use crate::router::session::Session;
use crate::router::{Denied, Logged, Refused, Routed, Router};
use crate::telemetry::metrics::RequestOutcome;

/// How many of a handler's open requests an event is compared with.
const GIVEN_LOOKED_AT: usize = 16;

impl Router {
    /// Routes an envelope of a registered session: decides, then delivers.
    ///
    /// # Errors
    /// [`Denied`]; nothing was delivered then.
    pub fn route(&self, now: Instant, sender: &Arc<Session>, envelope: &Envelope<'_>) -> Result<Routed, Denied> {
        let _steady = self.steady();
        self.deliver(now, sender, envelope, self.decide(sender, envelope))
    }

    /// Carries out what [`Router::decide`] said of this envelope.
    ///
    /// # Errors
    /// [`Denied`]; nothing was delivered then.
    pub fn deliver(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        decision: Decision<'_>,
    ) -> Result<Routed, Denied> {
        let Decision { facts, verdict } = decision;
        let expected = Expected::of(&verdict, envelope);
        let (outcome, is_request) = match verdict {
            Verdict::Reply => (self.reply(now, sender, envelope), false),
            Verdict::Turn(request) => (Ok(self.reply_in_turn(now, sender, request, envelope)), false),
            Verdict::Request { scope, candidates } => {
                (self.request(now, sender, envelope, scope, candidates, &facts), true)
            }
            Verdict::Event { scope, matches } => {
                self.note_nameless_reply(now, sender, &facts);
                (self.publish(now, sender, envelope, scope, &matches, &facts), false)
            }
            Verdict::Refused { refusal, is_request } => (Err(refusal), is_request),
        };
        // An event that waits for its commit is observed then.
        if !outcome.as_ref().is_ok_and(|routed| routed.ticket.is_some()) {
            self.observe(now, sender, envelope, &facts, (expected, outcome.as_ref()));
        }
        match outcome {
            Ok(mut routed) => {
                routed.secret |= facts.protected;
                if self.is_clustered() {
                    sender.pressed.take(&mut routed.pressed);
                }
                Ok(routed)
            }
            Err(refusal) => {
                if is_request {
                    self.metrics.requests.count(RequestOutcome::of(refusal.code));
                }
                let refusal = if is_request { self.hinted(now, sender, envelope, &facts, refusal) } else { refusal };
                self.tell_denied(sender, envelope, &refusal, is_request);
                Err(Denied { refusal, is_request })
            }
        }
    }

    /// Logs once for each session that it sends an event on the triple of a request that it has not answered: it most
    /// likely meant a reply, which needs `inReplyTo`.
    fn note_nameless_reply(&self, now: Instant, sender: &Session, facts: &Facts<'_>) {
        if sender.busy() == 0 || sender.told_to_name_requests.load(Ordering::Relaxed) {
            return;
        }
        let is_its = |pending: &Arc<Pending>| self.policy.canonical(&pending.triple) == facts.canonical;
        let found = sender.holds.lock().some_given(GIVEN_LOOKED_AT).any(is_its);
        if found
            && !sender.told_to_name_requests.swap(true, Ordering::Relaxed)
            && let Some(omitted) = self.count_line(now, sender, Logged::NamelessReply)
        {
            tracing::info!(
                source = &*sender.source,
                triple = %facts.canonical,
                omitted,
                "a handler sent an event on the triple of a request that it has not answered; an answer needs 'inReplyTo'"
            );
        }
    }

    fn tell_denied(&self, sender: &Session, envelope: &Envelope<'_>, refusal: &Refusal, is_request: bool) {
        if is_request {
            self.tell_refused(&Refused {
                triple: envelope.triple(),
                source: &sender.source,
                user: sender.user().or(envelope.user()),
                session: Some(sender.id),
                address: sender.address(),
                refusal,
            });
        }
    }
}
