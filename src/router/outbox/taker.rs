//! [`Taker`]: an outbox as the one connection sees it that may take from it.
//!
//! Two connections can have one resumable session for a moment, because a client may return before the broker has noticed
//! that its connection was lost. Each has a number, and the outbox gives only to the one that it knows.

use std::task::{Context, Poll};
use std::time::Instant;

use super::{End, Outbox, Taken};
use crate::router::replay::Replay;
use crate::websocket::Frame;

/// An outbox, as a connection takes from it.
#[derive(Clone, Copy)]
pub struct Taker<'o> {
    outbox: &'o Outbox,
    attachment: u64,
}

impl Outbox {
    /// The outbox as the connection with this number sees it: 0 unless the session is resumable.
    #[inline]
    pub fn taker(&self, attachment: u64) -> Taker<'_> {
        Taker { outbox: self, attachment }
    }
}

impl Taker<'_> {
    /// Takes up to `most` frames, oldest first, and stops at a replay. What a resumable session is sent is kept.
    #[inline]
    pub fn take(self, now: Instant, most: usize, frames: &mut Vec<Frame>) -> Option<Box<Taken>> {
        self.outbox.take_by(self.attachment, now, most, frames)
    }

    /// Takes the replay with which the queue of a resumable session begins. [`Taker::put_pulled`] has to follow before
    /// another connection can replace this one.
    pub fn take_replay(self) -> Option<Box<Replay>> {
        let mut state = self.outbox.state.lock();
        if state.attachment == self.attachment { state.take_replay() } else { None }
    }

    /// Keeps the frames that a replay gave, which have been taken, and puts the rest of it back.
    pub fn put_pulled(self, now: Instant, pulled: &[Frame], rest: Option<Box<Replay>>) {
        let mut state = self.outbox.state.lock();
        if state.attachment == self.attachment {
            state.put_pulled(now, self.outbox.memory.as_ref(), pulled, rest);
        }
    }

    /// The client has received this number of messages of the session. Returns whether that can be.
    pub fn acknowledge(self, received: u64) -> bool {
        let mut state = self.outbox.state.lock();
        state.attachment == self.attachment && state.acknowledge(received)
    }

    /// Why the outbox ended for this connection, if it did.
    pub fn ended(self) -> Option<End> {
        let state = self.outbox.state.lock();
        if state.attachment == self.attachment { state.ends_connection() } else { Some(End::Replaced) }
    }

    /// Ready when there is something to take, a new end of the proof included, or the outbox ended.
    pub fn poll_ready(self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.outbox.state.lock();
        let has_news =
            state.has_news_of_end() || state.ends_connection().is_some() || state.attachment != self.attachment;
        let waits_for_disk = state.first > 0 && state.waits_for_disk(cx);
        if has_news || !state.is_empty() && !waits_for_disk {
            return Poll::Ready(());
        }
        match &mut state.taker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Ready when the outbox ended, or with `None` when there is a new end of the proof. The connection polls this while its
    /// peer takes nothing.
    pub fn poll_end(self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let mut state = self.outbox.state.lock();
        if state.attachment != self.attachment {
            return Poll::Ready(Some(End::Replaced));
        }
        if state.end.is_some() || state.has_news_of_end() {
            return Poll::Ready(state.ends_connection());
        }
        state.end_waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
