//! The general right that an envelope needs: docs/protocol.md, "Rights".
//!
//! A refusal says nothing about handlers to a sender that may neither publish nor request. What only a handler would make a
//! request is then refused as an event, whether there is a handler or not.

use wire::{Envelope, ErrorCode, Refusal, Triple};

use crate::auth::{Rights, Why};
use crate::router::Router;
use crate::router::decide::Facts;
use crate::router::request::candidates::Candidates;

/// What an envelope is that is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Sent {
    /// A request, whether there is a handler or not.
    Request,
    /// A request because a handler matches it.
    Handled,
    /// Neither a request nor an event: nothing on a protected triple is an event.
    Unserved,
    /// An event.
    Event,
}

/// A right that a sender lacks.
pub(in crate::router) struct Lacking<'r> {
    /// The right that would allow the envelope: `publish` or `request`.
    pub(in crate::router) right: &'static str,
    /// The rule that decided.
    pub(in crate::router) why: Why<'r>,
    pub(in crate::router) refusal: Refusal,
    /// Whether it is the failure of a request.
    pub(in crate::router) is_request: bool,
}

impl Router {
    /// What an envelope is. What a handler sends on its own triple is a request only if it asks for a reply.
    pub(in crate::router) fn sent(&self, envelope: &Envelope<'_>, candidates: &Candidates, facts: &Facts<'_>) -> Sent {
        let is_handled = !candidates.sender_handles && !candidates.is_empty();
        if envelope.asks() {
            Sent::Request
        } else if is_handled {
            Sent::Handled
        } else if !candidates.sender_handles && self.is_configured(envelope, facts) {
            Sent::Request
        } else if facts.protected {
            Sent::Unserved
        } else {
            Sent::Event
        }
    }

    /// Whether an envelope is a request without a handler too, because of its triple.
    fn is_configured(&self, envelope: &Envelope<'_>, facts: &Facts<'_>) -> bool {
        facts.only || self.declared.serve(envelope.triple())
    }

    /// Checks the right that an envelope needs.
    ///
    /// # Errors
    /// `FORBIDDEN`; `NO_HANDLER` for an event from a sender that may only request.
    pub(in crate::router) fn check_right<'r>(
        &self,
        rights: &'r Rights,
        envelope: &Envelope<'_>,
        candidates: &Candidates,
        facts: &Facts<'_>,
        sent: Sent,
    ) -> Result<(), Lacking<'r>> {
        let triple = envelope.triple();
        let lacks = |right: &'static str, why: Why<'r>, is_request| {
            let refusal = forbidden(right, triple, &why);
            Err(Lacking { right, why, refusal, is_request })
        };
        let check_request = || rights.request.check(triple).or_else(|why| lacks("request", why, true));
        match sent {
            Sent::Request | Sent::Unserved => check_request(),
            Sent::Handled if facts.protected || self.is_configured(envelope, facts) => check_request(),
            Sent::Handled if candidates.answer() => {
                match (rights.request.check(triple), rights.publish.check(triple)) {
                    (Ok(()), _) => Ok(()),
                    (Err(why), Ok(())) => {
                        let refusal = is_served(triple, &why);
                        Err(Lacking { right: "request", why, refusal, is_request: true })
                    }
                    (Err(_), Err(why)) => lacks("publish", why, false),
                }
            }
            // A command: none of its handlers answers.
            Sent::Handled => {
                let may_request = || rights.request.check(triple).is_ok();
                rights.publish.check(triple).or_else(|why| lacks("publish", why, may_request()))
            }
            Sent::Event => match rights.publish.check(triple) {
                Ok(()) => Ok(()),
                Err(why) if !envelope.retain() && rights.request.check(triple).is_ok() => {
                    let refusal = may_only_request(&self.no_handler(envelope, facts), triple, &why);
                    Err(Lacking { right: "publish", why, refusal, is_request: true })
                }
                Err(why) => lacks("publish", why, false),
            },
        }
    }
}

/// Whether a sender with these rights may learn whether a triple is handled.
pub(in crate::router) fn may_know_handlers(rights: &Rights, triple: &Triple<'_>) -> bool {
    rights.publish.check(triple).is_ok() || rights.request.check(triple).is_ok()
}

/// Whether a hint may name a triple to a session with these rights.
pub(in crate::router) fn may_know(rights: &Rights, triple: &Triple<'_>) -> bool {
    may_know_handlers(rights, triple) || rights.subscribe.check(triple).is_ok()
}

/// A right does not allow a triple or a pattern.
pub(in crate::router) fn forbidden(right: &str, what: &impl std::fmt::Display, why: &Why<'_>) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, format!("{right} {what}: {why}"))
}

fn is_served(triple: &Triple<'_>, why: &Why<'_>) -> Refusal {
    let words = format!("request {triple}: a handler serves it, so it is a request, and {why}");
    Refusal::new(ErrorCode::Forbidden, words)
}

/// Without a handler the envelope would be an event, which its sender may not publish.
fn may_only_request(no_handler: &Refusal, triple: &Triple<'_>, why: &Why<'_>) -> Refusal {
    let words = format!("{}; without a handler it is an event, and publish {triple}: {why}", no_handler.message);
    Refusal::new(no_handler.code, words)
}
