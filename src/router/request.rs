//! Requests on their way to a handler: given to the best one, waiting for an ordered one's turn, gathered from all.
//! `answer` has how each one ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use zeroize::Zeroizing;

use crate::router::application::Member;
use crate::router::gather::Gather;
use crate::router::handler::Candidates;
use crate::router::index::Subscription;
use crate::router::outbox::{Gone, Kind};
use crate::router::pending::{Pending, Progress, Stage};
use crate::router::{Receipt, RequestId, Routed, Router, Whose};
use crate::websocket::Frame;
use wire::{DecodeLimits, Envelope, Field, Splice, decode};
use wire::{ErrorCode, Refusal};

impl Router {
    /// Gives a request to one handler, or with `gather` to all.
    pub(super) fn request(
        &self,
        now: Instant,
        asker: &Arc<Member>,
        envelope: &Envelope<'_>,
        whose: Whose<'_>,
        candidates: Candidates,
    ) -> Result<Routed, Refusal> {
        let most = self.policy.limits.pending_requests;
        if asker.holds.lock().asked.len() >= most {
            return Err(Refusal::new(
                ErrorCode::TooManyRequests,
                format!("{most} requests of this session are pending; wait for answers, or cancel some"),
            ));
        }
        if envelope.gather() {
            if asker.holds.lock().asked.len() + candidates.len() > most {
                return Err(Refusal::new(
                    ErrorCode::TooManyRequests,
                    format!("a request to each of {} handlers is over the limit of {most} pending", candidates.len()),
                ));
            }
            return Ok(self.gather(now, asker, envelope, whose, candidates));
        }
        let is_full = candidates.has_adapter();
        let pending = self.pend(now, asker, envelope, whose, None);
        match self.place(now, &pending, envelope, candidates) {
            Ok(routed) => Ok(routed),
            Err(Gone) => {
                self.close(&pending);
                Err(if is_full { adapter_full() } else { no_handler(envelope) })
            }
        }
    }

    fn gather(
        &self,
        now: Instant,
        asker: &Arc<Member>,
        envelope: &Envelope<'_>,
        whose: Whose<'_>,
        candidates: Candidates,
    ) -> Routed {
        let everyone = candidates.everyone();
        let expected = everyone.iter().filter(|handler| !handler.takes_commands()).count();
        let gather = Arc::new(Gather::new(asker, envelope.id(), envelope.triple(), expected));
        let mut routed = Routed::default();
        for handler in everyone {
            if handler.takes_commands() {
                routed.press(&handler.member, self.command(now, asker, envelope, whose, &handler).unwrap_or(false));
                continue;
            }
            let source = Arc::clone(&handler.member.source);
            let pending = self.pend(now, asker, envelope, whose, Some(Arc::clone(&gather)));
            match self.place(now, &pending, envelope, Candidates::only(handler)) {
                Ok(placed) => routed.pressed.extend(placed.pressed),
                Err(Gone) => {
                    self.close(&pending);
                    gather.failed(now, &source, ErrorCode::HandlerGone);
                }
            }
        }
        if expected == 0 {
            gather.end_if_complete(now);
        }
        routed
    }

    fn pend(
        &self,
        now: Instant,
        asker: &Arc<Member>,
        envelope: &Envelope<'_>,
        whose: Whose<'_>,
        gather: Option<Arc<Gather>>,
    ) -> Arc<Pending> {
        let timeout = self.time_limit(envelope);
        let deadline = now + timeout;
        let pending = Arc::new(Pending {
            id: self.ids.request(),
            asker: Arc::clone(asker),
            asker_id: envelope.id().map(Box::from),
            triple: envelope.triple().to_owned(),
            user: whose.user().map(Box::from),
            timeout,
            secret: self.policy.is_protected(envelope.triple()),
            idempotent: envelope.idempotent(),
            gather,
            progress: Mutex::new(Progress {
                stage: Stage::Waiting(SmallVec::new()),
                deadline,
                attempts: 0,
                text: envelope.idempotent().then(|| Zeroizing::new(envelope.text().to_owned())),
            }),
        });
        self.requests.insert(&pending, deadline);
        pending
    }

