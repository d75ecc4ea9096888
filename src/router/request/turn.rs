//! Handlers that know no ids: one request at a time for each subscription, and its next envelope is the reply.
//!
//! Whenever a request ends without its envelope, the subscription *owes* it, and gets no further request until that
//! envelope has come and was discarded: a late answer must never be taken for the next asker's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;

use crate::router::decide::Facts;
use crate::router::index::Subscription;
use crate::router::session::Session;
use crate::router::{RequestId, Routed, Router};
use wire::command::Role;
use wire::{Envelope, Triple, fold};

/// Scope turn it is at one ordered subscription, and who waits for it.
#[derive(Default)]
pub(in crate::router) struct Ordered {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stage: Stage,
    waiting: VecDeque<RequestId>,
    /// Unsubscribed: it may still answer what it was given.
    left: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Free,
    /// Works on this request.
    Busy(RequestId),
    /// The request ended without its envelope, which will still come.
    Owed(RequestId),
}

/// One ordered subscription that has, or owes, an answer; kept with its session.
#[derive(Clone)]
pub(in crate::router) struct Turn {
    subscription: Arc<Subscription>,
    /// The request's triple, canonical.
    triple: Triple<'static>,
}

impl Ordered {
    /// Takes the turn for a request, if it is free.
    pub(in crate::router) fn take(&self, request: RequestId) -> bool {
        let mut state = self.state.lock();
        let free = state.stage == Stage::Free && !state.left;
        if free {
            state.stage = Stage::Busy(request);
        }
        free
    }

    /// Gives back a turn whose request was never sent.
    fn give_back(&self, request: RequestId) {
        let mut state = self.state.lock();
        if state.stage == Stage::Busy(request) {
            state.stage = Stage::Free;
        }
    }

    /// Lets a request wait for the turn.
    pub(in crate::router) fn wait(&self, request: RequestId) {
        self.state.lock().waiting.push_back(request);
    }

    /// A request that waited has ended.
    pub(in crate::router) fn forget(&self, request: RequestId) {
        self.state.lock().waiting.retain(|waiting| *waiting != request);
    }

    /// The next request that waits, if the turn is free.
    fn next(&self) -> Option<RequestId> {
        let mut state = self.state.lock();
        if state.stage == Stage::Free && !state.left { state.waiting.pop_front() } else { None }
    }

    /// No further request: those that wait are given back.
    pub(in crate::router) fn leave(&self) -> VecDeque<RequestId> {
        let mut state = self.state.lock();
        state.left = true;
        std::mem::take(&mut state.waiting)
    }
}

impl Turn {
    /// Whether an envelope on this canonical triple is the answer: the request's own, or one that was listed.
    fn expects(&self, triple: &Triple<'_>, folded: bool) -> bool {
        let Role::Handler { replies, .. } = &self.subscription.role else { return false };
        let same = |own: &str, others: &str| if folded { fold(own) == others } else { own == others };
        self.triple == *triple
            || (self.triple.channel == triple.channel
                && replies
                    .iter()
                    .any(|(topic, subtopic)| same(topic, &triple.topic) && same(subtopic, &triple.subtopic)))
    }
}

impl Router {
    /// Notes that an ordered subscription works on a request.
    pub(in crate::router) fn begin_turn(&self, subscription: &Arc<Subscription>, triple: &Triple<'_>) {
        let turn = Turn { subscription: Arc::clone(subscription), triple: self.policy.canonical(triple).to_owned() };
        let session = &subscription.session;
        session.holds.lock().turns.push(turn);
        session.turns.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes back a turn whose request could not be sent.
    pub(in crate::router) fn undo_turn(subscription: &Arc<Subscription>, request: RequestId) {
        if let Some(ordered) = &subscription.ordered {
            forget_turn(subscription);
            ordered.give_back(request);
        }
    }

    /// Ends a turn whose envelope has come, and begins the next.
    pub(in crate::router) fn end_turn(&self, now: Instant, subscription: &Arc<Subscription>) {
        if let Some(ordered) = &subscription.ordered {
            forget_turn(subscription);
            ordered.state.lock().stage = Stage::Free;
            self.serve_waiting(now, subscription);
        }
    }

    /// A request ended without its envelope: the subscription owes it from now on.
    pub(in crate::router) fn abandon_turn(subscription: &Arc<Subscription>, request: RequestId) {
        let Some(ordered) = &subscription.ordered else { return };
        let mut state = ordered.state.lock();
        if state.stage != Stage::Busy(request) {
            return;
        }
        state.stage = Stage::Owed(request);
        let left = state.left;
        drop(state);
        if left {
            forget_turn(subscription);
        }
    }

    /// An ordered subscription has ended. It may still answer what it was given; what it owes is forgotten.
    pub(in crate::router) fn leave_turn(subscription: &Arc<Subscription>) -> VecDeque<RequestId> {
        let Some(ordered) = &subscription.ordered else { return VecDeque::new() };
        let waiting = ordered.leave();
        if matches!(ordered.state.lock().stage, Stage::Owed(_)) {
            forget_turn(subscription);
        }
        waiting
    }

    /// Gives a free subscription the requests that wait for it, until it has one.
    pub(in crate::router) fn serve_waiting(&self, now: Instant, subscription: &Arc<Subscription>) {
        let Some(ordered) = &subscription.ordered else { return };
        while let Some(request) = ordered.next() {
            self.resume_waiting(now, request, subscription);
        }
    }

    /// A late answer that names its request: the envelope that was owed has come.
    pub(in crate::router) fn settle_turn(&self, now: Instant, session: &Arc<Session>, request: RequestId) {
        if session.turns.load(Ordering::SeqCst) == 0 {
            return;
        }
        let turns = session.holds.lock().turns.clone();
        let owed = turns.into_iter().map(|turn| turn.subscription).find(|subscription| {
            subscription.ordered.as_ref().is_some_and(|it| it.state.lock().stage == Stage::Owed(request))
        });
        if let Some(subscription) = owed {
            self.end_turn(now, &subscription);
        }
    }

    /// Takes an envelope without `inReplyTo` as the reply that has its turn in an ordered subscription.
    pub(in crate::router) fn answer_in_turn(
        &self,
        now: Instant,
        session: &Arc<Session>,
        subscription: &Arc<Subscription>,
        envelope: &Envelope<'_>,
    ) -> Routed {
        let Some(ordered) = &subscription.ordered else { return Routed::default() };
        let stage = ordered.state.lock().stage;
        let routed = match stage {
            // An answer that lost a race against its time limit is discarded like every late one.
            Stage::Busy(request) => self.answer(now, session, request, envelope).unwrap_or_default(),
            Stage::Owed(_) | Stage::Free => Routed::default(),
        };
        session.set_missed(false);
        if !envelope.more() {
            self.end_turn(now, subscription);
        }
        routed
    }
}

impl Session {
    /// The ordered subscription whose turn an envelope without `inReplyTo` ends, if there is one.
    pub(in crate::router) fn turn_that_expects(&self, facts: &Facts<'_>) -> Option<Arc<Subscription>> {
        if self.turns.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let holds = self.holds.lock();
        let turn = holds.turns.iter().find(|turn| turn.expects(&facts.canonical, facts.folded))?;
        Some(Arc::clone(&turn.subscription))
    }
}

fn forget_turn(subscription: &Arc<Subscription>) {
    let session = &subscription.session;
    let mut holds = session.holds.lock();
    let before = holds.turns.len();
    holds.turns.retain(|turn| turn.subscription.id != subscription.id);
    session.turns.fetch_sub(before - holds.turns.len(), Ordering::SeqCst);
}
