//! How a request ends, exactly once: with its handler's answer, or with the broker's (time limit, handler gone,
//! cancelled).

use std::sync::Arc;
use std::time::Instant;

use crate::router::backplane::moving::There;
use crate::router::index::Subscription;
use crate::router::outbox::{End, OnFull, Pressure};
use crate::router::request::away::{push_cancelled, tell_away};
use crate::router::request::door::failure_of;
use crate::router::request::pending::{Event, KeptText, Outcome, Pending, State};
use crate::router::request::{Asking, words};
use crate::router::session::{Role, Session};
use crate::router::{RequestId, Routed, Router};
use crate::telemetry::metrics::{HandlerKind, RequestOutcome};
use crate::websocket::Frame;
use wire::{CloseCode, DecodeLimits, Envelope, ErrorCode, Field, Refusal, Splice, decode, notice};

impl Router {
    /// Rule 1: a reply goes to the session that asked, if it comes from the session that was asked.
    pub(in crate::router) fn reply(
        &self,
        now: Instant,
        session: &Arc<Session>,
        envelope: &Envelope<'_>,
    ) -> Result<Routed, Refusal> {
        if self.hold_reply(session, envelope)? {
            return Ok(Routed { secret: true, ..Routed::default() });
        }
        self.reply_at_once(now, session, envelope, false)
    }

    /// Passes a reply on. `was_held`: it has waited until its request was here, or stays where it is.
    pub(in crate::router) fn reply_at_once(
        &self,
        now: Instant,
        session: &Arc<Session>,
        envelope: &Envelope<'_>,
        was_held: bool,
    ) -> Result<Routed, Refusal> {
        let id: Option<RequestId> = envelope.in_reply_to().and_then(|id| id.parse().ok());
        let handed = self.handed_requests();
        if let Some(pending) = id.and_then(|id| session.given(id)) {
            let frame = replied(envelope, &pending);
            if let Some(routed) = self.answer_with(now, session, &pending, envelope.more(), frame) {
                return Ok(routed);
            }
        }
        // It is late, but alive: it is chosen again like the others.
        self.note_missed(session, false);
        if let Some(id) = id.filter(|_| !envelope.more())
            && session.turns.settle(&self.requests, id)
        {
            self.serve_turns(now, session);
        }
        // It may be one that the session was given before it came here.
        if let Some(id) = id.filter(|_| !envelope.more()) {
            session.turns.replied_elsewhere(id);
        }
        match self.reply_there(session, envelope, (was_held, handed))? {
            There::Passed => Ok(Routed { secret: true, ..Routed::default() }),
            There::Here => self.reply_at_once(now, session, envelope, was_held),
            There::Nobody => Err(words::no_such_request(envelope.in_reply_to())),
        }
    }

    /// Rule 1 for ordered handlers: an envelope without `inReplyTo` is the reply to the request that has this turn.
    pub(in crate::router) fn reply_in_turn(
        &self,
        now: Instant,
        session: &Arc<Session>,
        id: RequestId,
        envelope: &Envelope<'_>,
    ) -> Routed {
        if session.turns.is_elsewhere(id) && self.reply_turn_there(session, id, envelope) {
            return Routed { secret: true, ..Routed::default() };
        }
        // A reply that came too late, or lost a race against the time limit, is discarded.
        let routed = session
            .turns
            .pending(id)
            .and_then(|pending| self.answer_with(now, session, &pending, envelope.more(), replied(envelope, &pending)));
        self.note_missed(session, false);
        if !envelope.more() && session.turns.settle(&self.requests, id) {
            self.serve_turns(now, session);
        }
        routed.unwrap_or(Routed { secret: true, ..Routed::default() })
    }

