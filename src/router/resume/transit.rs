//! [`Transit`]: what a session that moves between nodes may receive, and when.
//!
//! An event of another node reaches a session either through its old node, which relays it, or through its new one. Each
//! node says, on its links to both, from where on its events go to the new node. The old node ignores what it gets behind
//! that mark. The new node ignores what it gets before it, and holds what it gets behind it until the old node has relayed
//! everything from before. So every event arrives once, and those of one publisher in their order.
//!
//! Events of logs (docs/protocol.md, "History") have numbers, so they need no mark. The old node relays all that it delivers,
//! at least up to where the new node was when the session came to it. The new node holds all that it delivers itself until
//! nothing is relayed any more, and drops those that are not beyond what the old node has given ([`Floors`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::floors::Floors;
use crate::router::history::{InLog, Position};
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
    /// The events of logs that it has already.
    floors: Floors,
}

enum State {
    /// It has gone.
    Gone(Gone),
    /// It has arrived.
    Come(Come),
}

#[derive(Default)]
struct Gone {
    /// The nodes whose events go to its new node.
    cut: BTreeSet<Option<Box<str>>>,
    /// Where its new node was in each log when the session came to it, by the keys of the logs.
    begins: Vec<(Box<str>, Position)>,
    /// Whether these are all.
    knows_begins: bool,
}

#[derive(Default)]
struct Come {
    /// The nodes whose events may still reach its old one.
    origins: BTreeMap<Option<Box<str>>, Origin>,
    /// It may receive events of logs. They have to keep their place among all others, so everything is held.
    reads_logs: bool,
    held: Vec<Held>,
}

/// A node whose events may still reach the old node of a session.
#[derive(Default)]
struct Origin {
    /// From now on its events come here.
    is_marked: bool,
    /// Those from before have been relayed.
    is_followed: bool,
}

/// A message that is held.
struct Held {
    from: Option<Box<str>>,
    /// Its place in a log, if it is in one.
    place: Option<(Box<str>, Position)>,
    waiting: Waiting,
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
        *self.state.lock() = Some(Box::new(State::Gone(Gone::default())));
        self.is_moving.store(true, Ordering::Release);
    }

    /// The session does not go after all.
    pub(in crate::router) fn stay(&self) {
        *self.state.lock() = None;
        self.is_moving.store(false, Ordering::Release);
    }

    /// The session has arrived, and these nodes may still send its events to the old one. `reads_logs`: it may receive events
    /// of logs.
    pub(in crate::router) fn come<'a>(&self, origins: impl Iterator<Item = From<'a>>, reads_logs: bool) {
        let origins = origins.map(|origin| (key(origin), Origin::default())).collect();
        *self.state.lock() = Some(Box::new(State::Come(Come { origins, reads_logs, held: Vec::new() })));
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
        if let Some(State::Gone(gone)) = self.state.lock().as_deref_mut() {
            gone.cut.insert(key(from));
        }
    }

    /// The session has gone, and its new node was here in these logs when it came. `is_last`: these are all.
    pub(in crate::router) fn add_begins(&self, begins: Vec<(Box<str>, Position)>, is_last: bool) {
        if let Some(State::Gone(gone)) = self.state.lock().as_deref_mut() {
            gone.begins.extend(begins);
            gone.knows_begins = is_last;
        }
    }

    /// Where the new node of a session that has gone was in each log; `None` if it has not said that yet.
    pub(in crate::router) fn begins(&self) -> Option<Vec<(Box<str>, Position)>> {
        match self.state.lock().as_deref() {
            Some(State::Gone(gone)) => gone.knows_begins.then(|| gone.begins.clone()),
            Some(State::Come(_)) | None => None,
        }
    }

    /// The events of logs that the session has already.
    pub(in crate::router) fn floors(&self) -> &Floors {
        &self.floors
    }

    /// Whether the events of all of these go to the new node of a session that has gone.
    pub(in crate::router) fn has_cut<'a>(&self, mut all: impl Iterator<Item = From<'a>>) -> bool {
        match self.state.lock().as_deref() {
            Some(State::Gone(gone)) => all.all(|from| gone.cut.contains(&key(from))),
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
        let Some(State::Come(come)) = state.as_deref_mut() else { return };
        let key = key(from);
        let Some(origin) = come.origins.get_mut(&key) else { return };
        change(origin);
        if !origin.is_marked || !origin.is_followed {
            return;
        }
        come.origins.remove(&key);
        if come.reads_logs {
            // Its events keep their place among those of logs, which are held until nothing is relayed.
            return;
        }
        // Under the lock, so that nothing overtakes what is held.
        for held in come.held.extract_if(.., |held| held.from == key) {
            self.push_held(now, session, held);
        }
        if come.origins.is_empty() {
            *state = None;
            self.is_moving.store(false, Ordering::Release);
        }
    }

    /// Nothing is waited for any more. Does nothing to a session that has gone.
    pub(in crate::router) fn release_all(&self, now: Instant, session: &Session) {
        let mut state = self.state.lock();
        let Some(State::Come(come)) = state.as_deref_mut() else { return };
        for held in std::mem::take(&mut come.held) {
            self.push_held(now, session, held);
        }
        *state = None;
        self.is_moving.store(false, Ordering::Release);
    }

    fn push_held(&self, now: Instant, session: &Session, Held { place, waiting, .. }: Held) {
        let has_it = place.is_some_and(|(log, position)| self.floors.has(InLog { log: &log, position: &position }));
        if !has_it {
            // A session that is ending receives nothing more.
            session.outbox().push_as(now, waiting).ok();
        }
    }

    fn judge(&self, from: From<'_>, place: Option<InLog<'_>>, waiting: Waiting) -> Fate {
        let mut state = self.state.lock();
        match state.as_deref_mut() {
            Some(State::Gone(gone)) if place.is_none() && gone.cut.contains(&key(from)) => Fate::Elsewhere,
            Some(State::Come(come)) => come.judge(from, place, waiting),
            Some(State::Gone(_)) | None if place.is_some_and(|place| self.floors.has(place)) => Fate::Elsewhere,
            Some(State::Gone(_)) | None => Fate::Push(waiting),
        }
    }
}

