//! [`HeldPresence`]: presence events that wait for their receiver, because its queue is over half.
//!
//! What waits is not a list of events but what changed: a session that joined and left meanwhile is not in it. So it is
//! bounded by the sessions that were there when it began and those that are there now, however often they register.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{Change, Who};
use crate::router::outbox::{Kind, OnFull, PushError};
use crate::router::resume::transit::From;
use crate::router::session::Session;
use crate::router::sync::Mutex;
use crate::websocket::Frame;

/// The last change of each session, by its number.
type Changes = BTreeMap<u64, Held>;

/// A presence event that waits.
struct Held {
    change: Change,
    frame: Frame,
    /// The user of the session that joined or left.
    user: Option<Arc<str>>,
}

/// Presence events that wait for one receiver.
#[derive(Default)]
pub(in crate::router) struct HeldPresence {
    /// Whether something waits: all that a receiver looks at that is never over half.
    waits: AtomicBool,
    changes: Mutex<Changes>,
}

impl HeldPresence {
    /// Gives a receiver the event that a session joined or left: at once, or when its queue is under half.
    pub(super) fn give(
        &self,
        now: Instant,
        receiver: &Session,
        (of, from): (&Who<'_>, From<'_>),
        change: Change,
        frame: Frame,
    ) {
        if receiver.is_moving() {
            let may = || receiver.may_know(&receiver.permissions(), of.user.as_deref());
            // A session that is ending receives nothing more, and what its other node delivers comes from there.
            receiver.push_from(now, (from, None), (frame, OnFull::Close, Kind::Event), may).ok();
            return;
        }
        let mut changes = self.changes.lock();
        let held = Held { change, frame, user: of.user.clone() };
        if changes.is_empty() && !receiver.outbox().is_over_half() {
            // A session that is ending receives nothing more.
            held.push(now, receiver).ok();
            return;
        }
        match (changes.remove(&of.number), change) {
            // It joined and left meanwhile.
            (Some(Held { change: Change::Joined, .. }), Change::Left) => {}
            (_, Change::Joined | Change::Left) => drop(changes.insert(of.number, held)),
        }
        self.waits.store(true, Ordering::Release);
        // The receiver may have taken everything since the look, and then it does not look again.
        self.release(now, receiver, &mut changes);
    }

    /// Pushes what waits, as long as the queue is not over half.
    fn release(&self, now: Instant, receiver: &Session, changes: &mut Changes) {
        while !changes.is_empty() && !receiver.outbox().is_over_half() {
            match changes.pop_first().map(|(_, held)| held.push(now, receiver)) {
                // Its receiver's permissions may have changed since the event.
                None | Some(Ok(()) | Err(PushError::Forbidden)) => {}
                Some(Err(PushError::Closed | PushError::Full | PushError::Unchecked)) => changes.clear(),
            }
        }
        if changes.is_empty() {
            self.waits.store(false, Ordering::Release);
        }
    }
}

impl Held {
    fn push(self, now: Instant, receiver: &Session) -> Result<(), PushError> {
        let Self { frame, user, .. } = self;
        let may = || receiver.may_know(&receiver.permissions(), user.as_deref());
        receiver.push_if(now, (frame, Kind::Event), OnFull::Close, may).map(|_| ())
    }
}

impl Session {
    /// Puts the presence events that were held back into the outbox, as long as it is not over half. The connection calls
    /// this after it has taken frames.
    pub fn release_presence(&self, now: Instant) {
        if self.presence.waits.load(Ordering::Acquire) && !self.outbox().is_over_half() {
            self.presence.release(now, self, &mut self.presence.changes.lock());
        }
    }
}
