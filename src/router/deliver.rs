//! [`Router::deliver`]: carries a decision out.

use std::sync::Arc;
use std::time::Instant;

use wire::{Envelope, Refusal};

use crate::router::decide::{Decision, Verdict};
use crate::router::session::Session;
use crate::router::{Denied, Refused, Routed, Router};

impl Router {
    /// Routes an envelope of a registered session: decides, then delivers.
    ///
    /// # Errors
    /// [`Denied`]; nothing was delivered then.
    pub fn route(&self, now: Instant, sender: &Arc<Session>, envelope: &Envelope<'_>) -> Result<Routed, Denied> {
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
        let (outcome, is_request) = match verdict {
            Verdict::Reply => (self.reply(now, sender, envelope), false),
            Verdict::Turn(subscription) => (Ok(self.answer_in_turn(now, sender, &subscription, envelope)), false),
            Verdict::Request { scope, candidates } => {
                (self.request(now, sender, envelope, scope, candidates, &facts), true)
            }
            Verdict::Event { scope, matches } => (self.publish(now, sender, envelope, scope, &matches, &facts), false),
            Verdict::Refused { refusal, is_request } => (Err(refusal), is_request),
        };
        outcome.map_err(|refusal| {
            let refusal = if is_request { self.hinted(now, sender, envelope, &facts, refusal) } else { refusal };
            self.deny(sender, envelope, refusal, is_request)
        })
    }

    fn deny(&self, sender: &Session, envelope: &Envelope<'_>, refusal: Refusal, is_request: bool) -> Denied {
        if is_request {
            self.tell_refused(&Refused {
                triple: envelope.triple(),
                source: &sender.source,
                user: sender.user().or(envelope.user()),
                session: Some(sender.id),
                refusal: &refusal,
            });
        }
        Denied { refusal, is_request }
    }
}
