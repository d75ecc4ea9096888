//! [`Outbox::look`]: what would become of an event or a request if it were pushed now. Nothing changes.

use super::{Entry, OnFull, Outbox, OutboxLimits, State};

/// What would become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Fate {
    /// It is queued.
    Queued,
    /// It is queued, and the oldest events that may be dropped are.
    DropsOldest,
    /// It is dropped itself, because nothing else may be.
    Dropped,
    /// The queue overflows, and its session is closed.
    Closes,
    /// The session is ending, and gets nothing more.
    Ended,
}

impl Outbox {
    /// What would become of a frame of this length.
    pub(in crate::router) fn look(&self, bytes: usize, on_full: OnFull) -> Fate {
        let state = self.state.lock();
        if state.end.is_some() {
            return Fate::Ended;
        }
        let makes_room = match state.is_away() {
            true => state.makes_room_away(bytes),
            false => state.makes_room(self.limits, bytes),
        };
        match makes_room {
            Some(0) => Fate::Queued,
            Some(_) => Fate::DropsOldest,
            None if on_full == OnFull::Drop || self.limits.refuses => Fate::Dropped,
            None => Fate::Closes,
        }
    }
}

impl State {
    /// How many events are dropped to make room for a frame of this length; `None` if that is not enough.
    fn makes_room(&self, limits: OutboxLimits, bytes: usize) -> Option<usize> {
        let (mut messages_left, mut bytes_left) = (self.messages, self.bytes);
        let mut drops = self.droppable_frames();
        for dropped in 0.. {
            if Self::has_room(limits, (messages_left, bytes_left), bytes) {
                return Some(dropped);
            }
            bytes_left -= drops.next()?;
            messages_left -= 1;
        }
        None
    }

    /// The lengths of the events that may be dropped, oldest first.
    pub(super) fn droppable_frames(&self) -> impl Iterator<Item = usize> {
        self.queue.iter().skip(self.droppable_from()).filter_map(|entry| match entry {
            Entry::Frame(frame, OnFull::Drop, _) => Some(frame.len()),
            Entry::Frame(..) | Entry::Replay(_) => None,
        })
    }
}
