//! Which changes a peer has taken, and what waits for that: replies, and outcomes of what was published.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::router::session::Session;

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
    is_lost: bool,
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

    /// The peer has taken everything up to this number.
    pub(super) fn reached(&self, number: u64) {
        let mut state = self.0.lock();
        let last = state.last.max(number);
        state.last = last;
        let later = state.waiting.split_off(&(last + 1));
        let done = std::mem::replace(&mut state.waiting, later);
        drop(state);
        stop_waiting(done);
    }

    /// The peer is lost: nobody waits for it.
    pub(super) fn lost(&self) {
        let mut state = self.0.lock();
        state.is_lost = true;
        let all = std::mem::take(&mut state.waiting);
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
