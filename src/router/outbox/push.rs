//! How frames enter an outbox: the bounds are checked first, and a push without room refuses before it stores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::notice::Depth;

use super::window::is_droppable;
use super::{End, Entry, Kind, OnFull, Outbox, OutboxLimits, State};
use crate::router::pressure::Holdup;
use crate::router::replay::Replay;
use crate::websocket::{Frame, FrameMemory};

/// How often a session is warned that it lags (docs/protocol.md, Pressure).
const LAGGING_EVERY: Duration = Duration::from_secs(1);

/// Whether publishers should wait for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// The queue is under half, or publishers no longer wait for it.
    Relieved,
    /// The queue is over half.
    Over,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The session has ended, or is ending.
    Closed,
    /// The queue has no room for this frame.
    Full,
    /// The session may not receive it.
    Forbidden,
    /// The permissions of the session have changed, so the frame has to be checked again.
    Unchecked,
}

impl Outbox {
    /// Puts a frame at the end, and says whether its publisher should wait for the queue.
    ///
    /// # Errors
    /// [`PushError`]. Unless its limits say otherwise, a queue without room for a frame ends by this very push.
    pub fn push(&self, now: Instant, frame: Frame, on_full: OnFull) -> Result<Pressure, PushError> {
        self.change(|state| state.push(now, self.limits, self.memory.as_ref(), frame, on_full, Kind::Other))
    }

    /// Puts an event at the end that was allowed a moment ago, unless [`Outbox::hold`] was called: then it has to be checked
    /// again, by [`Outbox::push_if`].
    ///
    /// # Errors
    /// [`PushError`], as [`Outbox::push`], and [`PushError::Unchecked`].
    pub(in crate::router) fn push_event(
        &self,
        now: Instant,
        frame: Frame,
        on_full: OnFull,
    ) -> Result<Pressure, PushError> {
        self.change(|state| match state.checks {
            false => state.push(now, self.limits, self.memory.as_ref(), frame, on_full, Kind::Event),
            true => Err(PushError::Unchecked),
        })
    }

    /// Puts an event or a request at the end, if `may` returns `true`. It is called while nothing else is pushed, so that a
    /// session whose rights have changed receives nothing that its new rights do not allow.
    ///
    /// # Errors
    /// [`PushError`], as [`Outbox::push`].
    pub(in crate::router) fn push_if(
        &self,
        now: Instant,
        (frame, kind): (Frame, Kind),
        on_full: OnFull,
        may: impl FnOnce() -> bool,
    ) -> Result<Pressure, PushError> {
        self.change(|state| match may() {
            true => state.push(now, self.limits, self.memory.as_ref(), frame, on_full, kind),
            false => Err(PushError::Forbidden),
        })
    }

    /// Puts a frame at the end, and replays behind it: nothing that others push comes between them. The frames of a replay
    /// count against no bound, because each is made when it is taken.
    pub(in crate::router) fn push_replays(
        &self,
        now: Instant,
        before: Option<Frame>,
        replays: impl IntoIterator<Item = Box<Replay>>,
    ) {
        self.change(|state| {
            if let Some(frame) = before {
                state.push(now, self.limits, self.memory.as_ref(), frame, OnFull::Close, Kind::Other).ok();
            }
            if state.end.is_none() {
                for replay in replays {
                    state.first += usize::from(replay.comes_first());
                    state.queue.push_back(Entry::Replay(replay));
                }
            }
        });
    }
}

impl State {
    pub(super) fn push(
        &mut self,
        now: Instant,
        limits: OutboxLimits,
        memory: Option<&Arc<FrameMemory>>,
        frame: Frame,
        on_full: OnFull,
        kind: Kind,
    ) -> Result<Pressure, PushError> {
        if self.end.is_some() {
            return Err(PushError::Closed);
        }
        if self.is_away() {
            return self.push_away(now, memory, frame, on_full, kind);
        }
        let len = frame.len();
        if !self.fits(limits, len) && !self.make_room(limits, len, on_full) {
            return Err(PushError::Full);
        }
        if let Some(memory) = memory {
            frame.count_in(memory);
        }
        self.messages += 1;
        self.bytes += len;
        self.droppable += usize::from(on_full == OnFull::Drop);
        self.queue.push_back(Entry::Frame(frame, on_full, kind));
        Ok(if self.over_half(limits) { self.note_over_half(now, limits) } else { Pressure::Relieved })
    }

    /// Drops events until another frame fits. If that does not suffice, returns `false`, and the frame is dropped too, or
    /// the session overflows.
    #[cold]
    fn make_room(&mut self, limits: OutboxLimits, len: usize, on_full: OnFull) -> bool {
        while !self.fits(limits, len) && self.droppable > 0 {
            self.drop_oldest();
        }
        if self.fits(limits, len) {
            return true;
        }
        if on_full == OnFull::Drop {
            self.note_dropped();
        } else if !limits.refuses {
            self.discard(End::Overflowed);
        }
        false
    }

    /// Notes that the queue is over half.
    #[cold]
    fn note_over_half(&mut self, now: Instant, limits: OutboxLimits) -> Pressure {
        self.note_lag(now, limits);
        let holdup = self.holdup.get_or_insert_with(|| Box::new(Holdup::new(now)));
        if holdup.holds_publishers(now) { Pressure::Over } else { Pressure::Relieved }
    }

    fn note_lag(&mut self, now: Instant, limits: OutboxLimits) {
        let depth = self.depth(limits);
        let told_lately = self.lagging_told.is_some_and(|told| now.saturating_duration_since(told) < LAGGING_EVERY);
        if lags(depth) && !told_lately {
            self.news().lagging = Some(depth);
            self.lagging_told = Some(now);
        }
    }

    fn fits(&self, limits: OutboxLimits, bytes: usize) -> bool {
        Self::has_room(limits, (self.messages, self.bytes), bytes)
    }

    /// A message that alone is over the byte limit still fits an empty queue: else it could never be sent.
    pub(super) fn has_room(limits: OutboxLimits, (messages, held): (usize, usize), bytes: usize) -> bool {
        messages == 0 || (messages < limits.messages && held + bytes <= limits.bytes)
    }

    pub(super) fn drop_oldest(&mut self) {
        let first = self.droppable_from();
        let Some(oldest) = self.queue.iter().skip(first).position(is_droppable) else { return };
        if let Some(entry) = self.queue.remove(first + oldest) {
            let is_counted = !self.is_away();
            self.forget(&entry, is_counted);
            self.note_dropped();
        }
    }
}

/// A session is warned at three quarters of either bound.
fn lags(depth: Depth) -> bool {
    depth.messages * 4 >= depth.messages_max * 3 || depth.bytes * 4 >= depth.bytes_max * 3
}
