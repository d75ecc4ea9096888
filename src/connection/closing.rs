//! The end of a connection: its Close frame, and the end of its session.

use std::time::{Duration, Instant};

use wire::{Close, CloseCode, notice};

use super::log::Leaving;
use super::taking::queue_notices;
use super::timer::Timer;
use super::{Connection, Effect, Phase};
use crate::router::{End, Ending, Left, Router, Session};
use crate::telemetry::metrics::SlowFor;
use crate::websocket::{Fault, Frame};

/// How long a connection that closes for a restart waits for the last answers. Another thread that is ending a
/// handler's session can be about to answer one of its requests.
const LAST_LOOK: Duration = Duration::from_millis(20);

impl Connection {
    /// The Close frame for a rule of WebSocket that the peer broke.
    pub(super) fn close_of(&self, fault: Fault) -> Close {
        let (most, is_registered) = (self.message_bytes_max(), self.session().is_some());
        match fault {
            Fault::Protocol(rule) => Close::new(CloseCode::Protocol, rule.as_str()),
            Fault::InvalidUtf8 => CloseCode::InvalidUtf8.into(),
            Fault::TooLarge if is_registered => {
                Close::new(CloseCode::TooLarge, format!("a message has at most {most} bytes"))
            }
            Fault::TooLarge => {
                Close::new(CloseCode::TooLarge, format!("a message before registration has at most {most} bytes"))
            }
        }
    }

    /// The outbox of the session has ended.
    pub(super) fn outbox_ended(&mut self, now: Instant, end: End, router: &Router) -> Option<Effect> {
        let close = match end {
            End::Overflowed => {
                self.settings.metrics.slow_consumers.count(SlowFor::Overflow);
                Close::new(CloseCode::SlowConsumer, "slow consumer: the outbound queue overflowed")
            }
            End::Longest => {
                self.settings.metrics.slow_consumers.count(SlowFor::Memory);
                let reason = "slow consumer: all queues exceed limits.outbound_total_bytes, and this was the longest";
                Close::new(CloseCode::SlowConsumer, reason)
            }
            End::Close(code, reason) => Close::new(code, reason),
            End::Kicked | End::SentAway => return Some(self.close_by_operator(now, router, end)),
            End::Replaced => return Some(self.replaced(now, router)),
            // The connection itself detaches its session, and then it has none.
            End::Detached => return None,
        };
        Some(self.close(now, router, close))
    }

    /// Closes the connection at the end of the drain. If requests are still open, cancels those that this session sent,
    /// and closes after [`LAST_LOOK`].
    pub(super) fn restart(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        match self.session().filter(|session| router.is_in_flight(session)) {
            Some(session) => {
                router.give_up_all(now, session);
                self.timers.set(Timer::Restart, now + LAST_LOOK);
                None
            }
            None => Some(self.close(now, router, CloseCode::Restart)),
        }
    }

    /// Closes the connection because its client is to go to another node at once. A session that cannot continue there first
    /// gets the answers that are open.
    pub(super) fn move_on(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let waits = |session: &Session| !session.is_resumable() && router.is_in_flight(session);
        if self.session().is_some_and(|session| waits(session)) {
            self.timers.set(Timer::Move, now + LAST_LOOK);
            return None;
        }
        self.push(now, notice::draining(0));
        Some(self.close(now, router, CloseCode::Restart))
    }

    /// Closes the connection because an operator wants it, with the operator's reason.
    pub(super) fn close_by_operator(&mut self, now: Instant, router: &Router, end: End) -> Effect {
        let code = if end == End::Kicked { CloseCode::Kicked } else { CloseCode::Restart };
        let reason = self.session().and_then(|session| session.kicked_because());
        let close = reason.map_or_else(|| Close::from(code), |reason| Close::new(code, reason.to_string()));
        self.close(now, router, close)
    }

    pub(super) fn close(&mut self, now: Instant, router: &Router, close: impl Into<Close>) -> Effect {
        let close = close.into();
        let ending = Ending::Closed(close.code());
        self.close_for(now, router, close, ending)
    }

    /// Closes the connection, and ends its session or leaves it away.
    pub(super) fn close_for(&mut self, now: Instant, router: &Router, close: Close, ending: Ending) -> Effect {
        let leaving = Leaving { reason: close.reason(), code: Some(close.code().code()), ending };
        if close.code() == CloseCode::SlowConsumer {
            // The peer does not read, so only the notices about the queue are kept.
            let (notices, _) = self.detach(now, router, &leaving);
            self.replies = notices.into();
        } else {
            self.leave(now, router, &leaving);
        }
        self.end(now);
        Effect::Close(close)
    }

    /// Detaches the session. The messages in its outbox are sent before anything that is queued later.
    pub(super) fn leave(&mut self, now: Instant, router: &Router, leaving: &Leaving<'_>) {
        let (notices, frames) = self.detach(now, router, leaving);
        self.replies.extend(notices.into_iter().chain(frames));
    }

    /// Detaches the session, if there is one: it ends, or a resumable one is away. Returns notices about its queue, and the
    /// messages in it.
    pub(super) fn detach(&mut self, now: Instant, router: &Router, leaving: &Leaving<'_>) -> (Vec<Frame>, Vec<Frame>) {
        let (mut notices, mut frames) = (Vec::new(), Vec::new());
        self.give_up_renewal(now, router);
        if let Phase::Registered(session) = std::mem::replace(&mut self.phase, Phase::Unregistered) {
            let attachment = std::mem::take(&mut self.attachment);
            let taker = session.outbox().taker(attachment);
            if attachment != 0 && matches!(leaving.ending, Ending::Closed(_)) {
                self.release_reply();
                // Sent before the Close frame, and kept if the session goes on.
                self.take_resumable(now, (&session, attachment), usize::MAX, router, &mut frames);
            }
            let left = router.leave(now, &session, attachment, leaving.ending, self.proof_ends(now));
            self.forget_proof();
            match left {
                Left::Ended => self.log_left(&session, router.age(now, &session), leaving),
                Left::Away => {
                    self.log_away(&session, leaving);
                    return (notices, frames);
                }
                Left::Replaced => {
                    self.log_replaced(&session);
                    return (notices, frames);
                }
            }
            loop {
                let Some(taken) = taker.take(now, usize::MAX, &mut frames) else { break };
                self.count_notices(taken.lagging.is_some(), taken.dropped);
                notices.extend(queue_notices(taken.lagging, taken.dropped));
                // The subscription of a replay has ended, so it yields nothing. Messages can follow it in the queue.
                if taken.replay.is_none() {
                    break;
                }
            }
        }
        (notices, frames)
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.count_pause(now);
        self.phase = Phase::Ended;
        self.unregistered = None;
        self.verifying = None;
        self.fetching = None;
        self.pause = None;
        self.timers.clear();
    }
}
