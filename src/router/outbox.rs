//! [`Outbox`]: what a session has still to be sent, bounded by messages and bytes.
//!
//! The router pushes, the session's own task takes. A push checks the bounds first and refuses before it stores; a full
//! outbox remembers that it overflowed, and its own task ends the session with it. Nothing here waits but
//! [`Outbox::ready`], [`Outbox::overflow`] and [`Outbox::relieved_since`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::websocket::{Frame, ping};
use wire::notice::{self, Depth};

/// How often a session is warned that it lags (protocol.md, Pressure).
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
    /// A full queue refuses what comes, in place of ending its session: an adapter in the process is never a slow
    /// consumer.
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Live(OnFull),
    Retained,
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
}

/// A session's outbound queue.
pub struct Outbox {
    limits: OutboxLimits,
    state: Mutex<State>,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "what has happened to a queue: any of it in any order")]
struct State {
    queue: VecDeque<(Frame, Entry)>,
    messages: usize,
    bytes: usize,
    droppable: usize,
    dropped: u64,
    lagging: Option<Depth>,
    lagging_told: Option<Instant>,
    ping: bool,
    waited_in_vain: bool,
    /// How often it came under half.
    reliefs: u64,
    overflowed: bool,
    closed: bool,
    registration: u64,
    /// The task that waits for something to take.
    waker: Option<Waker>,
    /// The task while its peer takes nothing: only an overflow concerns it.
    overflow_waker: Option<Waker>,
    relief: SmallVec<[Waker; 1]>,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Puts a frame at the end, and says whether its publisher should wait for the queue.
    ///
    /// # Errors
    /// [`PushError`]; a full queue of a session ends it by this very push.
    pub fn push(&self, now: Instant, frame: Frame, on_full: OnFull) -> Result<Pressure, PushError> {
        self.change(|state| state.push(now, self.limits, frame, on_full))
    }

    /// As [`Outbox::push`], for a registration that may have ended: [`PushError::Closed`] unless it is still the present one.
    pub(super) fn push_for(
        &self,
        registration: u64,
        now: Instant,
        frame: Frame,
        on_full: OnFull,
    ) -> Result<Pressure, PushError> {
        self.change(|state| match state.registration == registration {
            true => state.push(now, self.limits, frame, on_full),
            false => Err(PushError::Closed),
        })
    }

    /// The number of the registration whose messages are taken from now on.
    pub(super) fn registration(&self) -> u64 {
        self.state.lock().registration
    }

    /// Ends the present registration: what is meant for it comes no more, while the session may register again.
    pub(super) fn end_registration(&self) {
        self.change(|state| state.registration += 1);
    }

    /// Holds the queue while `fill` decides what goes in: nothing that others push comes between. `fill` must not touch
    /// another outbox.
    pub(super) fn push_all(&self, now: Instant, fill: impl FnOnce(&mut dyn FnMut(Frame, bool))) {
        self.change(|state| {
            fill(&mut |frame, is_retained| match is_retained {
                true => state.queue.push_back((frame, Entry::Retained)),
                false => drop(state.push(now, self.limits, frame, OnFull::Close)),
            });
        });
    }

    /// Asks for a ping frame, ahead of everything that waits.
    pub fn ping(&self) {
        self.change(|state| state.ping = true);
    }

    /// Wakes the task of the session, which then looks for the reason.
    pub(super) fn wake(&self) {
        let mut state = self.state.lock();
        let wakers = [state.waker.take(), state.overflow_waker.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(wake);
    }

    /// Changes the state, and wakes the task that takes if it sleeps and has something to take now.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let outcome = change(&mut state);
        let waker = if state.has_something() || state.overflowed { state.waker.take() } else { None };
        let concerned = state.overflowed.then(|| state.take_concerned());
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
        // Hardly ever, and apart: a list made for each push took a tenth of its time.
        if let Some(concerned) = concerned {
            concerned.into_iter().for_each(Waker::wake);
        }
        outcome
    }

