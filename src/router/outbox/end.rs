//! How an outbox ends, and what then becomes of what waits in it.

use std::collections::VecDeque;

use wire::CloseCode;

use super::{Entry, Kind, OnFull, Outbox, State, wake_task};
use crate::websocket::Frame;

/// Why an outbox takes no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The session was detached. What waits can still be taken.
    Detached,
    /// The queue overflowed, and was dropped.
    Overflowed,
    /// All queues together used too much memory, and this one was the longest. It was dropped.
    Longest,
    /// The broker closes the session, with this code and these words.
    Close(CloseCode, &'static str),
    /// An operator ends the session; the reason is kept with it.
    Kicked,
    /// An operator closes the connection of a session that goes on if it can: only the connection is told so.
    SentAway,
    /// Another connection takes what waits for the session. Only the connection that it replaces is told so.
    Replaced,
}

impl Outbox {
    /// Ends the outbox: every further push is refused. The first reason counts.
    pub fn end(&self, end: End) {
        self.change(|state| {
            state.end.get_or_insert(end);
            if end == End::Detached {
                state.close_window();
            }
        });
    }

    /// Ends the outbox, and leaves this frame in place of what waits in it. It does nothing if the outbox has ended already.
    pub fn end_with(&self, last: Frame, end: End) {
        self.change(|state| {
            if state.end.is_none() {
                if let Some(memory) = &self.memory {
                    last.count_in(memory);
                }
                state.discard(end);
                state.messages = 1;
                state.bytes = last.len();
                state.queue.push_back(Entry::Frame(last, OnFull::Close, Kind::Other));
            }
        });
    }

    /// Ends the outbox as [`Outbox::end`], and drops what waits.
    pub(in crate::router) fn discard(&self, end: End) {
        self.change(|state| {
            if state.end.is_none() {
                state.discard(end);
            }
        });
    }

    /// Lets the connection close, so that the client connects again. What is pushed until then is sent.
    pub(in crate::router) fn send_away(&self) {
        let mut state = self.state.lock();
        state.news().sent_away = true;
        wake_task(state);
    }

    /// Why the outbox ended, if it did.
    pub fn ended(&self) -> Option<End> {
        self.state.lock().end
    }
}

impl State {
    /// Why the connection has to close, if it has.
    pub(super) fn ends_connection(&self) -> Option<End> {
        self.end.or_else(|| self.news.as_ref().filter(|news| news.sent_away).map(|_| End::SentAway))
    }

    /// Drops the queue at once: the peer reads nothing, and the memory is needed for others.
    pub(super) fn discard(&mut self, end: End) {
        self.end = Some(end);
        self.close_window();
        self.queue = VecDeque::new();
        (self.messages, self.bytes, self.droppable, self.first) = (0, 0, 0, 0);
    }
}
