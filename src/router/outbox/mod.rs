//! [`Outbox`]: what a session has still to be sent, bounded by messages and bytes.
//!
//! The router pushes; the session's own connection takes. A push checks the bounds first and refuses before it stores. A
//! full outbox ends, and its connection closes the session with the reason. Frames leave in the order in which they were
//! pushed; the frames of a [`Replay`] leave where the replay was pushed. Nothing here waits but the `poll_*` functions.
//!
//! The outbox of a resumable session keeps what was taken until the client acknowledges it (`window`). Then the queue begins
//! with what was taken, and only one connection may take: a later one replaces it (`taker`).

mod taker;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use wire::CloseCode;
use wire::notice::Depth;

use crate::router::pressure::Holdup;
use crate::router::replay::Replay;
use crate::router::wake::wake;
use crate::websocket::{Frame, FrameMemory};
pub use taker::Taker;
pub(super) use window::{Shed, Unresumable, Window};

/// How often a session is warned that it lags (docs/protocol.md, Pressure).
const LAGGING_EVERY: Duration = Duration::from_secs(1);

/// A queue that was once longer than this gives its memory back when it is empty.
const KEPT_CAPACITY: usize = 32;

/// The bounds of an outbound queue.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of text.
    pub bytes: usize,
    /// A full queue refuses a frame instead of ending its session: an adapter in the process is never a slow consumer.
    pub refuses: bool,
}

/// What a full queue does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Ends the session. For replies, answers to commands, and events of a channel with `overflow = "close"`.
    Close,
    /// Drops the oldest such frame. For events of a channel with `overflow = "drop-oldest"`.
    Drop,
}

/// What a frame is, as far as rights that change while it waits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event.
    Event,
    /// A request for this session to handle.
    Request,
    /// A reply, an answer to a command, or a notice, which need no right.
    Other,
}

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
    /// Another connection takes what waits for the session. Only the connection that it replaces is told so.
    Replaced,
}

/// What [`Outbox::take`] found besides frames.
#[derive(Default)]
pub struct Taken {
    /// The queue was over three quarters full.
    pub lagging: Option<Depth>,
    /// How many events were dropped since the last look.
    pub dropped: u64,
    /// When the proof of the session ends at the latest, if a reload has decided that since the last look.
    pub proof_end: Option<Instant>,
    /// The next thing in the queue: the taker pulls its frames, and puts it back until it is exhausted.
    pub replay: Option<Box<Replay>>,
    /// The next thing in the queue of a resumable session is a replay: see [`Taker::take_replay`].
    pub replay_waits: bool,
}

/// A session's outbound queue.
pub struct Outbox {
    limits: OutboxLimits,
    /// Counts the memory of its frames, with those of other queues.
    memory: Option<Arc<FrameMemory>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Entry>,
    /// How many entries at the beginning of the queue were taken and are kept; 0 unless the session is resumable.
    kept: usize,
    /// Which connection may take; 0 unless the session is resumable.
    attachment: u64,
    /// What a resumable session keeps.
    window: Option<Box<Window>>,
    messages: usize,
    bytes: usize,
    droppable: usize,
    /// The replays that come first: their session is not read until they are exhausted.
    first: usize,
    dropped: u64,
    lagging: Option<Depth>,
    lagging_told: Option<Instant>,
    /// Made when the queue is over half for the first time.
    holdup: Option<Box<Holdup>>,
    /// How often the queue came under half.
    reliefs: u64,
    end: Option<End>,
    /// A reload decided that the proof of the session ends at this time, and the session's own task does not know it yet.
    proof_end: Option<Instant>,
    /// The permissions of the session have changed, so every event is checked under the lock.
    checks: bool,
    /// The task that waits for something to take.
    taker: Option<Waker>,
    /// The same task while its peer takes nothing: only the end concerns it.
    end_waker: Option<Waker>,
    /// Publishers that wait for the queue.
    relief: SmallVec<[Waker; 1]>,
}

enum Entry {
    Frame(Frame, OnFull, Kind),
    Replay(Box<Replay>),
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Self {
        Self { limits, memory: None, state: Mutex::default() }
    }