    /// Takes up to `most` frames, oldest first, after what the broker has to say about the queue itself.
    pub fn take(&self, most: usize, taken: &mut Vec<Frame>) {
        let mut state = self.state.lock();
        let was_over_half = state.over_half(self.limits);
        if std::mem::take(&mut state.ping) {
            taken.push(ping());
        }
        if let Some(depth) = state.lagging.take() {
            taken.push(notice::lagging(depth).into());
        }
        if let count @ 1.. = std::mem::take(&mut state.dropped) {
            taken.push(notice::dropped(count).into());
        }
        let count = most.min(state.queue.len());
        taken.reserve(count);
        for _ in 0..count {
            if let Some(frame) = state.pop() {
                taken.push(frame);
            }
        }
        if state.queue.is_empty() && state.queue.capacity() > KEPT_CAPACITY {
            state.queue.shrink_to(KEPT_CAPACITY);
        }
        let mut relieved = None;
        if !state.over_half(self.limits) {
            state.waited_in_vain = false;
            state.reliefs += u64::from(was_over_half);
            // Hardly ever, and moved only then.
            relieved = (!state.relief.is_empty()).then(|| std::mem::take(&mut state.relief));
        }
        drop(state);
        relieved.into_iter().flatten().for_each(Waker::wake);
    }

