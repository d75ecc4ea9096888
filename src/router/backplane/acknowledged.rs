//! Which changes a peer has taken, and what waits for that: replies, and outcomes of what was published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::router::session::Session;
use crate::store::history::LogName;

/// What waits for a peer.
enum Waiter {
    /// Nothing is taken from the queue of this session.
    Session(Arc<Session>),
    /// Something happens when the last reference is dropped.
    Last(Arc<dyn Send + Sync>),
}

/// The changes that a peer has taken.
#[derive(Default)]
pub(in crate::router) struct Acknowledged(Mutex<State>);

#[derive(Default)]
struct State {
    last: u64,
    /// What waits, by the number of the change. One session can be there several times.
    waiting: BTreeMap<u64, Vec<Waiter>>,
    /// The number of the last change that it was told.
    told: u64,
    /// The logs that are to be checked, by the number of the change.
    checks: BTreeMap<u64, Checks>,
    is_lost: bool,
}

/// Logs that are to be checked when a peer has taken what is wanted here: it may have appended events before.
#[derive(Default)]
pub(super) struct Checks {
    pub(super) all: bool,
    pub(super) logs: BTreeSet<LogName>,
}

impl Acknowledged {
    /// Lets nothing be taken from the queue of a session until the peer has taken the change with this number, or is lost.
    pub(super) fn wait(&self, number: u64, session: &Arc<Session>) {
        let mut state = self.0.lock();
        if !state.is_lost && number > state.last {
            session.outbox().withhold();
            state.waiting.entry(number).or_default().push(Waiter::Session(Arc::clone(session)));
        }
    }

    /// Keeps a reference until the peer has taken the change with this number, or is lost.
    pub(in crate::router) fn keep(&self, number: u64, reference: Arc<dyn Send + Sync>) {
        let mut state = self.0.lock();
        if !state.is_lost && number > state.last {
            state.waiting.entry(number).or_default().push(Waiter::Last(reference));
        }
    }

    /// The peer was told a change.
    pub(super) fn told(&self, number: u64) {
        let mut state = self.0.lock();
        state.told = state.told.max(number);
    }

    /// Lets nothing be taken from the queue of a session until the peer has taken what it was told so far.
    pub(super) fn wait_for_all(&self, session: &Arc<Session>) {
        let told = self.0.lock().told;
        self.wait(told, session);
    }

    /// Lets a log be checked when the peer has taken what it was told so far, unless it has.
    pub(super) fn check(&self, log: LogName) {
        let mut state = self.0.lock();
        let told = state.told;
        if !state.is_lost && told > state.last {
            state.checks.entry(told).or_default().logs.insert(log);
        }
    }

    /// Lets every log be checked when the peer has taken the message with this number.
    pub(super) fn check_all(&self, number: u64) {
        let mut state = self.0.lock();
        state.told = state.told.max(number);
        state.checks.entry(number).or_default().all = true;
    }

    /// The peer has taken everything up to this number. Returns the logs that are to be checked now.
    pub(super) fn reached(&self, number: u64) -> Checks {
        let mut state = self.0.lock();
        let last = state.last.max(number);
        state.last = last;
        let later = state.waiting.split_off(&(last + 1));
        let done = std::mem::replace(&mut state.waiting, later);
        let later = state.checks.split_off(&(last + 1));
        let due = std::mem::replace(&mut state.checks, later);
        drop(state);
        stop_waiting(done);
        due.into_values().fold(Checks::default(), |mut checks, more| {
            checks.all |= more.all;
            checks.logs.extend(more.logs);
            checks
        })
    }

    /// The peer is lost: nobody waits for it.
    pub(super) fn lost(&self) {
        let mut state = self.0.lock();
        state.is_lost = true;
        let all = std::mem::take(&mut state.waiting);
        state.checks.clear();
        drop(state);
        stop_waiting(all);
    }
}

fn stop_waiting(waiting: BTreeMap<u64, Vec<Waiter>>) {
    for waiter in waiting.into_values().flatten() {
        match waiter {
            Waiter::Session(session) => session.outbox().stop_withholding(),
            Waiter::Last(reference) => drop(reference),
        }
    }
}
