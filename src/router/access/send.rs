//! The general right that an envelope needs: docs/protocol.md, "Rights".
//!
//! A refusal says nothing about handlers to a sender that may neither publish nor request. What only a handler would make a
//! request is then refused as an event, whether there is a handler or not.

use wire::{Envelope, ErrorCode, Refusal, Triple};

use crate::auth::{Rights, Why};
use crate::router::Router;
use crate::router::decide::Facts;
use crate::router::request::candidates::Candidates;

/// What an envelope is, as far as its right is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Sent {
    /// A request, whether there is a handler or not.
    Request,
    /// A request because handlers match it, one of which answers.
    Handled,
    /// A command: handlers match it, and none of them answers.
    Command,
    /// An event.
    Event,
}

impl Router {
    /// What an envelope is, as far as its right is concerned.
    pub(in crate::router) fn sent(&self, envelope: &Envelope<'_>, candidates: &Candidates, facts: &Facts<'_>) -> Sent {
        let is_configured = || facts.only || self.declaration(envelope.triple()).is_some();
        if envelope.asks() || facts.protected || (!candidates.sender_handles && is_configured()) {
            Sent::Request
        } else if candidates.sender_handles || candidates.is_empty() {
            Sent::Event
        } else if candidates.answer() {
            Sent::Handled
        } else {
            Sent::Command
        }
    }

    /// Checks the right that an envelope needs.
    ///
    /// # Errors
    /// `FORBIDDEN`; `NO_HANDLER` for an event from a sender that may only request. With it, whether it is the failure of a
    /// request.
    pub(in crate::router) fn check_right(
        &self,
        rights: &Rights,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
        sent: Sent,
    ) -> Result<(), (Refusal, bool)> {
        let triple = envelope.triple();
        match sent {
            Sent::Request => rights.request.check(triple).map_err(|why| (forbidden("request", triple, &why), true)),
            Sent::Handled => match (rights.request.check(triple), rights.publish.check(triple)) {
                (Ok(()), _) => Ok(()),
                (Err(why), Ok(())) => Err((is_served(triple, &why), true)),
                (Err(_), Err(why)) => Err((forbidden("publish", triple, &why), false)),
            },
            Sent::Command => {
                let may_request = || rights.request.check(triple).is_ok();
                rights.publish.check(triple).map_err(|why| (forbidden("publish", triple, &why), may_request()))
            }
            Sent::Event => match rights.publish.check(triple) {
                Ok(()) => Ok(()),
                Err(why) if !envelope.retain() && rights.request.check(triple).is_ok() => {
                    Err((may_only_request(&self.no_handler(envelope, facts), triple, &why), true))
                }
                Err(why) => Err((forbidden("publish", triple, &why), false)),
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