    /// Answers a request with a frame; `None` if the request is not open, or not this session's to answer.
    pub(in crate::router) fn answer_with(
        &self,
        now: Instant,
        session: &Arc<Session>,
        pending: &Arc<Pending>,
        more: bool,
        frame: Frame,
    ) -> Option<Routed> {
        let (mut pressure, mut deliveries, mut frame) = (Pressure::Relieved, 0, Some(frame));
        // A requester that is ending gets nothing more, and its request ends with it.
        let mut pass_on = || {
            let mut push = || {
                let Some(frame) = frame.take() else { return };
                if let Some(remote) = pending.asker.remote() {
                    remote.answer(session, more, &frame);
                    deliveries = 1;
                    return;
                }
                match pending.asker.call() {
                    // A call gets one reply of each handler.
                    Some(call) if !more => {
                        call.answered(frame, pending.gather.is_some());
                        deliveries = 1;
                    }
                    Some(_) => {}
                    None => {
                        let pushed = pending.asker.push(now, frame, OnFull::Close);
                        if let Ok(after) = pushed {
                            (pressure, deliveries) = (after, 1);
                        }
                    }
                }
            };
            match &pending.gather {
                Some(gather) => gather.pass_on(push),
                None => push(),
            }
        };
        match self.advance(now, pending, Event::Reply { by: session, more, pass_on: &mut pass_on }) {
            Outcome::Open => {}
            Outcome::Ended(before) => {
                self.metrics.requests.count(RequestOutcome::Answered);
                let duration = now.saturating_duration_since(pending.opened);
                self.metrics.request_duration.observe(kind_of(session), duration);
                if let Some(gather) = &pending.gather {
                    gather.answered(now);
                }
                self.turn_is_free(now, &before);
            }
            _ => return None,
        }
        self.note_missed(session, false);
        let mut routed = Routed { secret: pending.secret, deliveries, ..Routed::default() };
        routed.note_pressure(&pending.asker, pressure);
        Some(routed)
    }

    /// Tells the requester that its request has failed. `source`: the handler that failed, for a gather's summary.
    pub(in crate::router) fn tell_failure(
        &self,
        now: Instant,
        pending: &Pending,
        source: &Arc<str>,
        refusal: &Refusal,
    ) {
        log_failure(pending, source, refusal);
        self.metrics.requests.count(RequestOutcome::of(refusal.code));
        match &pending.gather {
            Some(gather) => gather.failed(now, source, refusal.code),
            None => fail(now, pending, refusal),
        }
    }

    /// Ends everything that is due.
    pub fn expire(&self, now: Instant) {
        for pending in self.requests.due(now) {
            self.expire_one(now, &pending, Event::Expire);
        }
        self.expire_history(now);
        for (late, session) in self.requests.due_blocked(now) {
            if session.turns.owes(late) {
                let (source, limit) = (&*session.source, words::span(self.requests.blocked_max()));
                tracing::warn!(source, session = %session.id, limit, "an ordered handler does not answer; its session is closed");
                session.outbox().end(End::Close(CloseCode::Policy, words::BLOCKED));
            }
        }
        self.expire_away(now);
        self.expire_cut_off(now);
        self.expire_pressure(now);
        self.expire_moves(now);
        self.expire_asks(now);
        self.expire_values(now);
    }

    /// Ends a request whose time is over, as this event does.
    pub(in crate::router) fn expire_one(&self, now: Instant, pending: &Arc<Pending>, event: Event<'_>) {
        let Outcome::Ended(before) = self.advance(now, pending, event) else { return };
        let refusal = words::timed_out(now, pending, &before, Self::away_since(&before));
        match &before {
            State::Given(handler) => {
                let session = &handler.session;
                self.note_missed(session, true);
                if let Some(door) = session.door() {
                    door.withdraw(pending.id, &refusal);
                }
                match session.remote() {
                    Some(remote) => remote.cancel(pending, true),
                    None => tell_away(now, session, pending),
                }
                self.tell_failure(now, pending, &session.source, &refusal);
            }
            State::Waiting(handlers) => {
                let source = handlers.first().map_or_else(|| Arc::from(""), |it| Arc::clone(&it.session.source));
                self.tell_failure(now, pending, &source, &refusal);
            }
            State::Seeking | State::Ended => self.tell_failure(now, pending, &Arc::from(""), &refusal),
        }
        self.turn_is_free(now, &before);
    }

