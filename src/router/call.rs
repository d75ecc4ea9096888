//! [`Call`]: a session for one call over HTTP. It is not listed among the applications, subscribes to nothing and has no
//! queue: what becomes of its request arrives here, once.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use wire::{ErrorCode, Refusal};

use crate::router::attach::check_not_own;
use crate::router::session::{Role, Session};
use crate::router::{Outbox, OutboxLimits, Registration, Router};
use crate::websocket::Frame;

/// What became of the request of a call.
pub enum CallOutcome {
    /// Its handler's reply, as the requester gets it.
    Reply(Frame),
    /// The replies to a gather.
    Gathered(Gathered),
    /// A handler that never answers has it.
    Delivered {
        /// How many sessions have it.
        receivers: usize,
    },
    /// It has failed, by the broker's own decision.
    Refused(Refusal),
}

/// The end of a gather.
pub struct Gathered {
    /// One reply of each handler that answered.
    pub answers: Vec<Frame>,
    /// How many handlers were asked.
    pub expected: usize,
    /// The sources that have not answered, and why.
    pub failed: Vec<(Arc<str>, ErrorCode)>,
}

/// Where the outcome of a call's request arrives.
pub(super) struct Call {
    /// The bounds of what a gather may bring.
    limits: OutboxLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answers: Vec<Frame>,
    bytes: usize,
    outcome: Option<CallOutcome>,
    /// An outcome has arrived. What comes after it is dropped.
    is_over: bool,
    waker: Option<Waker>,
}

impl State {
    fn end(&mut self, outcome: CallOutcome) -> Option<Waker> {
        if self.is_over {
            return None;
        }
        (self.is_over, self.outcome) = (true, Some(outcome));
        self.answers = Vec::new();
        self.waker.take()
    }
}

impl Call {
    pub(super) fn new(limits: OutboxLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// The last reply of a handler. `gathered`: other handlers were asked too.
    pub(super) fn answered(&self, frame: Frame, gathered: bool) {
        if !gathered {
            return self.end(CallOutcome::Reply(frame));
        }
        let is_full = {
            let mut state = self.state.lock();
            let is_full = state.answers.len() >= self.limits.messages || state.bytes + frame.len() > self.limits.bytes;
            if !is_full && !state.is_over {
                state.bytes += frame.len();
                state.answers.push(frame);
            }
            is_full
        };
        if is_full {
            self.refused(Refusal::new(
                ErrorCode::TooLarge,
                "the answers to the gather are beyond limits.outbound_messages or limits.outbound_bytes; use a WebSocket",
            ));
        }
    }

    /// All handlers of a gather have answered or failed.
    pub(super) fn gathered(&self, expected: usize, failed: &[(Arc<str>, ErrorCode)]) {
        let answers = std::mem::take(&mut self.state.lock().answers);
        self.end(CallOutcome::Gathered(Gathered { answers, expected, failed: failed.to_vec() }));
    }

    /// A handler that never answers has the request.
    pub(super) fn delivered(&self, receivers: usize) {
        self.end(CallOutcome::Delivered { receivers });
    }

    /// The request has failed.
    pub(super) fn refused(&self, refusal: Refusal) {
        self.end(CallOutcome::Refused(refusal));
    }

    fn end(&self, outcome: CallOutcome) {
        let waker = self.state.lock().end(outcome);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// The sessions of the calls that are being served, by number.
#[derive(Default)]
pub(super) struct Calls(Mutex<HashMap<u64, Arc<Session>>>);

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// All of them, in the order in which they began.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.0.lock().values().cloned().collect();
        sessions.sort_unstable_by_key(|session| session.number);
        sessions
    }

    pub(super) fn remove(&self, session: &Session) {
        self.0.lock().remove(&session.number);
    }
}

impl Router {
    /// Makes a session for one call over HTTP, whose identity was verified when [`Router::reloads`] was `reloads`. It has the
    /// rights of its identity, and is not an application that others could see. `None`: there was a reload since, so it has
    /// to be verified again. [`Router::detach`] ends it. `limits`: of the answers to a gather.
    ///
    /// # Errors
    /// `FORBIDDEN` for the broker's own source.
    pub fn attach_call(
        &self,
        now: Instant,
        registration: Registration,
        limits: OutboxLimits,
        reloads: u64,
    ) -> Result<Option<Arc<Session>>, Refusal> {
        check_not_own(&registration.source)?;
        let role = Role::of(&registration.identity.principal);
        let mut session = self.session(now, role, registration, None);
        session.call = Some(Box::new(Call::new(limits)));
        let session = Arc::new(session);
        let mut calls = self.calls.0.lock();
        // Compared under the lock, so that a review either sees the session, or the session the review's number.
        if self.reloads() != reloads {
            return Ok(None);
        }
        calls.insert(session.number, Arc::clone(&session));
        Ok(Some(session))
    }
}

impl Outbox {
    /// The queue of a session that receives nothing.
    #[must_use]
    pub fn refusing() -> Self {
        Self::new(OutboxLimits { messages: 0, bytes: 0, refuses: true })
    }
}

impl Session {
    pub(super) fn call(&self) -> Option<&Call> {
        self.call.as_deref()
    }

    /// Returns whether it is a session for one call over HTTP.
    pub fn is_call(&self) -> bool {
        self.call.is_some()
    }

    /// Ready when the request of a call has ended. Ready once, and never for any other session.
    pub fn poll_outcome(&self, cx: &mut Context<'_>) -> Poll<CallOutcome> {
        let Some(call) = self.call() else { return Poll::Pending };
        let mut state = call.state.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
