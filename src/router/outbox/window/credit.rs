//! Credit: a session takes messages before they are counted for all sessions.

use std::time::Instant;

use super::{bytes_of, keep, memory_of};
use crate::router::outbox::{Outbox, State};
use crate::router::resume::kept::ENTRY_BYTES;

impl Outbox {
    /// Counts all that is kept.
    pub(in crate::router) fn settle(&self) {
        self.state.lock().settle();
    }
}

impl State {
    /// Takes up credit for what is taken next. While it lasts, the session keeps its own bounds: an entry takes up at least
    /// its text, and [`ENTRY_BYTES`].
    pub(super) fn take_credit(&mut self, now: Instant) {
        let Self { kept, window: Some(window), .. } = self else { return };
        if window.uncounted == 0 && window.numbered <= *kept {
            let (messages_max, bytes_max) = window.kept.session_max();
            let messages = messages_max.saturating_sub(*kept).saturating_mul(ENTRY_BYTES);
            window.lent = window.kept.lend(messages.min(bytes_max.saturating_sub(window.bytes)));
            window.credit = window.lent;
        }
        window.kept.look(now);
    }

    /// Renews the credit if most of what was taken on it has been acknowledged.
    pub(super) fn renew_credit(&mut self) -> bool {
        let Self { queue, kept, window: Some(window), news: None, .. } = self else { return false };
        let unsettled = queue.iter().skip(*kept - window.unsettled).take(window.unsettled);
        let used: usize = unsettled.map(|entry| memory_of(entry) + ENTRY_BYTES).sum();
        let is_little = used <= window.lent / 2;
        if is_little {
            window.credit = window.lent - used;
        }
        is_little
    }

    /// Counts what was taken on credit, and gives the credit back.
    pub(super) fn settle(&mut self) {
        let Self { queue, kept, window: Some(window), .. } = self else { return };
        window.numbered = window.numbered.max(*kept);
        let mut memory = 0;
        for entry in queue.iter().skip(*kept - window.unsettled).take(window.unsettled) {
            window.bytes += bytes_of(entry);
            memory += keep(entry);
        }
        window.kept.add(window.unsettled, memory);
        window.kept.take_back(window.lent);
        (window.unsettled, window.credit, window.lent) = (0, 0, 0);
    }
}