    /// Counts the memory of its frames here.
    #[must_use]
    pub fn with_memory(self, memory: Arc<FrameMemory>) -> Self {
        Self { memory: Some(memory), ..self }
    }

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
    pub(super) fn push_event(&self, now: Instant, frame: Frame, on_full: OnFull) -> Result<Pressure, PushError> {
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
    pub(super) fn push_if(
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
    pub(super) fn push_replays(
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

    /// Calls `change`, then drops the waiting events and requests for which `may_stay` returns `false`, while nothing is
    /// pushed or taken. Returns what it has dropped.
    pub(super) fn hold(
        &self,
        now: Instant,
        change: impl FnOnce(),
        may_stay: impl Fn(&Frame, Kind) -> bool,
    ) -> Vec<Frame> {
        let mut state = self.state.lock();
        state.checks = true;
        change();
        let was_over_half = state.over_half(self.limits);
        let mut dropped = Vec::new();
        let (numbered, counted_from) = (state.numbered(), state.counted_from());
        for (at, entry) in std::mem::take(&mut state.queue).into_iter().enumerate() {
            match entry {
                Entry::Frame(frame, on_full, kind @ (Kind::Event | Kind::Request))
                    if at >= numbered && !may_stay(&frame, kind) =>
                {
                    state.forget(&Entry::Frame(frame.clone(), on_full, kind), at >= counted_from);
                    dropped.push(frame);
                }
                entry => state.queue.push_back(entry),
            }
        }
        let relieved = state.note_relief(now, self.limits, was_over_half).then(|| std::mem::take(&mut state.relief));
        drop(state);
        relieved.into_iter().flatten().for_each(Waker::wake);
        dropped
    }

    /// Takes up to `most` frames, oldest first, and stops at a replay.
    pub fn take(&self, now: Instant, most: usize, frames: &mut Vec<Frame>) -> Taken {
        self.take_by(0, now, most, frames)
    }

    /// Takes for the connection with this number.
    #[inline]
    fn take_by(&self, attachment: u64, now: Instant, most: usize, frames: &mut Vec<Frame>) -> Taken {
        let mut state = self.state.lock();
        if state.window.is_some() || state.attachment != attachment {
            return self.take_from_window(state, attachment, now, most, frames);
        }
        let was_over_half = state.over_half(self.limits);
        let mut taken = Taken {
            lagging: state.lagging.take(),
            dropped: std::mem::take(&mut state.dropped),
            proof_end: state.proof_end.take(),
            replay: None,
            replay_waits: false,
        };
        let count = most.min(state.queue.len());
        frames.reserve(count);
        for _ in 0..count {
            match state.pop() {
                Some(Entry::Frame(frame, ..)) => frames.push(frame),
                Some(Entry::Replay(replay)) => {
                    taken.replay = Some(replay);
                    break;
                }
                None => break,
            }
        }
        if state.queue.is_empty() && state.queue.capacity() > KEPT_CAPACITY {
            state.queue.shrink_to(KEPT_CAPACITY);
        }
        // Hardly ever, and moved only then.
        let relieved = state.note_relief(now, self.limits, was_over_half).then(|| std::mem::take(&mut state.relief));
        drop(state);
        relieved.into_iter().flatten().for_each(Waker::wake);
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
    pub(super) fn discard(&self, end: End) {
        self.change(|state| {
            if state.end.is_none() {
                state.discard(end);
            }
        });
    }

    /// Returns what counts the memory of its frames.
    pub(super) fn memory(&self) -> Option<&Arc<FrameMemory>> {
        self.memory.as_ref()
    }

    /// Returns the bytes that only this queue keeps in memory, or that it shares with other queues.
    pub(super) fn bytes_held(&self) -> usize {
        let state = self.state.lock();
        if state.first == 0 {
            return state.bytes;
        }
        let replays = state.queue.iter().map(|entry| match entry {
            Entry::Frame(..) => 0,
            Entry::Replay(replay) => replay.bytes(),
        });
        state.bytes + replays.sum::<usize>()
    }

    /// Wakes the session's own task, which finds out with [`Outbox::take`] or [`Outbox::take_proof_end`] that the proof of its
    /// session ends at this time, if not earlier.
    pub(super) fn set_proof_end(&self, at: Instant) {
        let mut state = self.state.lock();
        state.proof_end = Some(state.proof_end.map_or(at, |other| other.min(at)));
        let wakers = [state.taker.take(), state.end_waker.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// When the proof of the session ends at the latest, if a reload has decided that since the last look.
    pub fn take_proof_end(&self) -> Option<Instant> {
        self.state.lock().proof_end.take()
    }

    /// Why the outbox ended, if it did.
    pub fn ended(&self) -> Option<End> {
        self.state.lock().end
    }

    /// Ready when there is something to take, a new end of the proof included, or the outbox ended.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.taker(0).poll_ready(cx)
    }

    /// A publisher begins to wait for the queue. Returns what [`Outbox::is_relieved_since`] takes, and how long the
    /// publisher may wait.
    pub fn begin_wait(&self, now: Instant) -> (u64, Duration) {
        let mut state = self.state.lock();
        let wait = state.holdup.get_or_insert_with(|| Box::new(Holdup::new(now))).begin(now);
        (state.reliefs, wait)
    }

    /// The time of a publisher is over: no publisher waits for this queue again until it is under half.
    pub fn waited_in_vain(&self, now: Instant) {
        let mut state = self.state.lock();
        if let Some(holdup) = &mut state.holdup {
            holdup.waited_in_vain(now);
        }
        let waiting = std::mem::take(&mut state.relief);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether a publisher that began to wait at `reliefs` waits no longer. With hundreds of publishers the queue may be
    /// full again before a waiting one gets its turn, so that it was under half meanwhile is enough.
    pub fn is_relieved_since(&self, reliefs: u64) -> bool {
        self.state.lock().is_relieved_since(self.limits, reliefs)
    }

    /// Ready when [`Outbox::is_relieved_since`] holds.
    pub fn poll_relieved_since(&self, reliefs: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.is_relieved_since(self.limits, reliefs) {
            return Poll::Ready(());
        }
        state.wake_at_relief(cx);
        Poll::Pending
    }

    /// Ready when the queue is under half, or the outbox ended.
    pub fn poll_under_half(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.end.is_some() || !state.over_half(self.limits) {
            return Poll::Ready(());
        }
        state.wake_at_relief(cx);
        Poll::Pending
    }

    /// Ready when no replay is left that comes first, or the outbox ended.
    pub fn poll_replayed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.end.is_some() || state.first == 0 {
            return Poll::Ready(());
        }
        state.wake_at_relief(cx);
        Poll::Pending
    }

    /// Returns whether a replay is left that comes first.
    pub fn is_replaying(&self) -> bool {
        self.state.lock().first > 0
    }

    /// Returns whether the queue is more than half full.
    pub fn is_over_half(&self) -> bool {
        self.state.lock().over_half(self.limits)
    }

    /// Returns whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.state.lock().is_empty()
    }

    /// Returns how full the queue is.
    pub fn depth(&self) -> Depth {
        self.state.lock().depth(self.limits)
    }

    /// Changes the state, then wakes the tasks that wait for such a change.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let outcome = change(&mut state);
        let ended = state.end.is_some();
        let taker = if !state.is_empty() || ended { state.taker.take() } else { None };
        // Hardly ever, and apart: a list made for each push took a tenth of its time.
        let concerned = ended.then(|| state.take_concerned());
        drop(state);
        if let Some(taker) = taker {
            wake(taker);
        }
        if let Some(concerned) = concerned {
            concerned.into_iter().for_each(Waker::wake);
        }
        outcome
    }
}

impl State {
    fn push(
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
        while !self.fits(limits, frame.len()) && self.droppable > 0 {
            self.drop_oldest();
        }
        if !self.fits(limits, frame.len()) {
            if on_full == OnFull::Drop {
                self.dropped += 1;
            } else if !limits.refuses {
                self.discard(End::Overflowed);
            }
            return Err(PushError::Full);
        }
        if let Some(memory) = memory {
            frame.count_in(memory);
        }
        self.messages += 1;
        self.bytes += frame.len();
        self.droppable += usize::from(on_full == OnFull::Drop);
        self.queue.push_back(Entry::Frame(frame, on_full, kind));
        if !self.over_half(limits) {
            return Ok(Pressure::Relieved);
        }
        self.note_lag(now, limits);
        let holdup = self.holdup.get_or_insert_with(|| Box::new(Holdup::new(now)));
        Ok(if holdup.holds_publishers(now) { Pressure::Over } else { Pressure::Relieved })
    }

    /// Notes that the queue may have become shorter. Returns whether publishers waited for that.
    #[inline]
    fn note_relief(&mut self, now: Instant, limits: OutboxLimits, was_over_half: bool) -> bool {
        if self.over_half(limits) {
            return false;
        }
        self.reliefs += u64::from(was_over_half);
        if let Some(holdup) = &mut self.holdup {
            holdup.relieved(now);
        }
        !self.relief.is_empty()
    }

    fn note_lag(&mut self, now: Instant, limits: OutboxLimits) {
        let depth = self.depth(limits);
        let told_lately = self.lagging_told.is_some_and(|told| now.saturating_duration_since(told) < LAGGING_EVERY);
        if lags(depth) && !told_lately {
            self.lagging = Some(depth);
            self.lagging_told = Some(now);
        }
    }

    /// A message that alone is over the byte limit still fits an empty queue: else it could never be sent.
    fn fits(&self, limits: OutboxLimits, bytes: usize) -> bool {
        self.messages == 0 || (self.messages < limits.messages && self.bytes + bytes <= limits.bytes)
    }

    fn drop_oldest(&mut self) {
        let is_droppable = |entry: &Entry| matches!(entry, Entry::Frame(_, OnFull::Drop, _));
        let first = self.droppable_from();
        let Some(oldest) = self.queue.iter().skip(first).position(is_droppable) else { return };
        if let Some(entry) = self.queue.remove(first + oldest) {
            let is_counted = !self.is_away();
            self.forget(&entry, is_counted);
            self.dropped += 1;
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.queue.pop_front()?;
        self.uncount(&entry);
        Some(entry)
    }

    fn uncount(&mut self, entry: &Entry) {
        match entry {
            Entry::Frame(frame, on_full, _) => {
                self.messages -= 1;
                self.bytes -= frame.len();
                self.droppable -= usize::from(*on_full == OnFull::Drop);
            }
            Entry::Replay(replay) => self.first -= usize::from(replay.comes_first()),
        }
    }

    /// Drops the queue at once: the peer reads nothing, and the memory is needed for others.
    fn discard(&mut self, end: End) {
        self.end = Some(end);
        self.close_window();
        self.queue = VecDeque::new();
        (self.messages, self.bytes, self.droppable, self.first) = (0, 0, 0, 0);
    }

    /// The tasks that have to learn of the end: the session's own, and publishers that wait for it.
    fn take_concerned(&mut self) -> SmallVec<[Waker; 1]> {
        let mut concerned = std::mem::take(&mut self.relief);
        concerned.extend(self.end_waker.take());
        concerned
    }

    fn wake_at_relief(&mut self, cx: &Context<'_>) {
        if !self.relief.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.relief.push(cx.waker().clone());
        }
    }

    fn is_empty(&self) -> bool {
        self.queue.len() == self.kept && self.lagging.is_none() && self.dropped == 0
    }

    fn is_relieved_since(&self, limits: OutboxLimits, reliefs: u64) -> bool {
        self.end.is_some()
            || self.reliefs != reliefs
            || !self.over_half(limits)
            || self.holdup.as_ref().is_some_and(|holdup| holdup.is_in_vain())
    }

    fn over_half(&self, limits: OutboxLimits) -> bool {
        self.messages * 2 > limits.messages || self.bytes * 2 > limits.bytes
    }

    fn depth(&self, limits: OutboxLimits) -> Depth {
        Depth { messages: self.messages, messages_max: limits.messages, bytes: self.bytes, bytes_max: limits.bytes }
    }
}

/// A session is warned at three quarters of either bound.
fn lags(depth: Depth) -> bool {
    depth.messages * 4 >= depth.messages_max * 3 || depth.bytes * 4 >= depth.bytes_max * 3
}
