//! Requests that a session was given whose connection is lost.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use wire::{DecodeLimits, ErrorCode, decode, notice};

use crate::router::outbox::OnFull;
use crate::router::request::Asking;
use crate::router::request::pending::{Event, KeptText, Outcome, Pending, State};
use crate::router::request::words;
use crate::router::session::Session;
use crate::router::{RequestId, Router};

impl Router {
    /// Gives the idempotent requests of a session that is away to other handlers that have a connection. All others stay
    /// with it.
    pub(in crate::router) fn hand_over(&self, now: Instant, session: &Arc<Session>) {
        if session.busy() == 0 {
            return;
        }
        let given = session.holds.lock().given_in_order();
        for pending in given.iter().filter(|pending| pending.idempotent) {
            let id = pending.known_id();
            if let Some(text) = pending.text()
                && self.hand_over_one(now, pending, session, &text)
            {
                push_cancelled(now, session, id);
            }
        }
        // The turns of requests that others have now.
        self.serve_turns(now, session);
    }

    /// Returns whether the session does not have the request any more.
    fn hand_over_one(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        session: &Arc<Session>,
        text: &Arc<KeptText>,
    ) -> bool {
        let Ok(envelope) = decode(text.as_str(), DecodeLimits::OWN) else { return false };
        let facts = self.policy.facts(envelope.triple());
        let scope = facts.scope_of(pending.user.as_deref());
        let candidates = self.candidates(&pending.asker, &envelope, scope, &facts).present();
        if candidates.is_empty() {
            return false;
        }
        let Outcome::Seeking(_) = self.advance(now, pending, Event::HandlerAway(session)) else { return false };
        let asking = Asking::again(pending, &envelope, Arc::clone(text));
        let refusal = match self.place(now, &asking, Some(pending), candidates) {
            Ok(routed) => {
                self.complete(now, pending, &routed);
                return true;
            }
            // They have gone in the meantime.
            Err(refusal) if refusal.code == ErrorCode::NoHandler => words::handler_gone(&session.source),
            Err(refusal) => refusal,
        };
        self.tell_failure(now, pending, &session.source, &refusal);
        true
    }

    /// Since when the handler of a request has had no connection.
    pub(in crate::router) fn away_since(state: &State) -> Option<SystemTime> {
        match state {
            State::Given(handler) => handler.session.away_since(),
            State::Seeking | State::Waiting(_) | State::Ended => None,
        }
    }
}

/// A request has ended that a session was given. If it is away, it is told so when it returns.
pub(in crate::router) fn tell_away(now: Instant, session: &Session, pending: &Pending) {
    if session.is_away() {
        push_cancelled(now, session, pending.known_id());
    }
}

/// Tells a handler that a request of its has ended without its answer.
pub(in crate::router) fn push_cancelled(now: Instant, session: &Session, id: RequestId) {
    session.push(now, notice::cancelled(id.text().as_ref()).into(), OnFull::Close).ok();
}
