//! How a request ends, exactly once: by its handler's answer, or by the broker's (time limit, handler gone, cancelled).

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::router::index::Subscription;
use crate::router::outbox::{OnFull, Pressure};
use crate::router::request::pending::{Pending, Stage};
use crate::router::request::{forget_waiting, handler_gone};
use crate::router::session::Session;
use crate::router::{RequestId, Routed, Router, access};
use crate::websocket::Frame;
use wire::{DecodeLimits, Envelope, Field, Splice, decode, notice};
use wire::{ErrorCode, Refusal};

/// How often a request may be given at most: once more, to another handler, when the first died and it is idempotent.
const ATTEMPTS_MAX: u8 = 2;

impl Router {
    /// Rule 1: a reply goes to the one session that asked, if it comes from the session that was asked.
    pub(in crate::router) fn reply(
        &self,
        now: Instant,
        session: &Arc<Session>,
        envelope: &Envelope<'_>,
    ) -> Result<Routed, Refusal> {
        let id = envelope.in_reply_to().and_then(|id| id.parse().ok());
        if let Some(routed) = id.and_then(|id| self.answer(now, session, id, envelope)) {
            return Ok(routed);
        }
        // Late is better than silent: it is asked again like the others.
        session.set_missed(false);
        if let Some(id) = id.filter(|_| !envelope.more()) {
            self.settle_turn(now, session, id);
        }
        Err(Refusal::new(
            ErrorCode::NoSuchRequest,
            "the field 'inReplyTo' names no request that is pending for this session; it may have been answered, \
             timed out or been cancelled",
        ))
    }

    /// Takes an envelope as the answer to a request; `None` when the request is not this session's to answer.
    pub(in crate::router) fn answer(
        &self,
        now: Instant,
        session: &Arc<Session>,
        id: RequestId,
        envelope: &Envelope<'_>,
    ) -> Option<Routed> {
        let pending = self.requests.find(id)?;
        let frame = answered(envelope, &pending);
        let mut routed = Routed::default();
        let mut progress = pending.progress.lock();
        let handler = match &progress.stage {
            Stage::Given(handler) if Arc::ptr_eq(&handler.session, session) => Arc::clone(handler),
            Stage::Given(_) | Stage::Waiting(_) | Stage::Ended => return None,
        };
        // Under the lock, so that nothing of this request comes after its last answer; under the gather's, after its end.
        let push = || pending.asker.push(now, frame, OnFull::Close).unwrap_or(Pressure::Relieved);
        let pressed = match &pending.gather {
            Some(gather) => gather.pass_on(push)?,
            None => push(),
        };
        routed.note_pressure(&pending.asker, pressed);
        session.set_missed(false);
        if envelope.more() {
            let before = std::mem::replace(&mut progress.deadline, now + pending.timeout);
            // Under the lock: who ends the request takes out the deadline that it finds.
            self.requests.reschedule(id, before, now + pending.timeout);
            return Some(routed);
        }
        progress.stage = Stage::Ended;
        drop(progress);
        self.requests.remove(&pending);
        session.release(id);
        if let Some(gather) = &pending.gather {
            gather.answered(now);
        }
        if envelope.in_reply_to().is_some() {
            self.end_turn(now, &handler);
        }
        Some(routed)
    }

    /// Ends a request with the broker's own answer. `source`: who failed, for a gather's summary. `false`: it had ended.
    pub(in crate::router) fn fail(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        source: &Arc<str>,
        refusal: &Refusal,
    ) -> bool {
        if self.close(pending).is_none() {
            return false;
        }
        match &pending.gather {
            Some(gather) => gather.failed(now, source, refusal.code),
            None => {
                let frame = self.failure(&pending.triple, pending.asker_id.as_deref(), refusal);
                // An asker that is ending hears nothing more.
                pending.asker.push(now, frame, OnFull::Close).ok();
            }
        }
        true
    }

    /// Ends every request that is due.
    pub fn expire(&self, now: Instant) {
        for pending in self.requests.due(now) {
            let (late, source) = {
                let progress = pending.progress.lock();
                if progress.deadline > now {
                    continue;
                }
                match &progress.stage {
                    Stage::Given(handler) => (Some(Arc::clone(&handler.session)), Arc::clone(&handler.session.source)),
                    Stage::Waiting(occupied) => (None, waited_for(occupied)),
                    Stage::Ended => continue,
                }
            };
            let refusal = Refusal::new(
                ErrorCode::RequestTimeout,
                format!("no answer within {}", humantime::format_duration(pending.timeout)),
            );
            // Who answered at the last moment has missed nothing.
            let ended = self.fail(now, &pending, &source, &refusal);
            if let Some(late) = late.filter(|_| ended) {
                late.set_missed(true);
            }
        }
    }

