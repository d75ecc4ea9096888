//! [`Pause`]: a connection that is not read for a while, because it is too fast or because a receiver is too slow.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Connection;
use super::timer::Timer;
use crate::router::explain::SenderPaused;
use crate::router::{Allowance, Session};
use crate::telemetry::metrics::PauseReason;

/// Why the connection is not read.
pub(super) enum Pause {
    /// It sent more messages than its rate allows.
    Rate,
    /// It sent more bytes than its rate allows.
    RateBytes,
    /// Its own queue is over half: whatever it asks for would only add to that.
    OwnQueue(Arc<Session>),
    /// It is sent events of a log, which count against no bound of its queue.
    Replay(Arc<Session>),
    /// Queues of its receivers are over half.
    Receivers { since: Instant, waits: Vec<Wait> },
}

/// One receiver that a publisher waits for.
pub(super) struct Wait {
    receiver: Arc<Session>,
    reliefs: u64,
    until: Instant,
}

impl Pause {
    /// Begins to wait for receivers, within the allowance of the publisher. Returns the pause and when to look at it
    /// first; `None` if the publisher has no time left to wait.
    pub(super) fn begin(
        now: Instant,
        pressed: Vec<Arc<Session>>,
        allowance: &mut Allowance,
    ) -> Option<(Self, Instant)> {
        let left = allowance.left(now);
        if left.is_zero() {
            return None;
        }
        let wait = |receiver: Arc<Session>| {
            let (reliefs, most) = receiver.outbox().begin_wait(now);
            Wait { receiver, reliefs, until: now + most.min(left) }
        };
        let waits: Vec<Wait> = pressed.into_iter().map(wait).collect();
        let first = waits.iter().map(|wait| wait.until).min()?;
        Some((Self::Receivers { since: now, waits }, first))
    }

    /// What it is counted as. An application has asked for a replay.
    pub(super) fn reason(&self) -> Option<PauseReason> {
        match self {
            Self::Rate | Self::RateBytes => Some(PauseReason::Rate),
            Self::OwnQueue(_) | Self::Receivers { .. } => Some(PauseReason::Pressure),
            Self::Replay(_) => None,
        }
    }

    /// Why the connection is not read, as explain says it.
    pub(super) fn explained(&self) -> SenderPaused {
        match self {
            Self::Rate | Self::RateBytes => SenderPaused::Rate,
            Self::OwnQueue(_) | Self::Replay(_) | Self::Receivers { .. } => SenderPaused::Pressure,
        }
    }

    /// Whether it is a wait for this receiver.
    pub(super) fn is_for(&self, receiver: &Session) -> bool {
        match self {
            Self::Rate | Self::RateBytes | Self::Replay(_) => false,
            Self::OwnQueue(session) => std::ptr::eq(&raw const **session, receiver),
            Self::Receivers { waits, .. } => waits.iter().any(|wait| std::ptr::eq(&raw const *wait.receiver, receiver)),
        }
    }

    /// The receivers that it waits for.
    pub(super) fn receivers(&self) -> impl Iterator<Item = &Session> {
        let waits = match self {
            Self::Rate | Self::RateBytes | Self::OwnQueue(_) | Self::Replay(_) => &[][..],
            Self::Receivers { waits, .. } => waits,
        };
        waits.iter().map(|wait| &*wait.receiver)
    }

    /// Its timer fired. Returns when to look again, or `None` if the pause is over. `slow_consumer`: how long a session may
    /// take nothing.
    pub(super) fn fire(&mut self, now: Instant, slow_consumer: Duration) -> Option<Instant> {
        let waits = match self {
            Self::Receivers { waits, .. } => waits,
            // If the session takes nothing, it ends as a slow consumer.
            Self::Replay(session) => return session.outbox().is_replaying().then(|| now + slow_consumer),
            Self::Rate | Self::RateBytes | Self::OwnQueue(_) => return None,
        };
        waits.retain(|wait| {
            let relieved = wait.receiver.outbox().is_relieved_since(wait.reliefs);
            if !relieved && wait.until <= now {
                wait.receiver.outbox().waited_in_vain(now);
            }
            !relieved && wait.until > now
        });
        waits.iter().map(|wait| wait.until).min()
    }

    /// Ends the pause. What a publisher waited for receivers counts against its allowance.
    pub(super) fn end(self, now: Instant, allowance: &mut Option<Box<Allowance>>) {
        if let (Self::Receivers { since, .. }, Some(allowance)) = (self, allowance) {
            allowance.spend(since, now);
        }
    }

    /// Ready when nothing has to be waited for any longer. A pause for the rate ends by its timer alone.
    #[cold]
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Rate | Self::RateBytes => Poll::Pending,
            Self::OwnQueue(session) => session.outbox().poll_under_half(cx),
            Self::Replay(session) => session.outbox().poll_replayed(cx),
            Self::Receivers { waits, .. } => {
                while let Some(wait) = waits.last() {
                    if wait.receiver.outbox().poll_relieved_since(wait.reliefs, cx).is_pending() {
                        return Poll::Pending;
                    }
                    waits.pop();
                }
                Poll::Ready(())
            }
        }
    }
}

impl Connection {
    pub(super) fn wait_for_receivers(&mut self, now: Instant, pressed: Vec<Arc<Session>>) {
        let allowance = self.allowance.get_or_insert_with(|| Box::new(Allowance::publisher(now)));
        if let Some((pause, until)) = Pause::begin(now, pressed, allowance) {
            self.begin_pause(now, pause, until);
        }
    }

    /// A connection whose own queue is over half is not read until it has taken some: whatever it asks for would only add
    /// to that. If it takes nothing, it ends as a slow consumer before the pause does.
    pub(super) fn wait_for_own_queue(&mut self, now: Instant) {
        let Some(session) = self.session() else { return };
        if session.outbox().is_over_half() {
            let pause = Pause::OwnQueue(Arc::clone(session));
            self.begin_pause(now, pause, now + self.limits.slow_consumer);
        }
    }

    pub(super) fn begin_pause(&mut self, now: Instant, pause: Pause, until: Instant) {
        self.log_pause(now, &pause);
        self.heartbeat.not_read();
        self.timers.set(Timer::Pause, until);
        if let Some(reason) = pause.reason() {
            self.settings.metrics.pauses.count(reason);
        }
        self.count_pause(now);
        if let Some(session) = self.session() {
            session.set_paused(Some(pause.explained()));
        }
        (self.pause, self.paused) = (Some(pause), now);
    }

    pub(super) fn end_pause(&mut self, now: Instant) {
        self.timers.stop(Timer::Pause);
        self.count_pause(now);
        if let Some(pause) = self.pause.take() {
            pause.end(now, &mut self.allowance);
            if let Some(session) = self.session() {
                session.set_paused(None);
            }
        }
    }

    /// Counts the time of a pause that ends, if there is one.
    pub(super) fn count_pause(&self, now: Instant) {
        if let Some(reason) = self.pause.as_ref().and_then(Pause::reason) {
            self.settings.metrics.paused_micros.add_micros(reason, now.saturating_duration_since(self.paused));
        }
    }
}
