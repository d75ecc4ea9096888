//! The outbox of a session that is away, and of one that returns.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::{bytes_of, is_droppable};
use crate::router::outbox::{End, Entry, Kind, OnFull, Outbox, Pressure, PushError, State, wake_task};
use crate::websocket::{Frame, FrameMemory};

/// The attachment of a session without a connection. No connection has this number.
pub(super) const NOBODY: u64 = u64::MAX;

/// Why messages cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Unresumable {
    /// The client has received more than was sent.
    Ahead,
    /// A message that it has not received is no longer kept.
    TooFar,
}

impl Outbox {
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

    /// Another connection takes from now on, after the first `received` messages. Returns how many messages are sent again.
    ///
    /// # Errors
    /// Why that is not possible; then nothing has changed.
    pub(in crate::router) fn resume(&self, received: u64, attachment: u64) -> Result<u64, Unresumable> {
        let mut state = self.state.lock();
        let replayed = state.resume(received)?;
        state.attachment = attachment;
        wake_task(state);
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
        wake_task(state);
    }

    /// Wakes this when the outbox of a session that is away ends, or when its proof gets another end.
    pub(in crate::router) fn watch(&self, watch: Waker) {
        self.state.lock().end_waker = Some(watch);
    }
}

impl State {
    fn go_away(&mut self, now: Instant) {
        self.settle();
        let counted_from = self.counted_from();
        let Self { queue, kept, window: Some(window), .. } = self else { return };
        let mut memory = 0;
        for entry in queue.iter().skip(counted_from) {
            window.bytes += bytes_of(entry);
            if let Entry::Frame(frame, ..) = entry {
                memory += frame.keep();
            }
        }
        window.kept.add(queue.len() - counted_from, memory);
        window.kept.look(now);
        window.uncounted = queue.len() - *kept;
        window.is_away = true;
        self.droppable = queue.iter().skip(window.numbered).filter(|entry| is_droppable(entry)).count();
        (self.messages, self.bytes, self.holdup) = (0, 0, None);
        if let Some(news) = &mut self.news {
            news.lagging = None;
            news.sent_away = false;
        }
        self.reliefs += 1;
    }

    /// Puts a frame at the end of the queue of a session that is away.
    #[cold]
    pub(in crate::router::outbox) fn push_away(
        &mut self,
        now: Instant,
        memory: Option<&Arc<FrameMemory>>,
        frame: Frame,
        on_full: OnFull,
        kind: Kind,
    ) -> Result<Pressure, PushError> {
        if let Some(pushed) = self.push_on(&frame, (on_full, kind), None) {
            return pushed;
        }
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
                OnFull::Drop => self.note_dropped(),
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
            window.kept.add(1, frame.keep());
            window.kept.look(now);
        }
        self.droppable += usize::from(on_full == OnFull::Drop);
        self.queue.push_back(Entry::Frame(frame, on_full, kind));
        Ok(Pressure::Relieved)
    }

    /// How many events are dropped to make room for a frame of this length while the session is away, apart from messages that
    /// were sent; `None` if that is not enough. As [`State::push_away`] does it.
    pub(in crate::router::outbox) fn makes_room_away(&self, bytes: usize) -> Option<usize> {
        let Some(window) = &self.window else { return Some(0) };
        let (mut entries, mut held) = (self.queue.len(), window.bytes);
        let over = |entries: usize, held: usize| entries > 0 && window.is_over(entries + 1, held + bytes);
        for sent in self.queue.iter().take(window.numbered) {
            if !over(entries, held) {
                break;
            }
            (entries, held) = (entries - 1, held - bytes_of(sent));
        }
        let mut drops = self.droppable_frames();
        for dropped in 0.. {
            if !over(entries, held) {
                return Some(dropped);
            }
            (entries, held) = (entries - 1, held - drops.next()?);
        }
        None
    }

    fn check_resume(&self, received: u64) -> Result<(), Unresumable> {
        match &self.window {
            Some(window) if received > window.sent(self.kept) => Err(Unresumable::Ahead),
            Some(window) if received < window.floor => Err(Unresumable::TooFar),
            Some(_) => Ok(()),
            None => Err(Unresumable::TooFar),
        }
    }

    fn resume(&mut self, received: u64) -> Result<u64, Unresumable> {
        self.check_resume(received)?;
        self.settle();
        self.acknowledge(received);
        let Some(window) = &mut self.window else { return Err(Unresumable::TooFar) };
        window.lost = 0;
        window.acknowledged = window.acknowledged.max(received);
        window.uncounted += self.kept;
        self.kept = 0;
        if std::mem::take(&mut window.is_away) {
            self.droppable = 0;
        }
        Ok(window.numbered as u64)
    }
}
