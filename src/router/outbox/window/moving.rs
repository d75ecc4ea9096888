//! The outbox of a session that moves to another node, and of one that has arrived from there.
//!
//! The queue is handed over from its beginning while messages are still added at its end. Whatever else changes it makes the
//! new node forget what it has, and the queue is handed over anew.

use std::sync::Arc;
use std::time::Instant;

use super::away::NOBODY;
use super::{Window, bytes_of, is_droppable, keep};
use crate::router::backplane::moving::message::{Leg, Moving};
use crate::router::backplane::moving::parts::{Counts, Entry as Handed, Reached};
use crate::router::backplane::{Peer, message::Message};
use crate::router::history::InLog;
use crate::router::outbox::{Entry, Kind, OnFull, Outbox, Pressure, PushError, State, Taken};
use crate::websocket::Frame;

/// Bytes of messages that are handed over at once, unless a single one is longer.
const PART_BYTES: usize = 64 << 10;

/// What a message counts beside its text.
const ENTRY_BYTES: usize = 32;

/// A message of a queue, as its new node keeps it until it has all.
pub(in crate::router) type Waiting = (Frame, OnFull, Kind);

/// How far a queue is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Progress {
    /// The new node has the next part.
    Sent,
    /// What is left fits into the last part.
    IsLast,
    /// The new node has to forget what it has.
    Restart,
    /// The session ends, or a replay waits in its queue.
    Cannot,
}

/// Where what is pushed to a session goes that has moved.
pub(in crate::router) struct Road {
    peer: Arc<Peer>,
    leg: Leg,
}

impl Road {
    /// The road of a session that ends this leg here.
    pub(in crate::router) fn new(peer: &Arc<Peer>, leg: Leg) -> Self {
        Self { peer: Arc::clone(peer), leg }
    }

    fn push(
        &self,
        frame: &Frame,
        (on_full, kind): (OnFull, Kind),
        place: Option<InLog<'_>>,
    ) -> Result<Pressure, PushError> {
        let entry = Handed::new(frame, on_full, kind);
        let place = place.map(|place| Reached::new(place.log, place.position));
        let is_sent = self.peer.send(&Message::Moving(Moving::Relay { leg: self.leg, entry, place }));
        if is_sent { Ok(Pressure::Relieved) } else { Err(PushError::Closed) }
    }
}

impl Outbox {
    /// Begins to hand the queue of a session over that is away.
    pub(in crate::router) fn begin_handing(&self) {
        if let Some(window) = &mut self.state.lock().window {
            window.handed = Some(0);
        }
    }

    /// Hands the next part over with `send`, unless it would be the last one.
    pub(in crate::router) fn hand_part(&self, send: impl FnOnce(Vec<Handed<'_>>) -> bool) -> Progress {
        let mut state = self.state.lock();
        let State { queue, window: Some(window), end: None, .. } = &mut *state else { return Progress::Cannot };
        let Some(handed) = window.handed else { return Progress::Restart };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in queue.iter().skip(handed) {
            let Entry::Frame(frame, on_full, kind) = entry else { return Progress::Cannot };
            if bytes > 0 && bytes + frame.len() > PART_BYTES {
                window.handed = Some(handed + entries.len());
                return if send(entries) { Progress::Sent } else { Progress::Cannot };
            }
            bytes += frame.len() + ENTRY_BYTES;
            entries.push(Handed::new(frame, *on_full, *kind));
        }
        Progress::IsLast
    }

    /// Hands the last part over with `send`. From then on, everything that is pushed goes along the road.
    pub(in crate::router) fn hand_over(
        &self,
        road: Road,
        send: impl FnOnce(Counts, Vec<Handed<'_>>) -> bool,
    ) -> Progress {
        let mut state = self.state.lock();
        let dropped = state.dropped;
        let State { queue, kept, window: Some(window), end: None, news, .. } = &mut *state else {
            return Progress::Cannot;
        };
        let Some(handed) = window.handed else { return Progress::Restart };
        let counts = Counts {
            floor: window.floor,
            lost: window.lost,
            acknowledged: window.acknowledged,
            kept: *kept as u64,
            numbered: window.numbered as u64,
            dropped,
            untold: news.as_ref().map_or(0, |news| news.dropped),
        };
        let mut entries = Vec::new();
        for entry in queue.iter().skip(handed) {
            let Entry::Frame(frame, on_full, kind) = entry else { return Progress::Cannot };
            entries.push(Handed::new(frame, *on_full, *kind));
        }
        if !send(counts, entries) {
            return Progress::Cannot;
        }
        let all = state.queue.len();
        state.drop_first(all);
        if let Some(window) = &mut state.window {
            window.road = Some(Box::new(road));
        }
        (state.news, state.droppable, state.checks) = (None, 0, true);
        state.queue.shrink_to(0);
        Progress::Sent
    }

    /// Fills the empty outbox of a session that has arrived from another node, and is away.
    pub(in crate::router) fn adopt(&self, now: Instant, mut window: Window, counts: Counts, entries: Vec<Waiting>) {
        let mut state = self.state.lock();
        let mut memory = 0;
        for (frame, on_full, kind) in entries {
            if let Some(memory) = &self.memory {
                frame.count_in(memory);
            }
            let entry = Entry::Frame(frame, on_full, kind);
            window.bytes += bytes_of(&entry);
            memory += keep(&entry);
            state.queue.push_back(entry);
        }
        let all = state.queue.len();
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(all);
        state.kept = count(counts.kept);
        (window.floor, window.lost, window.acknowledged) = (counts.floor, counts.lost, counts.acknowledged);
        window.numbered = count(counts.numbered).max(state.kept);
        window.uncounted = all - state.kept;
        window.is_away = true;
        window.kept.add(all, memory);
        window.kept.look(now);
        state.droppable = state.queue.iter().skip(window.numbered).filter(|entry| is_droppable(entry)).count();
        (state.attachment, state.window, state.checks) = (NOBODY, Some(Box::new(window)), true);
        state.dropped = counts.dropped;
        if counts.untold > 0 {
            state.news = Some(Box::new(Taken { dropped: counts.untold, ..Taken::default() }));
        }
        state.keep_bounds();
    }

    /// Puts a frame at the end, of this kind.
    pub(in crate::router) fn push_as(
        &self,
        now: Instant,
        (frame, on_full, kind): Waiting,
    ) -> Result<Pressure, PushError> {
        self.change(|state| state.push(now, self.limits, self.memory.as_ref(), frame, on_full, kind))
    }

    /// Puts a message at the end. `place`: its place in a log, which the new node of a session that has moved has to know.
    pub(in crate::router) fn push_at(
        &self,
        now: Instant,
        waiting: Waiting,
        place: Option<InLog<'_>>,
    ) -> Result<Pressure, PushError> {
        if place.is_some() {
            let (frame, on_full, kind) = &waiting;
            let state = self.state.lock();
            if state.end.is_none()
                && let Some(pushed) = state.push_on(frame, (*on_full, *kind), place)
            {
                return pushed;
            }
        }
        self.push_as(now, waiting)
    }
}

impl State {
    /// Sends a frame along the road of a session that has moved. `None`: it has not.
    pub(super) fn push_on(
        &self,
        frame: &Frame,
        what: (OnFull, Kind),
        place: Option<InLog<'_>>,
    ) -> Option<Result<Pressure, PushError>> {
        let road = self.window.as_ref()?.road.as_ref()?;
        Some(road.push(frame, what, place))
    }

    /// What was handed over is no longer what is in the queue.
    pub(super) fn forget_handed(&mut self) {
        if let Some(window) = &mut self.window {
            window.handed = None;
        }
    }
}
