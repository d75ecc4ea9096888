//! [`Gather`]: one request to every handler, and the moment when all have answered or failed.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::router::outbox::OnFull;
use crate::router::session::Session;
use crate::router::sync::Mutex;
use wire::ErrorCode;
use wire::{Triple, notice};

/// A request that several handlers were given.
pub(in crate::router) struct Gather {
    asker: Arc<Session>,
    asker_id: Option<Box<str>>,
    triple: Triple<'static>,
    state: Mutex<State>,
}

struct State {
    expected: usize,
    answered: usize,
    failed: Vec<(Arc<str>, ErrorCode)>,
    /// The end was sent, or another answer takes its place.
    ended: bool,
}

impl Gather {
    pub(in crate::router) fn new(
        asker: &Arc<Session>,
        asker_id: Option<&str>,
        triple: &Triple<'_>,
        expected: usize,
    ) -> Self {
        Self {
            asker: Arc::clone(asker),
            asker_id: asker_id.map(Box::from),
            triple: triple.to_owned(),
            state: Mutex::new(State { expected, answered: 0, failed: Vec::new(), ended: false }),
        }
    }

    /// A handler has sent its last answer, which is in the requester's outbox already.
    pub(in crate::router) fn answered(&self, now: Instant) {
        self.part(now, |state| state.answered += 1);
    }

    /// A handler will not answer.
    pub(in crate::router) fn failed(&self, now: Instant, source: &Arc<str>, code: ErrorCode) {
        self.part(now, |state| state.failed.push((Arc::clone(source), code)));
    }

    /// Passes an answer on, unless the end was sent, which nothing may follow.
    pub(in crate::router) fn pass_on(&self, push: impl FnOnce()) {
        let state = self.state.lock();
        if !state.ended {
            push();
        }
    }

    /// The request was cancelled, so its end is not sent. Returns `false` if it was sent already.
    pub(in crate::router) fn cancel(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().ended, true)
    }

    /// Sends the end if nobody was asked at all.
    pub(in crate::router) fn end_if_complete(&self, now: Instant) {
        self.part(now, |_| ());
    }

    fn part(&self, now: Instant, note: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        note(&mut state);
        if state.ended || state.answered + state.failed.len() < state.expected {
            return;
        }
        state.ended = true;
        if let Some(call) = self.asker.call() {
            return call.gathered(state.expected, &state.failed);
        }
        let failed: Vec<Value> = state
            .failed
            .iter()
            .map(|(source, code)| json!({ "Source": &**source, "ErrorCode": code.as_str() }))
            .collect();
        let more = json!({ "Expected": state.expected, "Answered": state.answered, "Failed": failed });
        let frame = notice::success(&self.triple, self.asker_id.as_deref(), more).into();
        // A requester that is ending gets nothing more.
        self.asker.push(now, frame, OnFull::Close).ok();
    }
}