    /// How long an asker waits: what it says, at most the configured time, which is what it waits where it says nothing.
    fn time_limit(&self, envelope: &Envelope<'_>) -> Duration {
        let most = self.policy.limits.request_timeout;
        envelope.timeout_ms().map_or(most, |ms| Duration::from_millis(ms).min(most))
    }

    /// Gives a request to the best candidate that takes it; waits for the turn of an ordered one where nobody is free.
    ///
    /// # Errors
    /// [`Gone`]: nobody takes it.
    pub(super) fn place(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        envelope: &Envelope<'_>,
        candidates: Candidates,
    ) -> Result<Routed, Gone> {
        let mut occupied = SmallVec::<[Arc<Subscription>; 1]>::new();
        for handler in candidates.best_first() {
            if handler.takes_commands() {
                let whose = pending.user.as_deref().map_or(Whose::Shared(None), Whose::User);
                let Ok(pressed) = self.command(now, &pending.asker, envelope, whose, &handler) else { continue };
                self.close(pending);
                let mut routed = Routed { receipt: Some(Receipt { receivers: 1, hint: None }), pressed: Vec::new() };
                routed.press(&handler.member, pressed);
                return Ok(routed);
            }
            if handler.ordered.as_ref().is_some_and(|ordered| !ordered.take(pending.id)) {
                occupied.push(handler);
                continue;
            }
            if let Ok(pressed) = self.give(now, pending, envelope, &handler) {
                let mut routed = Routed::default();
                routed.press(&handler.member, pressed);
                return Ok(routed);
            }
        }
        if occupied.is_empty() {
            return Err(Gone);
        }
        self.wait(now, pending, envelope, &occupied);
        Ok(Routed::default())
    }

    /// Lets a request wait, within its own time limit, for the turn of an ordered handler.
    fn wait(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        envelope: &Envelope<'_>,
        occupied: &SmallVec<[Arc<Subscription>; 1]>,
    ) {
        {
            let mut progress = pending.progress.lock();
            if matches!(progress.stage, Stage::Ended) {
                return;
            }
            progress.stage = Stage::Waiting(occupied.clone());
            progress.text = Some(Zeroizing::new(envelope.text().to_owned()));
        }
        for subscription in occupied {
            if let Some(ordered) = &subscription.ordered {
                ordered.wait(pending.id);
            }
            // Its turn may have ended between the look and the wait.
            self.serve_waiting(now, subscription);
        }
    }

    /// Gives a request that waited to the ordered subscription whose turn is free.
    pub(super) fn resume_waiting(&self, now: Instant, request: RequestId, subscription: &Arc<Subscription>) {
        let Some(pending) = self.requests.find(request) else { return };
        let text = {
            let progress = pending.progress.lock();
            match (&progress.stage, &progress.text) {
                (Stage::Waiting(_), Some(text)) => text.clone(),
                _ => return,
            }
        };
        let Ok(envelope) = decode(&text, DecodeLimits::OWN) else { return };
        let Some(ordered) = &subscription.ordered else { return };
        if !ordered.take(request) {
            // Somebody else was quicker: it goes on waiting.
            ordered.wait(request);
        } else if self.give(now, &pending, &envelope, subscription).is_err() {
            self.leave_waiting(now, request, subscription);
        }
    }

    /// An ordered handler has left that a request waited for.
    pub(super) fn leave_waiting(&self, now: Instant, request: RequestId, subscription: &Arc<Subscription>) {
        let Some(pending) = self.requests.find(request) else { return };
        let nobody_left = match &mut pending.progress.lock().stage {
            Stage::Waiting(occupied) => {
                occupied.retain(|other| other.id != subscription.id);
                occupied.is_empty()
            }
            Stage::Given(_) | Stage::Ended => false,
        };
        if nobody_left {
            self.fail(now, &pending, &subscription.member.source, &handler_gone());
        }
    }