    /// Notes whether a session has let a request time out and not answered since.
    fn note_missed(&self, session: &Arc<Session>, missed: bool) {
        let before = session.has_missed();
        session.set_missed(missed);
        if missed != before {
            self.announce_state(session, false);
        }
    }

    /// The handler of a request has gone: another one gets it if it is idempotent, else its requester is told.
    pub(in crate::router) fn handler_gone(&self, now: Instant, pending: &Arc<Pending>, session: &Arc<Session>) {
        let refusal = match self.advance(now, pending, Event::HandlerGone(session)) {
            Outcome::Seeking(text) => match self.place_again(now, pending, text) {
                Ok(()) => return,
                // No other handler takes it.
                Err(refusal) if refusal.code == ErrorCode::NoHandler => words::handler_gone(&session.source),
                Err(refusal) => refusal,
            },
            Outcome::Ended(_) => words::handler_gone(&session.source),
            _ => return,
        };
        self.tell_failure(now, pending, &session.source, &refusal);
    }

    /// An ordered handler has left, for whose turn a request waited.
    pub(in crate::router) fn handler_left(&self, now: Instant, pending: &Arc<Pending>, handler: &Arc<Subscription>) {
        if let Outcome::Ended(_) = self.advance(now, pending, Event::Leave(handler)) {
            let source = &handler.session.source;
            self.tell_failure(now, pending, source, &words::handler_gone(source));
        }
    }

    /// Looks for another handler of a request that seeks one.
    ///
    /// # Errors
    /// The refusal that the requester is to get; the request has ended.
    pub(in crate::router) fn place_again(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        text: Option<Arc<KeptText>>,
    ) -> Result<(), Refusal> {
        let Some(text) = text else {
            return self.give_up(now, pending, words::impossible("a request has lost its text"));
        };
        let Ok(envelope) = decode(text.as_str(), DecodeLimits::OWN) else {
            return self.give_up(now, pending, words::impossible("a kept text is not an envelope"));
        };
        let facts = self.policy.facts(envelope.triple());
        let scope = facts.scope_of(pending.user.as_deref());
        let candidates = self.candidates(&pending.asker, &envelope, scope, &facts).without(&pending.returned_by());
        let asking = Asking::again(pending, &envelope, Arc::clone(&text));
        let routed = self.place(now, &asking, Some(pending), candidates)?;
        self.complete(now, pending, &routed);
        Ok(())
    }

    /// A request was given to another handler. If that takes commands, delivery has completed it, and its requester is told.
    pub(in crate::router) fn complete(&self, now: Instant, pending: &Pending, routed: &Routed) {
        self.count_later(pending, routed.deliveries);
        if let (Some(_), Some(remote)) = (&routed.receipt, pending.asker.remote()) {
            remote.delivered();
        } else if let (Some(receipt), Some(call)) = (&routed.receipt, pending.asker.call()) {
            call.delivered(receipt.receivers);
        } else if let (Some(receipt), Some(id)) = (&routed.receipt, &pending.asker_id) {
            pending
                .asker
                .push(now, notice::receipt(id, receipt.receivers, None, None, None).into(), OnFull::Close)
                .ok();
        }
    }

    /// Ends a request that no handler takes, with a refusal that its requester has yet to be told.
    ///
    /// # Errors
    /// The refusal; `Ok` if the request had ended before.
    pub(in crate::router) fn give_up(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        match self.advance(now, pending, Event::GiveUp(refusal.code)) {
            Outcome::Ended(_) => Err(refusal),
            _ => Ok(()),
        }
    }

