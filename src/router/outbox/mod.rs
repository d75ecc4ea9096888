//! [`Outbox`]: what a session has still to be sent, bounded by messages and bytes.
//!
//! The router pushes; the session's own connection takes. A push checks the bounds first and refuses before it stores. A
//! full outbox ends, and its connection closes the session with the reason. Frames leave in the order in which they were
//! pushed; the frames of a [`Replay`] leave where the replay was pushed. Nothing here waits but the `poll_*` functions.
//!
//! The outbox of a resumable session keeps what was taken until the client acknowledges it (`window`). Then the queue begins
//! with what was taken, and only one connection may take: a later one replaces it (`taker`).
//!
//! `push` is how frames enter, `take` how they leave, `relief` is how publishers wait, `end` how an outbox ends,
//! `look` what would become of a frame, `withhold` what waits for other nodes.

mod end;
mod look;
mod push;
mod relief;
mod take;
mod taker;
mod window;
mod withhold;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use parking_lot::MutexGuard;
use wire::notice::Depth;

use crate::router::pressure::Holdup;
use crate::router::replay::Replay;
use crate::router::sync::Mutex;
use crate::router::wake::wake;
use crate::websocket::{Frame, FrameMemory};
pub use end::End;
pub(super) use look::Fate;
pub use push::{Pressure, PushError};
pub use take::Taken;
pub use taker::Taker;
pub(super) use window::moving;
pub(super) use window::{Shed, Unresumable, Window};

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
    /// What the next look finds besides frames. Apart, because most often there is nothing.
    news: Option<Box<Taken>>,
    /// How many events were dropped since the session began.
    dropped: u64,
    lagging_told: Option<Instant>,
    /// Made when the queue is over half for the first time.
    holdup: Option<Box<Holdup>>,
    /// How often the queue came under half.
    reliefs: u64,
    end: Option<End>,
    /// The permissions of the session have changed, so every event is checked under the lock.
    checks: bool,
    /// The task that waits for something to take.
    taker: Option<Waker>,
    /// The same task while its peer takes nothing: only the end concerns it.
    end_waker: Option<Waker>,
    /// How many other nodes have yet to know what the session did; until then nothing is taken.
    withheld: usize,
    /// Publishers that wait for the queue.
    relief: Vec<Waker>,
    /// It stands for a queue on another node that is over half.
    pressed: bool,
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
        self.relieve(now, state, was_over_half);
        dropped
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
        let news = state.news();
        news.proof_end = Some(news.proof_end.map_or(at, |other| other.min(at)));
        wake_task(state);
    }

    /// When the proof of the session ends at the latest, if a reload has decided that since the last look.
    pub fn take_proof_end(&self) -> Option<Instant> {
        self.state.lock().news.as_mut().and_then(|news| news.proof_end.take())
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

    /// Returns how many events were dropped since the session began.
    pub(super) fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }

    /// Changes the state, then wakes the tasks that wait for such a change.
    #[inline]
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let outcome = change(&mut state);
        if state.end.is_some() {
            wake_all(state);
            return outcome;
        }
        let taker = if state.is_empty() { None } else { state.taker.take() };
        drop(state);
        if let Some(taker) = taker {
            wake(taker);
        }
        outcome
    }
}

/// Wakes the session's own task, whether its peer reads or not.
fn wake_task(mut state: MutexGuard<'_, State>) {
    let wakers = [state.taker.take(), state.end_waker.take()];
    drop(state);
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// Wakes all that have to learn of the end: the session's own task, and publishers that wait for it.
#[cold]
fn wake_all(mut state: MutexGuard<'_, State>) {
    let taker = state.taker.take();
    let relief = std::mem::take(&mut state.relief);
    let end_waker = state.end_waker.take();
    drop(state);
    taker.into_iter().for_each(wake);
    relief.into_iter().chain(end_waker).for_each(Waker::wake);
}

impl State {
    /// What the next look finds besides frames.
    fn news(&mut self) -> &mut Taken {
        self.news.get_or_insert_default()
    }

    /// Notes that an event was dropped.
    fn note_dropped(&mut self) {
        self.news().dropped += 1;
        self.dropped += 1;
    }

    fn uncount(&mut self, entry: &Entry) {
        match entry {
            Entry::Frame(frame, on_full, _) => self.uncount_frame(frame.len(), *on_full),
            Entry::Replay(replay) => self.first -= usize::from(replay.comes_first()),
        }
    }

    #[inline]
    fn uncount_frame(&mut self, len: usize, on_full: OnFull) {
        self.messages -= 1;
        self.bytes -= len;
        self.droppable -= usize::from(on_full == OnFull::Drop);
    }

    fn is_empty(&self) -> bool {
        self.withheld > 0
            || self.queue.len() == self.kept && self.news.as_ref().is_none_or(|news| !news.concerns_queue())
    }

    /// Whether nothing can be taken before events were read from the disk. Wakes the task when they are.
    #[cold]
    fn waits_for_disk(&mut self, cx: &mut Context<'_>) -> bool {
        if self.news.as_ref().is_some_and(|news| news.concerns_queue()) {
            return false;
        }
        match self.queue.get_mut(self.kept) {
            Some(Entry::Replay(replay)) => replay.poll_ready(cx).is_pending(),
            Some(Entry::Frame(..)) | None => false,
        }
    }

    /// Whether the proof of the session has a new end, or its connection has to close.
    fn has_news_of_end(&self) -> bool {
        self.news.as_ref().is_some_and(|news| news.proof_end.is_some() || news.sent_away)
    }

    fn over_half(&self, limits: OutboxLimits) -> bool {
        self.pressed || self.messages * 2 > limits.messages || self.bytes * 2 > limits.bytes
    }

    fn depth(&self, limits: OutboxLimits) -> Depth {
        Depth { messages: self.messages, messages_max: limits.messages, bytes: self.bytes, bytes_max: limits.bytes }
    }
}
