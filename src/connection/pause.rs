//! [`Pause`]: a connection that is not read for a while, because it is too fast or because a receiver is too slow.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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
