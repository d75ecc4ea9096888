//! [`HeldPresence`]: presence events that wait for their receiver, because its queue is over half.
//!
//! What waits is not a list of events but what changed: a session that joined and left meanwhile is not in it. So it is
//! bounded by the sessions that were there when it began and those that are there now, however often they register.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::Change;
use crate::router::outbox::OnFull;
use crate::router::session::Session;
use crate::websocket::Frame;

/// The last change of each session, by its number.
type Changes = BTreeMap<u64, (Change, Frame)>;

/// Presence events that wait for one receiver.
#[derive(Default)]
pub(in crate::router) struct HeldPresence {
    /// Whether something waits: all that a receiver looks at that is never over half.
    waits: AtomicBool,
    changes: Mutex<Changes>,
}

impl HeldPresence {
    /// Gives a receiver the event that a session joined or left: at once, or when its queue is under half.
    pub(super) fn give(&self, now: Instant, receiver: &Session, of: &Session, change: Change, frame: Frame) {
        let mut changes = self.changes.lock();
        let outbox = receiver.outbox();
        if changes.is_empty() && !outbox.is_over_half() {
            // A session that is ending receives nothing more.
            outbox.push(now, frame, OnFull::Close).ok();
            return;
        }
        match (changes.remove(&of.number), change) {
            // It joined and left meanwhile.
            (Some((Change::Joined, _)), Change::Left) => {}
            (_, change) => drop(changes.insert(of.number, (change, frame))),
        }
        self.waits.store(true, Ordering::Release);
        // The receiver may have taken everything since the look, and then it does not look again.
        self.release(now, receiver, &mut changes);
    }

    /// Pushes what waits, as long as the queue is not over half.
    fn release(&self, now: Instant, receiver: &Session, changes: &mut Changes) {
        while !changes.is_empty() && !receiver.outbox().is_over_half() {
            if let Some((_, (_, frame))) = changes.pop_first()
                && receiver.push(now, frame, OnFull::Close).is_err()
            {
                changes.clear();
            }
        }
        if changes.is_empty() {
            self.waits.store(false, Ordering::Release);
        }
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