    /// The handler of a request has gone: another one gets it if it is idempotent, else its asker is told.
    pub(in crate::router) fn handler_gone(&self, now: Instant, id: RequestId, session: &Arc<Session>) {
        let Some(pending) = self.requests.find(id) else { return };
        let again = {
            let mut progress = pending.progress.lock();
            match &progress.stage {
                Stage::Given(handler) if Arc::ptr_eq(&handler.session, session) => {}
                Stage::Given(_) | Stage::Waiting(_) | Stage::Ended => return,
            }
            let again = pending.idempotent && pending.gather.is_none() && progress.attempts < ATTEMPTS_MAX;
            if again {
                progress.stage = Stage::Waiting(SmallVec::new());
                progress.text.clone()
            } else {
                None
            }
        };
        session.release(id);
        match again.and_then(|text| self.place_again(now, &pending, &text)) {
            None => {
                self.fail(now, &pending, &session.source, &handler_gone());
            }
            Some(Routed { receipt, .. }) => {
                // A handler that takes commands: delivery has completed it.
                if let (Some(receipt), Some(id)) = (receipt, &pending.asker_id) {
                    pending.asker.push(now, notice::receipt(id, receipt.receivers, None).into(), OnFull::Close).ok();
                }
            }
        }
    }

    /// Gives a request that has lost its handler to another one, if there is one.
    fn place_again(&self, now: Instant, pending: &Arc<Pending>, text: &str) -> Option<Routed> {
        let envelope = decode(text, DecodeLimits::OWN).ok()?;
        let facts = self.policy.facts(envelope.triple());
        let scope = access::scope(&pending.asker, &envelope, &facts).ok()?;
        let candidates = self.candidates(&pending.asker, &envelope, scope, &facts);
        self.place(now, pending, &envelope, candidates).ok()
    }

    /// `Broker/Request/Cancel`: ends every pending request of the asker's own id.
    ///
    /// # Errors
    /// `NO_SUCH_REQUEST`.
    pub fn cancel(&self, now: Instant, asker: &Arc<Session>, id: &str) -> Result<(), Refusal> {
        let asked: Vec<RequestId> = asker.holds.lock().asked.iter().copied().collect();
        let mut found = false;
        for pending in asked.into_iter().filter_map(|request| self.requests.find(request)) {
            if pending.asker_id.as_deref() != Some(id) {
                continue;
            }
            found |= self.give_up(now, &pending, "the requester cancelled the request");
        }
        if found {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::NoSuchRequest, "data.id names no pending request of this session"))
    }

    /// The broker ends: what a session asked and nobody has answered ends with it, and is told so.
    pub fn give_up_all(&self, now: Instant, asker: &Arc<Session>) {
        let pending: Vec<RequestId> = asker.holds.lock().asked.iter().copied().collect();
        for pending in pending.into_iter().filter_map(|request| self.requests.find(request)) {
            self.give_up(now, &pending, "the broker restarts; ask again after reconnecting");
        }
    }

    /// Ends a request with `REQUEST_CANCELLED`; a gather is told once, as a whole. `false`: it had ended already.
    fn give_up(&self, now: Instant, pending: &Arc<Pending>, why: &'static str) -> bool {
        if !self.withdraw(now, pending) {
            return false;
        }
        // Only now: whoever answers the last part at this moment says the end, unless a part was withdrawn before.
        if pending.gather.as_ref().is_none_or(|gather| gather.cancel()) {
            let refusal = Refusal::new(ErrorCode::RequestCancelled, why);
            let frame = self.failure(&pending.triple, pending.asker_id.as_deref(), &refusal);
            pending.asker.push(now, frame, OnFull::Close).ok();
        }
        true
    }

    /// Ends a request without an answer and tells its handler. `false`: it had ended already.
    pub(in crate::router) fn withdraw(&self, now: Instant, pending: &Arc<Pending>) -> bool {
        let Some(stage) = self.close(pending) else { return false };
        if let Stage::Given(handler) = stage {
            handler.session.push(now, notice::cancelled(&pending.id.to_string()).into(), OnFull::Close).ok();
        }
        true
    }

    /// Ends a request that nobody has answered, and lets go of what it held.
    pub(in crate::router) fn close(&self, pending: &Arc<Pending>) -> Option<Stage> {
        let stage = pending.end()?;
        self.requests.remove(pending);
        match &stage {
            Stage::Given(handler) => {
                handler.session.release(pending.id);
                Self::abandon_turn(handler, pending.id);
            }
            Stage::Waiting(_) => forget_waiting(&stage, pending.id),
            Stage::Ended => {}
        }
        Some(stage)
    }
}

/// A reply as its asker sees it: with its own id, or with nothing that was not there.
fn answered(envelope: &Envelope<'_>, pending: &Pending) -> Frame {
    let mut splice = Splice::new(envelope).secret(pending.secret).cut(Field::InReplyTo);
    if let Some(id) = &pending.asker_id {
        splice = splice.string("inReplyTo", id);
    }
    if pending.gather.is_some() {
        splice = splice.cut(Field::More).flag("more");
    }
    splice.into()
}

fn waited_for(occupied: &[Arc<Subscription>]) -> Arc<str> {
    occupied.first().map_or_else(|| Arc::from(""), |subscription| Arc::clone(&subscription.session.source))
}
