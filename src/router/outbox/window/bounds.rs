//! The bounds of what a resumable session keeps, and how it loses what goes beyond them.

use super::bytes_of;
use crate::router::outbox::{End, Outbox, State};
use crate::router::resume::kept::ENTRY_BYTES;

/// What became of a session that was to lose its oldest messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Shed {
    /// It keeps this number of bytes.
    Keeps(usize),
    /// It has nothing more to lose.
    Nothing,
}

impl Outbox {
    /// The memory that this session keeps, in bytes. Frames that others keep too count here as well.
    pub(in crate::router) fn kept_bytes(&self) -> usize {
        self.state.lock().kept_bytes()
    }

    /// Drops the oldest messages that were sent, of at least this number of bytes. A session that is away and has only what
    /// waits for it overflows.
    pub(in crate::router) fn shed(&self, bytes: usize) -> Shed {
        self.change(|state| state.shed(bytes))
    }
}

impl State {
    /// Drops the oldest messages that were sent, until what is kept is within its bounds.
    pub(super) fn keep_bounds(&mut self) {
        let Some(window) = &self.window else { return };
        let first = if window.is_away { window.numbered } else { self.kept };
        let (mut entries, mut bytes) = (self.kept + window.uncounted, window.bytes);
        if !window.is_over(entries, bytes) {
            return;
        }
        let mut count = 0;
        for entry in self.queue.iter().take(first) {
            if !window.is_over(entries, bytes) {
                break;
            }
            (entries, bytes, count) = (entries - 1, bytes - bytes_of(entry), count + 1);
        }
        let overflows = window.is_away && window.is_over(entries, bytes);
        self.drop_first(count);
        if overflows {
            self.drop_waiting();
        }
    }

    /// Drops the oldest waiting events of channels that allow it, until what is kept is within its bounds. If that does not
    /// suffice, the session overflows.
    fn drop_waiting(&mut self) {
        let over = |state: &Self| state.window.as_ref().is_some_and(|it| it.is_over(state.queue.len(), it.bytes));
        while over(self) && self.queue.len() > 1 && self.droppable > 0 {
            self.drop_oldest();
        }
        if over(self) && self.queue.len() > 1 {
            self.discard(End::Overflowed);
        }
    }

    fn kept_bytes(&mut self) -> usize {
        self.settle();
        self.window.as_ref().map_or(0, |window| window.bytes + (self.kept + window.uncounted) * ENTRY_BYTES)
    }

    fn shed(&mut self, bytes: usize) -> Shed {
        self.settle();
        let Some(window) = &self.window else { return Shed::Nothing };
        let first = if window.is_away { window.numbered } else { self.kept };
        if first == 0 {
            if window.is_away && !self.queue.is_empty() {
                self.discard(End::Overflowed);
            }
            return Shed::Nothing;
        }
        let (mut shed, mut count) = (0, 0);
        for entry in self.queue.iter().take(first) {
            if shed >= bytes {
                break;
            }
            (shed, count) = (shed + bytes_of(entry) + ENTRY_BYTES, count + 1);
        }
        self.drop_first(count);
        Shed::Keeps(self.kept_bytes())
    }
}