    /// Waits until there is something to take, or the queue overflowed. Cancel-safe: it only looks.
    pub async fn ready(&self) {
        poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// The waiting of [`Outbox::ready`].
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.has_something() || state.overflowed {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until the queue overflows: what a task waits for whose peer takes nothing. Cancel-safe: it only looks.
    pub async fn overflow(&self) {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.overflowed {
                return Poll::Ready(());
            }
            state.overflow_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// How often the queue came under half, for [`Outbox::is_relieved_since`].
    pub fn reliefs(&self) -> u64 {
        self.state.lock().reliefs
    }

    /// Whether the queue is, or has been, under half since [`Outbox::reliefs`] was `reliefs`, or its session is ending.
    /// With hundreds of publishers it may be full again before a waiting one gets its turn: it has not waited in vain.
    pub fn is_relieved_since(&self, reliefs: u64) -> bool {
        self.state.lock().is_relieved_since(self.limits, reliefs)
    }

    /// Waits until [`Outbox::is_relieved_since`]. Cancel-safe: it only looks.
    pub async fn relieved_since(&self, reliefs: u64) {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.is_relieved_since(self.limits, reliefs) {
                return Poll::Ready(());
            }
            if !state.relief.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.relief.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Whether the queue is under half, or its session is ending.
    pub fn is_relieved(&self) -> bool {
        let state = self.state.lock();
        state.is_relieved_since(self.limits, state.reliefs)
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        !self.state.lock().has_something()
    }

    /// A publisher waited in vain: nobody waits for this queue again until it has drained to under half, so that one slow
    /// reader cannot slow everybody's publishers.
    pub fn waited_in_vain(&self) {
        self.state.lock().waited_in_vain = true;
    }

    /// Whether a push found it full.
    pub fn overflowed(&self) -> bool {
        self.state.lock().overflowed
    }

    /// How full it is.
    pub fn depth(&self) -> Depth {
        self.state.lock().depth(self.limits)
    }

    /// Refuses every further push. What waits can still be taken.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let relieved = std::mem::take(&mut state.relief);
        drop(state);
        relieved.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn push(
        &mut self,
        now: Instant,
        limits: OutboxLimits,
        frame: Frame,
        on_full: OnFull,
    ) -> Result<Pressure, PushError> {
        if self.closed || self.overflowed {
            return Err(PushError::Closed);
        }
        while !self.fits(limits, frame.len()) && self.droppable > 0 {
            self.drop_oldest();
        }
        if !self.fits(limits, frame.len()) {
            if on_full == OnFull::Drop {
                self.dropped += 1;
            } else if !limits.refuses {
                self.overflow();
            }
            return Err(PushError::Full);
        }
        self.messages += 1;
        self.bytes += frame.len();
        self.droppable += usize::from(on_full == OnFull::Drop);
        self.queue.push_back((frame, Entry::Live(on_full)));
        let depth = self.depth(limits);
        let told_lately = self.lagging_told.is_some_and(|told| now.saturating_duration_since(told) < LAGGING_EVERY);
        if lags(depth) && !told_lately {
            self.lagging = Some(depth);
            self.lagging_told = Some(now);
        }
        Ok(match self.over_half(limits) && !self.waited_in_vain {
            true => Pressure::Over,
            false => Pressure::Relieved,
        })
    }

    /// A message that alone is over the byte limit still fits an empty queue: else it could never be sent.
    fn fits(&self, limits: OutboxLimits, bytes: usize) -> bool {
        self.messages == 0 || (self.messages < limits.messages && self.bytes + bytes <= limits.bytes)
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.queue.iter().position(|(_, entry)| *entry == Entry::Live(OnFull::Drop)) else { return };
        if let Some((frame, entry)) = self.queue.remove(oldest) {
            self.uncount(&frame, entry);
            self.dropped += 1;
        }
    }

    fn pop(&mut self) -> Option<Frame> {
        let (frame, entry) = self.queue.pop_front()?;
        self.uncount(&frame, entry);
        Some(frame)
    }

    fn uncount(&mut self, frame: &Frame, entry: Entry) {
        if let Entry::Live(on_full) = entry {
            self.messages -= 1;
            self.bytes -= frame.len();
            self.droppable -= usize::from(on_full == OnFull::Drop);
        }
    }

    /// The queue is let go at once: the peer reads nothing, and its memory is everybody's.
    fn overflow(&mut self) {
        self.overflowed = true;
        self.queue = VecDeque::new();
        (self.messages, self.bytes, self.droppable) = (0, 0, 0);
    }

    /// Who has to know that it overflowed: its own task, and publishers that wait in vain now.
    fn take_concerned(&mut self) -> SmallVec<[Waker; 1]> {
        let mut concerned = std::mem::take(&mut self.relief);
        concerned.extend(self.overflow_waker.take());
        concerned
    }

    fn has_something(&self) -> bool {
        !self.queue.is_empty() || self.ping || self.lagging.is_some() || self.dropped > 0
    }

    fn is_relieved_since(&self, limits: OutboxLimits, reliefs: u64) -> bool {
        self.closed || self.overflowed || self.reliefs != reliefs || !self.over_half(limits)
    }

    /// Over half of a bound, or with more retained values waiting than the queue may hold messages.
    fn over_half(&self, limits: OutboxLimits) -> bool {
        self.queue.len() * 2 > limits.messages || self.bytes * 2 > limits.bytes
    }

    fn depth(&self, limits: OutboxLimits) -> Depth {
        Depth { messages: self.messages, messages_max: limits.messages, bytes: self.bytes, bytes_max: limits.bytes }
    }
}

/// Tasks that sleep until the burst of this thread is over.
#[derive(Default)]
struct Held {
    /// There is a burst.
    holds: bool,
    wakers: Vec<Waker>,
}

thread_local! {
    static HELD: RefCell<Held> = const { RefCell::new(Held { holds: false, wakers: Vec::new() }) };
}

/// While it lives, tasks that this thread's pushes would wake sleep on; its end wakes them. For a burst of messages that
/// are routed one after the other without a wait: with two threads the other one would write the first message while this
/// one pushes the second, and the same queue would be written again and again (37 deliveries a call in place of 64).
pub struct WakeBatch(());

impl WakeBatch {
    /// Begins.
    #[must_use]
    pub fn begin() -> Self {
        HELD.with_borrow_mut(|held| held.holds = true);
        Self(())
    }
}

impl Drop for WakeBatch {
    fn drop(&mut self) {
        let Held { mut wakers, .. } = HELD.take();
        wakers.drain(..).for_each(Waker::wake);
        // Its memory serves the next one.
        HELD.with_borrow_mut(|held| held.wakers = wakers);
    }
}

fn wake(waker: Waker) {
    let now = HELD.with_borrow_mut(|held| {
        if held.holds {
            held.wakers.push(waker);
            return None;
        }
        Some(waker)
    });
    now.into_iter().for_each(Waker::wake);
}

/// At three quarters of either bound a session is warned.
fn lags(depth: Depth) -> bool {
    depth.messages * 4 >= depth.messages_max * 3 || depth.bytes * 4 >= depth.bytes_max * 3
}
