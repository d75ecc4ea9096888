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
//!
//! What is kept for all sessions is counted together, which would cost a message to many sessions much. So a window takes
//! on credit: the last `unsettled` of the kept entries are counted when the credit is used up, or earlier if somebody has to
//! know. Most have been acknowledged by then, and are never counted.
//!
//! `take` is how frames leave, `away` what happens without a connection, `moving` how a session gets to another node,
//! `unroll` what becomes of replays then, `bounds` how the oldest are dropped, `credit` when they are counted.

mod away;
mod bounds;
mod credit;
pub(in crate::router) mod moving;
mod take;
mod unroll;

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Entry, OnFull, Outbox, State};
use crate::router::resume::kept::Kept;
pub(in crate::router) use away::Unresumable;
pub(in crate::router) use bounds::Shed;
use moving::Road;

/// What a resumable session keeps.
pub(in crate::router) struct Window {
    kept: Arc<Kept>,
    /// How many messages precede the first entry of the queue: they were acknowledged or dropped.
    floor: u64,
    /// How many of those the session was not sent.
    lost: u64,
    /// The number of messages that was acknowledged last.
    acknowledged: u64,
    /// Entries at the beginning of the queue that have been sent before, if those are more than the kept ones.
    numbered: usize,
    /// Entries after the kept ones that do not count against the bounds of the queue.
    uncounted: usize,
    /// Bytes of the text of the kept and the uncounted entries, without the unsettled ones.
    bytes: usize,
    /// The last of the kept entries, which were taken on credit and are not counted yet.
    unsettled: usize,
    /// The memory for which more can be taken on credit; 0 unless the next entry is one that waits as in any other outbox.
    credit: usize,
    /// The whole of the credit.
    lent: usize,
    is_away: bool,
    /// How many entries at the beginning of the queue another node has, to which the session moves.
    handed: Option<usize>,
    /// The session has moved: whatever is pushed to it follows.
    road: Option<Box<Road>>,
}

impl Window {
    pub(in crate::router) fn new(kept: Arc<Kept>) -> Self {
        kept.open_window();
        Self {
            kept,
            floor: 0,
            lost: 0,
            acknowledged: 0,
            numbered: 0,
            uncounted: 0,
            bytes: 0,
            unsettled: 0,
            credit: 0,
            lent: 0,
            is_away: false,
            handed: None,
            road: None,
        }
    }

    /// How many messages the session was sent, if this number of entries is kept.
    fn sent(&self, kept: usize) -> u64 {
        self.floor + kept as u64 - self.lost
    }

    fn is_over(&self, entries: usize, bytes: usize) -> bool {
        let (messages_max, bytes_max) = self.kept.session_max();
        entries > messages_max || bytes > bytes_max
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.kept.close_window(self.lent);
    }
}

impl Outbox {
    /// Keeps what is taken by the connection with this number.
    pub(in crate::router) fn keep_sent(&self, window: Window, attachment: u64) {
        let mut state = self.state.lock();
        (state.window, state.attachment) = (Some(Box::new(window)), attachment);
    }
}

impl State {
    pub(super) fn is_away(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.is_away)
    }

    /// The entries that have numbers: a change of rights does not concern them.
    pub(super) fn numbered(&self) -> usize {
        self.window.as_ref().map_or(0, |window| window.numbered.max(self.kept))
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
        self.forget_handed();
        match &mut self.window {
            Some(window) if !is_counted => {
                window.uncounted -= 1;
                window.bytes -= bytes_of(entry);
                window.kept.subtract(1, release(entry));
                self.droppable -= usize::from(window.is_away && is_droppable(entry));
                self.first -= usize::from(comes_first(entry));
            }
            Some(_) | None => self.uncount(entry),
        }
    }

    /// The client has received this number of messages. Returns whether that can be.
    pub(super) fn acknowledge(&mut self, received: u64) -> bool {
        let Some(window) = &mut self.window else { return false };
        if received < window.acknowledged || received > window.sent(self.kept) {
            return false;
        }
        window.acknowledged = received;
        let count = usize::try_from(received.saturating_sub(window.floor)).unwrap_or(usize::MAX);
        self.drop_first(count.min(self.kept));
        self.give_memory_back();
        true
    }

    /// Drops the oldest entries, which have been sent.
    fn drop_first(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.forget_handed();
        let Self { queue, kept, window: Some(window), .. } = self else { return };
        let counted = count.min(*kept + window.uncounted - window.unsettled);
        let mut memory = 0;
        for _ in 0..counted {
            let Some(entry) = queue.pop_front() else { break };
            window.bytes -= bytes_of(&entry);
            memory += release(&entry);
        }
        if counted > 0 {
            window.kept.subtract(counted, memory);
        }
        match (count - counted).min(queue.len()) {
            // The client has received everything. Less work than to drain, and the usual case.
            all if all == queue.len() => queue.clear(),
            some => drop(queue.drain(..some)),
        }
        let unsent = count.saturating_sub(*kept);
        window.unsettled -= count - counted;
        window.uncounted -= unsent;
        window.lost += unsent as u64;
        *kept = kept.saturating_sub(count);
        window.numbered = window.numbered.saturating_sub(count);
        window.floor += count as u64;
    }

    /// Keeps nothing any more, because the session ends. What was sent is dropped; what waits can still be taken.
    pub(super) fn close_window(&mut self) {
        let Some(window) = self.window.take() else { return };
        let counted = self.kept + window.uncounted - window.unsettled;
        let memory = self.queue.iter().take(counted).map(release).sum();
        window.kept.subtract(counted, memory);
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

fn bytes_of(entry: &Entry) -> usize {
    match entry {
        Entry::Frame(frame, ..) => frame.len(),
        Entry::Replay(_) => 0,
    }
}

fn memory_of(entry: &Entry) -> usize {
    match entry {
        Entry::Frame(frame, ..) => frame.memory_bytes(),
        Entry::Replay(_) => 0,
    }
}

fn keep(entry: &Entry) -> usize {
    match entry {
        Entry::Frame(frame, ..) => frame.keep(),
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

pub(super) fn is_droppable(entry: &Entry) -> bool {
    matches!(entry, Entry::Frame(_, OnFull::Drop, _))
}