impl Come {
    fn judge(&mut self, from: From<'_>, place: Option<InLog<'_>>, waiting: Waiting) -> Fate {
        let from = key(from);
        let is_marked = self.origins.get(&from).map(|origin| origin.is_marked);
        if place.is_none() && is_marked == Some(false) {
            return Fate::Elsewhere;
        }
        let holds = self.reads_logs || is_marked.is_some();
        if !holds || self.held.len() >= HELD_MAX {
            return Fate::Push(waiting);
        }
        let place = place.map(|place| (Box::from(place.log), place.position.clone()));
        self.held.push(Held { from, place, waiting });
        Fate::Held
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

    /// Pushes a message of a node to the session, unless its other node delivers it, or holds it. `place`: its place in a log,
    /// if it is delivered in the order of that. `may` says whether the session's rights allow the message.
    ///
    /// # Errors
    /// [`PushError`]; `Forbidden` if the other node delivers it.
    pub(in crate::router) fn push_from(
        &self,
        now: Instant,
        (from, place): (From<'_>, Option<InLog<'_>>),
        waiting: Waiting,
        may: impl FnOnce() -> bool,
    ) -> Result<Pressure, PushError> {
        let looks = |transit: &&Transit| transit.is_moving() || place.is_some() && transit.floors.any();
        let waiting = match self.transit().filter(looks) {
            None => waiting,
            Some(_) if !may() => return Err(PushError::Forbidden),
            Some(transit) => match transit.judge(from, place, waiting) {
                Fate::Push(waiting) => return self.outbox().push_at(now, waiting, place),
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

    fn frame() -> Waiting {
        (Frame::new("{}"), OnFull::Close, Kind::Event)
    }

    #[test]
    fn a_session_that_has_gone_gets_what_was_sent_before_the_mark() {
        let transit = Transit::default();
        transit.go();
        assert!(matches!(transit.judge(Some("two"), None, frame()), Fate::Push(_)));
        transit.cut(Some("two"));
        assert!(matches!(transit.judge(Some("two"), None, frame()), Fate::Elsewhere));
        assert!(matches!(transit.judge(None, None, frame()), Fate::Push(_)));
        assert!(!transit.has_cut([None, Some("two")].into_iter()));
        transit.cut(None);
        assert!(transit.has_cut([None, Some("two")].into_iter()));
    }

    #[test]
    fn a_session_that_has_gone_gets_every_event_of_a_log_and_one_that_has_arrived_none_yet() {
        let position = Position { offset: 3, epoch: "e".into() };
        let place = Some(InLog { log: "Phone/alice", position: &position });
        let (old, new) = (Transit::default(), Transit::default());
        old.go();
        old.cut(Some("two"));
        assert!(matches!(old.judge(Some("two"), place, frame()), Fate::Push(_)));
        new.come([None, Some("two")].into_iter(), true);
        assert!(matches!(new.judge(Some("two"), place, frame()), Fate::Held));
        assert!(matches!(new.judge(Some("two"), None, frame()), Fate::Elsewhere));
    }
}
