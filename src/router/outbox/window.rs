//! [`Window`]: what a resumable session was sent and has not acknowledged, and what waits for it while it is away.
//!
//! Nothing is copied or moved for it: the queue of the outbox is one list, and what was taken stays at its beginning. The
//! client counts messages, and so does the window, so that none needs a number of its own.
//!
//! | entries of the queue | |
//! |---|---|
//! | the first `kept` | The present connection has taken them. They are dropped when they are acknowledged. |
//! | up to `numbered` | An earlier connection has taken them. They are taken again, with the numbers that they had. |
//! | up to `kept + uncounted` | They waited while the session was away. They do not count against the bounds of the queue. |
//! | the others | They wait, as in any other outbox. |

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use parking_lot::MutexGuard;
use wire::notice;

use super::{End, Entry, Kind, OnFull, Outbox, Pressure, PushError, State, Taken};
use crate::router::replay::Replay;
use crate::router::resume::kept::{ENTRY_BYTES, Kept};
use crate::websocket::{Frame, FrameMemory};

/// The attachment of a session without a connection. No connection has this number.
const NOBODY: u64 = u64::MAX;

/// What a resumable session keeps.
pub(in crate::router) struct Window {
    kept: Arc<Kept>,
    /// The number of the session, by which it is counted.
    session: u64,
    /// How many messages precede the first entry of the queue: they were acknowledged or dropped.
    floor: u64,
    /// How many messages the session was sent.
    sent: u64,
    /// The number of messages that was acknowledged last.
    acknowledged: u64,
    /// Entries at the beginning of the queue that have been sent before.
    numbered: usize,
    /// Entries after the kept ones that do not count against the bounds of the queue.
    uncounted: usize,
    /// Bytes of the text of the kept and the uncounted entries.
    bytes: usize,
    is_away: bool,
}

/// Why messages cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Unresumable {
    /// The client has received more than was sent.
    Ahead,
    /// A message that it has not received is no longer kept.
    TooFar,
}

/// What became of a session that was to lose its oldest messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Shed {
    /// It keeps this number of bytes.
    Keeps(usize),
    /// It has nothing more to lose.
    Nothing,
}

impl Window {
    pub(in crate::router) fn new(kept: Arc<Kept>, session: u64) -> Self {
        Self { kept, session, floor: 0, sent: 0, acknowledged: 0, numbered: 0, uncounted: 0, bytes: 0, is_away: false }
    }

    fn is_over(&self, entries: usize, bytes: usize) -> bool {
        let (messages_max, bytes_max) = self.kept.session_max();
        entries > messages_max || bytes > bytes_max
    }
}

fn bytes_of(entry: &Entry) -> usize {
    match entry {
        Entry::Frame(frame, ..) => frame.len(),
        Entry::Replay(_) => 0,
    }
}

fn release(entry: &Entry) -> usize {
    match entry {
        Entry::Frame(frame, ..) => frame.release(),
        Entry::Replay(_) => 0,
    }
}

fn comes_first(entry: &Entry) -> bool {
    matches!(entry, Entry::Replay(replay) if replay.comes_first())
}

fn is_droppable(entry: &Entry) -> bool {
    matches!(entry, Entry::Frame(_, OnFull::Drop, _))
}

impl Outbox {
    /// Takes for the connection with this number from the outbox of a resumable session, if it is that connection's.
    #[inline(never)]
    pub(super) fn take_from_window(
        &self,
        mut state: MutexGuard<'_, State>,
        attachment: u64,
        now: Instant,
        most: usize,
        frames: &mut Vec<Frame>,
    ) -> Taken {
        if state.attachment != attachment {
            return Taken::default();
        }
        let was_over_half = state.over_half(self.limits);
        let taken = state.take_kept(now, self.memory.as_ref(), most, frames);
        let relieved = state.note_relief(now, self.limits, was_over_half).then(|| std::mem::take(&mut state.relief));
        drop(state);
        relieved.into_iter().flatten().for_each(Waker::wake);
        taken
    }

    /// Keeps what is taken by the connection with this number.
    pub(in crate::router) fn keep_sent(&self, window: Window, attachment: u64) {
        let mut state = self.state.lock();
        (state.window, state.attachment) = (Some(Box::new(window)), attachment);
    }

