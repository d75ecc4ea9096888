//! Waiting for a queue to become shorter: publishers, and a session whose replay comes first.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::push::Pressure;
use super::{Outbox, OutboxLimits, State};
use crate::router::pressure::Holdup;

impl Outbox {
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

    /// Ready when the queue was under half since `reliefs`, or the outbox ended, whether publishers wait still or not.
    pub(in crate::router) fn poll_under_half_since(&self, reliefs: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.end.is_some() || state.reliefs != reliefs || !state.over_half(self.limits) {
            return Poll::Ready(());
        }
        state.wake_at_relief(cx);
        Poll::Pending
    }

    /// Whether the queue is over half, and publishers wait for it still.
    pub(in crate::router) fn holds_publishers(&self) -> bool {
        let state = self.state.lock();
        let is_in_vain = state.holdup.as_ref().is_some_and(|holdup| holdup.is_in_vain());
        state.end.is_none() && state.over_half(self.limits) && !is_in_vain
    }

    /// The queue on another node for which this one stands is over half, or no longer. Returns whether publishers wait for it.
    pub(in crate::router) fn set_pressed(&self, now: Instant, is_pressed: bool) -> Pressure {
        let mut state = self.state.lock();
        let was_over_half = state.over_half(self.limits);
        state.pressed = is_pressed && state.end.is_none();
        if !state.pressed {
            self.relieve(now, state, was_over_half);
            return Pressure::Relieved;
        }
        let holdup = state.holdup.get_or_insert_with(|| Box::new(Holdup::new(now)));
        if holdup.holds_publishers(now) { Pressure::Over } else { Pressure::Relieved }
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

    /// Notes that the queue may have become shorter, and wakes the publishers that waited for that.
    #[cold]
    pub(super) fn relieve(&self, now: Instant, mut state: MutexGuard<'_, State>, was_over_half: bool) {
        let is_relief = state.note_relief(now, self.limits, was_over_half);
        let relieved = if is_relief { std::mem::take(&mut state.relief) } else { Vec::new() };
        drop(state);
        relieved.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// Notes that the queue may have become shorter. Returns whether publishers waited for that.
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

    fn wake_at_relief(&mut self, cx: &Context<'_>) {
        if !self.relief.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.relief.push(cx.waker().clone());
        }
    }

    fn is_relieved_since(&self, limits: OutboxLimits, reliefs: u64) -> bool {
        self.end.is_some()
            || self.reliefs != reliefs
            || !self.over_half(limits)
            || self.holdup.as_ref().is_some_and(|holdup| holdup.is_in_vain())
    }
}
