//! [`Transit`]: what a session that moves between nodes may receive, and when.
//!
//! An event of another node reaches a session either through its old node, which relays it, or through its new one. Each
//! node says, on its links to both, from where on its events go to the new node. The old node ignores what it gets behind
//! that mark. The new node ignores what it gets before it, and holds what it gets behind it until the old node has relayed
//! everything from before. So every event arrives once, and those of one publisher in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::router::outbox::moving::Waiting;
use crate::router::outbox::{Pressure, PushError};
use crate::router::session::Session;
use crate::router::sync::Mutex;

/// The node from which a message is: `None` is this one.
pub(in crate::router) type From<'a> = Option<&'a str>;

/// The messages that a session waits for at most. Beyond it, they are delivered without their order.
const HELD_MAX: usize = 1 << 16;

/// Whether a session is between two nodes.
#[derive(Default)]
pub(in crate::router) struct Transit {
    /// Whether anything else has to be looked at.
    is_moving: AtomicBool,
    /// It has moved, and this node chooses it for no request any more.
    is_past: AtomicBool,
    state: Mutex<Option<Box<State>>>,
}

enum State {
    /// It has gone. The nodes whose events go to its new node.
    Gone(BTreeSet<Option<Box<str>>>),
    /// It has arrived. The nodes whose events may still reach its old one.
    Come(BTreeMap<Option<Box<str>>, Origin>),
}

/// A node whose events may still reach the old node of a session.
#[derive(Default)]
struct Origin {
    /// From now on its events come here.
    is_marked: bool,
    /// Those from before have been relayed.
    is_followed: bool,
    held: Vec<Waiting>,
}

/// What becomes of a message for a session that moves.
enum Fate {
    /// It is pushed as ever.
    Push(Waiting),
    /// The other node of the session delivers it.
    Elsewhere,
    /// It is held.
    Held,
}

fn key(from: From<'_>) -> Option<Box<str>> {
    from.map(Box::from)
}

impl Transit {
    /// The session goes to another node.
    pub(in crate::router) fn go(&self) {
        *self.state.lock() = Some(Box::new(State::Gone(BTreeSet::new())));
        self.is_moving.store(true, Ordering::Release);
    }

    /// The session does not go after all.
    pub(in crate::router) fn stay(&self) {
        *self.state.lock() = None;
        self.is_moving.store(false, Ordering::Release);
    }

    /// The session has arrived, and these nodes may still send its events to the old one.
    pub(in crate::router) fn come<'a>(&self, origins: impl Iterator<Item = From<'a>>) {
        let origins = origins.map(|origin| (key(origin), Origin::default())).collect();
        *self.state.lock() = Some(Box::new(State::Come(origins)));
        self.is_moving.store(true, Ordering::Release);
    }

    /// Whether it is between two nodes.
    pub(in crate::router) fn is_moving(&self) -> bool {
        self.is_moving.load(Ordering::Acquire)
    }

    /// Whether it has gone to another node.
    pub(in crate::router) fn has_gone(&self) -> bool {
        self.is_moving() && matches!(self.state.lock().as_deref(), Some(State::Gone(_)))
    }

    /// This node chooses the session for no request any more.
    pub(in crate::router) fn set_past(&self) {
        self.is_past.store(true, Ordering::Release);
    }

    pub(in crate::router) fn is_past(&self) -> bool {
        self.is_past.load(Ordering::Acquire)
    }

    /// The session has gone, and this node's events go to its new node from now on.
    pub(in crate::router) fn cut(&self, from: From<'_>) {
        if let Some(State::Gone(cut)) = self.state.lock().as_deref_mut() {
            cut.insert(key(from));
        }
    }

    /// Whether the events of all of these go to the new node of a session that has gone.
    pub(in crate::router) fn has_cut<'a>(&self, mut all: impl Iterator<Item = From<'a>>) -> bool {
        match self.state.lock().as_deref() {
            Some(State::Gone(cut)) => all.all(|from| cut.contains(&key(from))),
            Some(State::Come(_)) | None => false,
        }
    }

    /// The session has arrived, and this node's events come here from now on.
    pub(in crate::router) fn mark(&self, now: Instant, session: &Session, from: From<'_>) {
        self.change(now, session, from, |origin| origin.is_marked = true);
    }

    /// Everything of this node that had reached the old node has been relayed.
    pub(in crate::router) fn followed(&self, now: Instant, session: &Session, from: From<'_>) {
        self.change(now, session, from, |origin| origin.is_followed = true);
    }

    /// Nothing is waited for any more of this node.
    pub(in crate::router) fn release(&self, now: Instant, session: &Session, from: From<'_>) {
        self.change(now, session, from, |origin| (origin.is_marked, origin.is_followed) = (true, true));
    }

    fn change(&self, now: Instant, session: &Session, from: From<'_>, change: impl FnOnce(&mut Origin)) {
        let mut state = self.state.lock();
        let Some(State::Come(origins)) = state.as_deref_mut() else { return };
        let key = key(from);
        let Some(origin) = origins.get_mut(&key) else { return };
        change(origin);
        if !origin.is_marked || !origin.is_followed {
            return;
        }
        // Under the lock, so that nothing overtakes what is held.
        if let Some(origin) = origins.remove(&key) {
            origin.push_all(now, session);
        }
        if origins.is_empty() {
            *state = None;
            self.is_moving.store(false, Ordering::Release);
        }
    }

    /// Nothing is waited for any more. Does nothing to a session that has gone.
    pub(in crate::router) fn release_all(&self, now: Instant, session: &Session) {
        let mut state = self.state.lock();
        let Some(State::Come(origins)) = state.as_deref_mut() else { return };
        for origin in std::mem::take(origins).into_values() {
            origin.push_all(now, session);
        }
        *state = None;
        self.is_moving.store(false, Ordering::Release);
    }

    fn judge(&self, from: From<'_>, waiting: Waiting) -> Fate {
        let mut state = self.state.lock();
        match state.as_deref_mut() {
            Some(State::Gone(cut)) if cut.contains(&key(from)) => Fate::Elsewhere,
            Some(State::Gone(_)) | None => Fate::Push(waiting),
            Some(State::Come(origins)) => match origins.get_mut(&key(from)) {
                None => Fate::Push(waiting),
                Some(origin) if !origin.is_marked => Fate::Elsewhere,
                Some(origin) if origin.held.len() >= HELD_MAX => Fate::Push(waiting),
                Some(origin) => {
                    origin.held.push(waiting);
                    Fate::Held
                }
            },
        }
    }
}