    /// The connection was lost. From now on the queue has the bounds of what is kept, and nobody waits for it. `ended` is
    /// woken when the outbox ends.
    pub(in crate::router) fn go_away(&self, now: Instant, ended: Waker) {
        self.change(|state| {
            state.attachment = NOBODY;
            state.taker = None;
            state.go_away(now);
            state.end_waker = Some(ended);
            if state.end.is_none() {
                state.keep_bounds();
            }
        });
        // Nobody waits for a session that is away.
        let waiting = std::mem::take(&mut self.state.lock().relief);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Wakes this when the outbox of a session that is away ends, or when its proof gets another end.
    pub(in crate::router) fn watch(&self, watch: Waker) {
        self.state.lock().end_waker = Some(watch);
    }

    /// Another connection takes from now on, after the first `received` messages. Returns how many messages are sent again.
    ///
    /// # Errors
    /// Why that is not possible; then nothing has changed.
    pub(in crate::router) fn resume(&self, received: u64, attachment: u64) -> Result<u64, Unresumable> {
        let mut state = self.state.lock();
        let replayed = state.resume(received)?;
        state.attachment = attachment;
        let wakers = [state.taker.take(), state.end_waker.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
        Ok(replayed)
    }

    /// Whether [`Outbox::resume`] would succeed.
    pub(in crate::router) fn check_resume(&self, received: u64) -> Result<(), Unresumable> {
        self.state.lock().check_resume(received)
    }

    /// No connection may take any more: the one that could is told that it was replaced.
    pub(in crate::router) fn replace_taker(&self) {
        let mut state = self.state.lock();
        state.attachment = NOBODY;
        let wakers = [state.taker.take(), state.end_waker.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

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
    pub(super) fn is_away(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.is_away)
    }

    /// The entries that have numbers: a change of rights does not concern them.
    pub(super) fn numbered(&self) -> usize {
        self.window.as_ref().map_or(0, |window| window.numbered)
    }

    /// The first entry that counts against the bounds of the queue.
    pub(super) fn counted_from(&self) -> usize {
        self.window.as_ref().map_or(0, |window| self.kept + window.uncounted)
    }

    /// The first entry that a full queue may drop.
    pub(super) fn droppable_from(&self) -> usize {
        if self.is_away() { self.numbered() } else { self.counted_from() }
    }

    /// A waiting entry was removed from the queue.
    pub(super) fn forget(&mut self, entry: &Entry, is_counted: bool) {
        match &mut self.window {
            Some(window) if !is_counted => {
                window.uncounted -= 1;
                window.bytes -= bytes_of(entry);
                window.kept.subtract(window.session, 1, release(entry));
                self.droppable -= usize::from(window.is_away && is_droppable(entry));
                self.first -= usize::from(comes_first(entry));
            }
            Some(_) | None => self.uncount(entry),
        }
    }

    /// Takes up to `most` frames: first those that are sent again, then notices about the queue, then what waits.
    pub(super) fn take_kept(
        &mut self,
        now: Instant,
        memory: Option<&Arc<FrameMemory>>,
        most: usize,
        frames: &mut Vec<Frame>,
    ) -> Taken {
        let room = frames.len().saturating_add(most);
        if self.kept < self.numbered() || self.lagging.is_some() || self.dropped > 0 {
            self.take_first(now, memory, room, frames);
        }
        let Self { queue, kept, window: Some(window), messages, bytes, droppable, proof_end, .. } = self else {
            return Taken::default();
        };
        let (mut entries, mut memory) = (0, 0);
        let mut taken = Taken { proof_end: proof_end.take(), ..Taken::default() };
        while frames.len() < room && *kept >= window.numbered {
            match queue.get(*kept) {
                Some(Entry::Frame(frame, on_full, _)) => {
                    if window.uncounted > 0 {
                        window.uncounted -= 1;
                    } else {
                        let len = frame.len();
                        *messages -= 1;
                        *bytes -= len;
                        *droppable -= usize::from(*on_full == OnFull::Drop);
                        window.bytes += len;
                        entries += 1;
                        memory += frame.keep();
                    }
                    frames.push(frame.clone());
                    *kept += 1;
                    window.numbered = *kept;
                    window.sent += 1;
                }
                Some(Entry::Replay(_)) => {
                    taken.replay_waits = true;
                    break;
                }
                None => break,
            }
        }
        if entries > 0 {
            window.kept.add(now, window.session, entries, memory);
            if window.is_over(*kept, window.bytes) {
                self.keep_bounds();
            }
        }
        taken
    }

    /// Takes what precedes everything that waits: what is sent again, then notices about the queue.
    #[cold]
    fn take_first(&mut self, now: Instant, memory: Option<&Arc<FrameMemory>>, room: usize, frames: &mut Vec<Frame>) {
        self.take_again(room, frames);
        if frames.len() < room && (self.lagging.is_some() || self.dropped > 0) {
            self.take_notices(now, memory, frames);
        }
    }

    /// Takes what an earlier connection has taken before.
    fn take_again(&mut self, room: usize, frames: &mut Vec<Frame>) {
        let Self { queue, kept, window: Some(window), .. } = self else { return };
        while *kept < window.numbered && frames.len() < room {
            if let Some(Entry::Frame(frame, ..)) = queue.get(*kept) {
                frames.push(frame.clone());
            }
            *kept += 1;
            window.uncounted -= 1;
            window.sent += 1;
        }
    }

    /// Sends notices about the queue before what waits in it. They are messages of the session like any other.
    fn take_notices(&mut self, now: Instant, memory: Option<&Arc<FrameMemory>>, frames: &mut Vec<Frame>) {
        if self.kept < self.numbered() {
            return;
        }
        if let Some(window) = &self.window {
            window.kept.count_notices(self.lagging.is_some(), self.dropped);
        }
        let lagging = self.lagging.take().map(notice::lagging);
        let dropped = (self.dropped > 0).then(|| notice::dropped(std::mem::take(&mut self.dropped)));
        let notices: Vec<Frame> = lagging.into_iter().chain(dropped).map(Frame::from).collect();
        self.keep(now, memory, &notices);
        frames.extend(notices);
    }

    /// Keeps frames that are taken without having been in the queue.
    fn keep(&mut self, now: Instant, memory: Option<&Arc<FrameMemory>>, taken: &[Frame]) {
        let Self { queue, kept, window: Some(window), .. } = self else { return };
        let mut waiting = queue.split_off(*kept);
        let mut kept_memory = 0;
        for frame in taken {
            if let Some(memory) = memory {
                frame.count_in(memory);
            }
            window.bytes += frame.len();
            kept_memory += frame.keep();
            queue.push_back(Entry::Frame(frame.clone(), OnFull::Close, Kind::Other));
        }
        queue.append(&mut waiting);
        *kept += taken.len();
        window.numbered = *kept;
        window.sent += taken.len() as u64;
        window.kept.add(now, window.session, taken.len(), kept_memory);
        self.keep_bounds();
    }

    /// Takes the replay that comes next.
    pub(super) fn take_replay(&mut self) -> Option<Box<Replay>> {
        let entry = match self.queue.get(self.kept) {
            Some(Entry::Replay(_)) => self.queue.remove(self.kept)?,
            Some(Entry::Frame(..)) | None => return None,
        };
        let is_counted = self.window.as_ref().is_some_and(|window| window.uncounted == 0);
        self.forget(&entry, is_counted);
        match entry {
            Entry::Replay(replay) => Some(replay),
            Entry::Frame(..) => None,
        }
    }

    /// Keeps the frames that a replay gave, and puts its rest back.
    pub(super) fn put_pulled(
        &mut self,
        now: Instant,
        memory: Option<&Arc<FrameMemory>>,
        pulled: &[Frame],
        rest: Option<Box<Replay>>,
    ) {
        if self.end.is_some() {
            return;
        }
        self.keep(now, memory, pulled);
        let (Some(window), Some(rest)) = (&mut self.window, rest) else { return };
        self.first += usize::from(rest.comes_first());
        self.queue.insert(self.kept, Entry::Replay(rest));
        if window.uncounted > 0 {
            window.uncounted += 1;
            window.kept.add(now, window.session, 1, 0);
        }
    }

    /// Drops the oldest entries, which have been sent.
    fn drop_first(&mut self, count: usize) {
        let Self { queue, kept, window: Some(window), .. } = self else { return };
        let mut memory = 0;
        // A few at a time, for which `drain` would take longer.
        for _ in 0..count {
            let Some(entry) = queue.pop_front() else { break };
            window.bytes -= bytes_of(&entry);
            memory += release(&entry);
        }
        window.uncounted -= count.saturating_sub(*kept);
        *kept = kept.saturating_sub(count);
        window.numbered -= count;
        window.floor += count as u64;
        window.kept.subtract(window.session, count, memory);
    }

    /// Drops the oldest messages that were sent, until what is kept is within its bounds.
    fn keep_bounds(&mut self) {
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

    fn go_away(&mut self, now: Instant) {
        let counted_from = self.counted_from();
        let Self { queue, kept, window: Some(window), .. } = self else { return };
        let mut memory = 0;
        for entry in queue.iter().skip(counted_from) {
            window.bytes += bytes_of(entry);
            if let Entry::Frame(frame, ..) = entry {
                memory += frame.keep();
            }
        }
        window.kept.add(now, window.session, queue.len() - counted_from, memory);
        window.uncounted = queue.len() - *kept;
        window.is_away = true;
        self.droppable = queue.iter().skip(window.numbered).filter(|entry| is_droppable(entry)).count();
        (self.messages, self.bytes, self.lagging, self.holdup) = (0, 0, None, None);
        self.reliefs += 1;
    }

    /// Puts a frame at the end of the queue of a session that is away.
    #[cold]
    pub(super) fn push_away(
        &mut self,
        now: Instant,
        memory: Option<&Arc<FrameMemory>>,
        frame: Frame,
        on_full: OnFull,
        kind: Kind,
    ) -> Result<Pressure, PushError> {
        let len = frame.len();
        let over = |state: &Self| {
            let window = state.window.as_ref();
            // A message that alone is over the byte limit still fits an empty queue.
            !state.queue.is_empty() && window.is_some_and(|it| it.is_over(state.queue.len() + 1, it.bytes + len))
        };
        while over(self) && self.numbered() > 0 {
            self.drop_first(1);
        }
        while over(self) && self.droppable > 0 {
            self.drop_oldest();
        }
        if over(self) {
            match on_full {
                OnFull::Drop => self.dropped += 1,
                OnFull::Close => self.discard(End::Overflowed),
            }
            return Err(PushError::Full);
        }
        if let Some(memory) = memory {
            frame.count_in(memory);
        }
        if let Some(window) = &mut self.window {
            window.uncounted += 1;
            window.bytes += len;
            window.kept.add(now, window.session, 1, frame.keep());
        }
        self.droppable += usize::from(on_full == OnFull::Drop);
        self.queue.push_back(Entry::Frame(frame, on_full, kind));
        Ok(Pressure::Relieved)
    }

    fn check_resume(&self, received: u64) -> Result<(), Unresumable> {
        match &self.window {
            Some(window) if received > window.sent => Err(Unresumable::Ahead),
            Some(window) if received < window.floor => Err(Unresumable::TooFar),
            Some(_) => Ok(()),
            None => Err(Unresumable::TooFar),
        }
    }

    fn resume(&mut self, received: u64) -> Result<u64, Unresumable> {
        self.check_resume(received)?;
        self.acknowledge(received);
        let Some(window) = &mut self.window else { return Err(Unresumable::TooFar) };
        window.sent = received;
        window.acknowledged = window.acknowledged.max(received);
        window.uncounted += self.kept;
        self.kept = 0;
        if std::mem::take(&mut window.is_away) {
            self.droppable = 0;
        }
        Ok(window.numbered as u64)
    }

    /// The client has received this number of messages. Returns whether that can be.
    pub(super) fn acknowledge(&mut self, received: u64) -> bool {
        let Some(window) = &mut self.window else { return false };
        if received < window.acknowledged || received > window.sent {
            return false;
        }
        window.acknowledged = received;
        let count = usize::try_from(received.saturating_sub(window.floor)).unwrap_or(usize::MAX);
        self.drop_first(count.min(self.kept));
        if self.queue.is_empty() && self.queue.capacity() > super::KEPT_CAPACITY {
            self.queue.shrink_to(super::KEPT_CAPACITY);
        }
        true
    }

    fn kept_bytes(&self) -> usize {
        self.window.as_ref().map_or(0, |window| window.bytes + (self.kept + window.uncounted) * ENTRY_BYTES)
    }

    fn shed(&mut self, bytes: usize) -> Shed {
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

    /// Keeps nothing any more, because the session ends. What was sent is dropped; what waits can still be taken.
    pub(super) fn close_window(&mut self) {
        let Some(window) = self.window.take() else { return };
        let kept_entries = self.kept + window.uncounted;
        let memory = self.queue.iter().take(kept_entries).map(release).sum();
        window.kept.subtract(window.session, kept_entries, memory);
        self.queue.drain(..self.kept);
        self.kept = 0;
        let frames = || self.queue.iter().filter(|entry| matches!(entry, Entry::Frame(..)));
        self.messages = frames().count();
        self.bytes = frames().map(bytes_of).sum();
        self.droppable = frames().filter(|entry| is_droppable(entry)).count();
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }
}