    /// Sends a request to a handler. An ordered one has its turn taken already.
    fn give(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        envelope: &Envelope<'_>,
        handler: &Arc<Subscription>,
    ) -> Result<bool, Gone> {
        if handler.member.give(pending.id).is_err() {
            Self::undo_turn(handler, pending.id);
            return Err(Gone);
        }
        // Before the handler can answer, it has to be known that it may.
        let (before, remaining) = {
            let mut progress = pending.progress.lock();
            if matches!(progress.stage, Stage::Ended) {
                drop(progress);
                handler.member.ungive(pending.id);
                Self::undo_turn(handler, pending.id);
                return Ok(false);
            }
            progress.attempts += 1;
            let before = std::mem::replace(&mut progress.stage, Stage::Given(Arc::clone(handler)));
            (before, progress.deadline.saturating_duration_since(now))
        };
        if handler.ordered.is_some() {
            self.begin_turn(handler, &pending.triple);
        }
        let frame = delivered(envelope, &pending.asker, pending.user.as_deref(), pending.id, remaining, pending.secret);
        match handler.member.push(now, frame, Kind::Kept) {
            Ok(pressed) => {
                handler.member.serve(self.ids.stamp());
                forget_waiting(&before, pending.id);
                Ok(pressed)
            }
            Err(Gone) => {
                let mut progress = pending.progress.lock();
                let ended = matches!(progress.stage, Stage::Ended);
                if !ended {
                    progress.stage = before;
                    progress.attempts -= 1;
                }
                drop(progress);
                handler.member.ungive(pending.id);
                Self::undo_turn(handler, pending.id);
                if ended { Ok(false) } else { Err(Gone) }
            }
        }
    }

    /// Sends a command to a handler that never answers: delivery completes it.
    fn command(
        &self,
        now: Instant,
        asker: &Member,
        envelope: &Envelope<'_>,
        whose: Whose<'_>,
        handler: &Arc<Subscription>,
    ) -> Result<bool, Gone> {
        let secret = self.policy.is_protected(envelope.triple());
        let limit = self.time_limit(envelope);
        let frame = delivered(envelope, asker, whose.user(), self.ids.request(), limit, secret);
        let pressed = handler.member.push(now, frame, Kind::Kept)?;
        handler.member.serve(self.ids.stamp());
        Ok(pressed)
    }
}

/// A request as its handler sees it.
fn delivered(
    envelope: &Envelope<'_>,
    asker: &Member,
    user: Option<&str>,
    id: RequestId,
    remaining: Duration,
    secret: bool,
) -> Frame {
    let mut splice = Splice::new(envelope).secret(secret).cut(Field::Id).cut(Field::User).cut(Field::Timeout);
    if envelope.source().is_none() {
        splice = splice.string("source", &asker.source);
    }
    if let Some(user) = user {
        splice = splice.string("user", user);
    }
    splice = splice.string("id", &id.to_string());
    if let Some(request_id) = envelope.id() {
        splice = splice.string("requestId", request_id);
    }
    let remaining = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX).max(1);
    splice.number("timeout", remaining).into()
}

pub(super) fn handler_gone() -> Refusal {
    Refusal::new(ErrorCode::HandlerGone, "the handler left before it answered; ask again when it is back")
}

pub(super) fn no_handler(envelope: &Envelope<'_>) -> Refusal {
    let words = match envelope.target() {
        Some(_) => "no session of the target's name that may answer is connected",
        None => "nobody who may answer this triple is connected; letter case counts",
    };
    Refusal::new(ErrorCode::NoHandler, words)
}

pub(super) fn check_once(envelope: &Envelope<'_>) -> Result<(), Refusal> {
    match envelope.once() {
        false => Ok(()),
        true => Err(Refusal::new(
            ErrorCode::InvalidEnvelope,
            "the field 'once' is for events in a channel with history, which this version does not have",
        )),
    }
}

pub(super) fn not_retained() -> Refusal {
    Refusal::new(ErrorCode::InvalidEnvelope, "the field 'retain' is for events, and this is a request")
}

/// An adapter is never gone while its broker runs: where nobody took the request, its queue is full.
fn adapter_full() -> Refusal {
    Refusal::new(
        ErrorCode::UpstreamUnavailable,
        "too many requests wait for the adapter in the broker; ask again in a moment",
    )
}

/// A request that waited for several ordered handlers was given to one: the others need not keep it.
pub(super) fn forget_waiting(stage: &Stage, request: RequestId) {
    if let Stage::Waiting(occupied) = stage {
        occupied.iter().filter_map(|handler| handler.ordered.as_ref()).for_each(|it| it.forget(request));
    }
}
