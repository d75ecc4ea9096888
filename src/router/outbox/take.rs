//! How frames leave an outbox, in the order in which they were pushed.

use std::task::{Context, Poll};
use std::time::Instant;

use wire::notice::Depth;

use super::{Entry, Outbox, State};
use crate::router::replay::Replay;
use crate::websocket::Frame;

/// A queue that was once longer than this gives its memory back when it is empty.
const KEPT_CAPACITY: usize = 32;

/// What [`Outbox::take`] found besides frames. Of a resumable session, the notices about its queue are among the frames.
#[derive(Default)]
pub struct Taken {
    /// The queue was over three quarters full.
    pub lagging: Option<Depth>,
    /// How many events were dropped since the last look.
    pub dropped: u64,
    /// When the proof of the session ends at the latest, if a reload has decided that since the last look. Until that look the
    /// session's own task does not know it.
    pub proof_end: Option<Instant>,
    /// The connection has to close. Only [`Taker::ended`](super::Taker::ended) says so.
    pub(super) sent_away: bool,
    /// The next thing in the queue: the taker pulls its frames, and puts it back until it is exhausted.
    pub replay: Option<Box<Replay>>,
    /// The next thing in the queue of a resumable session is a replay: see [`Taker::take_replay`](super::Taker::take_replay).
    pub replay_waits: bool,
}

impl Taken {
    /// Whether the session has to be told something about its queue.
    pub(super) fn concerns_queue(&self) -> bool {
        self.lagging.is_some() || self.dropped > 0
    }
}

impl Outbox {
    /// Takes up to `most` frames, oldest first, and stops at a replay. Returns what it found besides frames: most often
    /// nothing.
    #[inline]
    pub fn take(&self, now: Instant, most: usize, frames: &mut Vec<Frame>) -> Option<Box<Taken>> {
        self.take_by(0, now, most, frames)
    }

    /// Takes for the connection with this number.
    pub(super) fn take_by(
        &self,
        attachment: u64,
        now: Instant,
        most: usize,
        frames: &mut Vec<Frame>,
    ) -> Option<Box<Taken>> {
        let mut state = self.state.lock();
        // At its end, a session gets everything.
        if state.attachment != attachment || state.withheld > 0 && most < usize::MAX {
            return None;
        }
        let was_over_half = state.holdup.is_some() && state.over_half(self.limits);
        let taken = match state.window.is_some() {
            false => state.take_waiting(most, frames),
            true if state.take_single(most, frames) => None,
            true => state.take_kept(now, self.memory.as_ref(), most, frames),
        };
        if state.holdup.is_some() || !state.relief.is_empty() {
            self.relieve(now, state, was_over_half);
        }
        taken
    }

    /// Puts a replay that is not exhausted back to the front.
    pub fn put_back(&self, replay: Box<Replay>) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            let front = state.kept;
            state.first += usize::from(replay.comes_first());
            state.queue.insert(front, Entry::Replay(replay));
        }
    }

    /// Ready when there is something to take, a new end of the proof included, or the outbox ended.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.taker(0).poll_ready(cx)
    }
}

impl State {
    /// Takes up to `most` frames, and stops at a replay.
    #[inline]
    fn take_waiting(&mut self, most: usize, frames: &mut Vec<Frame>) -> Option<Box<Taken>> {
        let mut taken = self.news.take();
        if taken.as_ref().is_some_and(|taken| taken.sent_away) {
            self.news().sent_away = true;
        }
        let count = most.min(self.queue.len());
        frames.reserve(count);
        for _ in 0..count {
            match self.queue.pop_front() {
                Some(Entry::Frame(frame, on_full, _)) => {
                    self.uncount_frame(frame.len(), on_full);
                    frames.push(frame);
                }
                Some(Entry::Replay(replay)) => {
                    self.first -= usize::from(replay.comes_first());
                    taken.get_or_insert_default().replay = Some(replay);
                    break;
                }
                None => break,
            }
        }
        self.give_memory_back();
        taken
    }

    /// Gives memory back if the queue is empty.
    #[inline]
    pub(super) fn give_memory_back(&mut self) {
        if self.queue.capacity() > KEPT_CAPACITY && self.queue.is_empty() {
            self.queue.shrink_to(KEPT_CAPACITY);
        }
    }
}