impl Origin {
    fn push_all(self, now: Instant, session: &Session) {
        for waiting in self.held {
            // A session that is ending receives nothing more.
            session.outbox().push_as(now, waiting).ok();
        }
    }
}

impl Session {
    /// What it is while it is between two nodes; `None` if it can never be.
    pub(in crate::router) fn transit(&self) -> Option<&Transit> {
        self.resumable.as_ref().map(|resumable| &resumable.transit)
    }

    /// Whether it is between two nodes.
    pub(in crate::router) fn is_moving(&self) -> bool {
        self.transit().is_some_and(Transit::is_moving)
    }

    /// Pushes a message of a node to the session, unless its other node delivers it, or holds it. `may` says whether its
    /// rights allow the message.
    ///
    /// # Errors
    /// [`PushError`]; `Forbidden` if the other node delivers it.
    pub(in crate::router) fn push_from(
        &self,
        now: Instant,
        from: From<'_>,
        waiting: Waiting,
        may: impl FnOnce() -> bool,
    ) -> Result<Pressure, PushError> {
        let waiting = match self.transit().filter(|transit| transit.is_moving()) {
            None => waiting,
            Some(_) if !may() => return Err(PushError::Forbidden),
            Some(transit) => match transit.judge(from, waiting) {
                Fate::Push(waiting) => return self.outbox().push_as(now, waiting),
                Fate::Elsewhere => return Err(PushError::Forbidden),
                Fate::Held => return Ok(Pressure::Relieved),
            },
        };
        let (frame, on_full, kind) = waiting;
        self.push_if(now, (frame, kind), on_full, may)
    }

    /// The node that a requester is on.
    pub(in crate::router) fn node(&self) -> Option<Arc<str>> {
        self.remote().map(|remote| Arc::from(remote.node()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::outbox::{Kind, OnFull};
    use crate::websocket::Frame;

    #[test]
    fn a_session_that_has_gone_gets_what_was_sent_before_the_mark() {
        let transit = Transit::default();
        let frame = || (Frame::new("{}"), OnFull::Close, Kind::Event);
        transit.go();
        assert!(matches!(transit.judge(Some("two"), frame()), Fate::Push(_)));
        transit.cut(Some("two"));
        assert!(matches!(transit.judge(Some("two"), frame()), Fate::Elsewhere));
        assert!(matches!(transit.judge(None, frame()), Fate::Push(_)));
        assert!(!transit.has_cut([None, Some("two")].into_iter()));
        transit.cut(None);
        assert!(transit.has_cut([None, Some("two")].into_iter()));
    }
}