    /// `Broker/Request/Cancel`: ends every pending request with the requester's own id.
    ///
    /// # Errors
    /// `NO_SUCH_REQUEST`.
    pub fn cancel(&self, now: Instant, asker: &Arc<Session>, id: &str) -> Result<(), Refusal> {
        let is_it = |pending: &&Arc<Pending>| pending.asker_id.as_deref() == Some(id);
        let pending: Vec<_> = asker.holds.lock().asked.values().filter(is_it).cloned().collect();
        let mut found = false;
        for pending in pending {
            found |= self.cancel_one(now, &pending, "the requester cancelled the request");
        }
        if found || self.cancel_there(asker, id) {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::NoSuchRequest, "data.id names no pending request of this session"))
    }

    /// Cancels all unanswered requests of a session because the broker shuts down. The session gets `REQUEST_CANCELLED`
    /// for each.
    pub fn give_up_all(&self, now: Instant, asker: &Arc<Session>) {
        let pending: Vec<_> = asker.holds.lock().asked.values().cloned().collect();
        for pending in pending {
            self.cancel_one(now, &pending, "the broker restarts; send the request again after reconnecting");
        }
    }

    /// Ends a request with `REQUEST_CANCELLED`, which a gather gets only once. Returns `false` if the request had
    /// already ended.
    fn cancel_one(&self, now: Instant, pending: &Arc<Pending>, why: &'static str) -> bool {
        if !self.withdraw(now, pending, why) {
            return false;
        }
        self.metrics.requests.count(RequestOutcome::Cancelled);
        // Cancelled only after the withdrawal: from then on, a last part that is answered at the same time cannot end
        // the gather.
        if pending.gather.as_ref().is_none_or(|gather| gather.cancel()) {
            let refusal = Refusal::new(ErrorCode::RequestCancelled, why);
            log_failure(pending, "", &refusal);
            fail(now, pending, &refusal);
        }
        true
    }

    /// Ends a request without an answer, and tells its handler. Returns `false` if it had ended.
    pub(in crate::router) fn withdraw(&self, now: Instant, pending: &Arc<Pending>, why: &'static str) -> bool {
        let Outcome::Ended(before) = self.advance(now, pending, Event::Withdraw) else { return false };
        if let State::Given(handler) = &before {
            let session = &handler.session;
            match (session.door(), session.remote()) {
                (_, Some(remote)) => remote.cancel(pending, false),
                (Some(door), None) => door.withdraw(pending.id, &Refusal::new(ErrorCode::RequestCancelled, why)),
                (None, None) => push_cancelled(now, session, pending.known_id()),
            }
        }
        self.turn_is_free(now, &before);
        true
    }

    /// A request has ended. If an ordered handler had it, the next one may have its turn.
    fn turn_is_free(&self, now: Instant, before: &State) {
        if let State::Given(handler) = before
            && handler.ordered.is_some()
        {
            self.serve_turns(now, &handler.session);
            self.tell_turns(&handler.session);
        }
    }
}

/// Sends the requester the failure of its request, or of a gather as a whole.
fn fail(now: Instant, pending: &Pending, refusal: &Refusal) {
    if let Some(remote) = pending.asker.remote() {
        return remote.fail(refusal);
    }
    match pending.asker.call() {
        Some(call) => call.refused(refusal.clone()),
        // A requester that is ending gets nothing more.
        None => drop(pending.asker.push(now, failure_of(pending, refusal, false), OnFull::Close)),
    }
}

fn kind_of(handler: &Session) -> HandlerKind {
    match handler.role {
        Role::User(_) => HandlerKind::User,
        Role::Adapter => HandlerKind::Adapter,
        Role::Service => HandlerKind::Service,
    }
}

/// Logs why a request has failed, for developers of applications. `handler`: the source of the handler, if known.
pub(in crate::router) fn log_failure(pending: &Pending, handler: &str, refusal: &Refusal) {
    tracing::debug!(
        source = &*pending.asker.source,
        code = refusal.code.as_str(),
        triple = %pending.triple,
        handler,
        traceparent = pending.trace.as_deref().map(tracing::field::display),
        reason = &*refusal.message,
        "a request failed"
    );
}

/// A reply as its requester sees it: with its own id, or with nothing that was not there.
fn replied(envelope: &Envelope<'_>, pending: &Pending) -> Frame {
    let mut splice = Splice::new(envelope).secret(pending.secret).cut(Field::InReplyTo);
    if let Some(id) = &pending.asker_id {
        splice = splice.string("inReplyTo", id);
    }
    if pending.gather.is_some() {
        splice = splice.cut(Field::More).flag("more");
    }
    splice.into()
}
