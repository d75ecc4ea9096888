//! How a session ends, and why. The order is a promise of docs/protocol.md: its will, `Left`, then the ends of its requests.

use std::sync::Arc;
use std::time::Instant;

use wire::CloseCode;

use crate::router::Router;
use crate::router::outbox::End;
use crate::router::presence::Change;
use crate::router::request::pending::Pending;
use crate::router::request::turn::Waiter;
use crate::router::session::Session;
use crate::telemetry::metrics::RequestOutcome;

/// Why a session ends, or why its connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `Unregister`, or the end of a handler inside the process.
    Unregistered,
    /// The client closed its connection with this code, if it gave one.
    ByPeer(Option<u16>),
    /// The connection ended without a Close frame.
    Lost,
    /// The broker closed the connection with this code.
    Closed(CloseCode),
    /// The peer took nothing for too long, and the broker closed its connection.
    Stalled,
    /// A reload removed its proof.
    Revoked,
    /// Its proof ended while it was away.
    ProofEnded,
    /// Its grace is over.
    GraceOver,
    /// What was kept for it while it was away went beyond its bounds.
    OverflowedAway,
    /// It was away, and others needed its place.
    Displaced,
    /// Its client returned, and messages that it has not received are no longer kept.
    NotResumed,
}

/// The status code with which a peer says that it has done what it wanted (RFC 6455, section 7.4.1).
const NORMAL: u16 = 1000;

/// The status code of a connection that ended without a Close frame.
const ABNORMAL: u16 = 1006;

impl Ending {
    /// Returns whether this leaves a resumable session away. Everything else ends it.
    pub(super) fn leaves_away(self) -> bool {
        match self {
            Self::Lost | Self::Stalled => true,
            // Without a code too, the client leaves.
            Self::ByPeer(code) => !matches!(code, None | Some(NORMAL)),
            Self::Closed(code) => match code {
                CloseCode::GoingAway | CloseCode::Restart | CloseCode::HeartbeatMissed => true,
                CloseCode::Protocol
                | CloseCode::InvalidUtf8
                | CloseCode::Policy
                | CloseCode::TooLarge
                | CloseCode::Unauthenticated
                | CloseCode::Forbidden
                | CloseCode::SourceInUse
                | CloseCode::NotRegistered
                | CloseCode::Replaced
                | CloseCode::Kicked
                | CloseCode::SlowConsumer => false,
            },
            Self::Unregistered
            | Self::Revoked
            | Self::ProofEnded
            | Self::GraceOver
            | Self::OverflowedAway
            | Self::Displaced
            | Self::NotResumed => false,
        }
    }

    /// Returns whether the will of the session is published: docs/protocol.md, "Wills".
    fn publishes_will(self) -> bool {
        match self {
            Self::Unregistered | Self::Revoked | Self::Closed(CloseCode::Restart) => false,
            Self::ByPeer(code) => !matches!(code, None | Some(NORMAL)),
            Self::Lost
            | Self::Closed(_)
            | Self::Stalled
            | Self::ProofEnded
            | Self::GraceOver
            | Self::OverflowedAway
            | Self::Displaced
            | Self::NotResumed => true,
        }
    }

    /// The code with which its connection was closed, if that ended the session.
    pub(super) fn code(self) -> Option<u16> {
        match self {
            Self::ByPeer(code) => code,
            Self::Closed(code) => Some(code.code()),
            Self::Stalled => Some(CloseCode::SlowConsumer.code()),
            Self::Revoked | Self::ProofEnded => Some(CloseCode::Unauthenticated.code()),
            Self::Lost => Some(ABNORMAL),
            Self::Unregistered | Self::GraceOver | Self::OverflowedAway | Self::Displaced | Self::NotResumed => None,
        }
    }

    /// Why, for the log.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Unregistered => "unregistered",
            Self::ByPeer(_) => "closed by the application",
            Self::Lost => "the connection was lost",
            Self::Closed(code) => code.reason(),
            Self::Stalled => "nothing was taken for too long",
            Self::Revoked => "its proof was removed",
            Self::ProofEnded => "its proof ended while it was away",
            Self::GraceOver => "it did not return within resume.grace",
            Self::OverflowedAway => "what was kept for it while it was away exceeded its bounds",
            Self::Displaced => "it was away, and another session took its place",
            Self::NotResumed => "it returned, and what it had not received was no longer kept",
        }
    }
}

/// The requests of a session that has ended, which end after its will.
pub(super) struct Rest {
    /// Those that waited for it, an ordered handler.
    pub(super) waited: Vec<Waiter>,
    /// Those that it was given.
    pub(super) given: Vec<Arc<Pending>>,
    /// Those that it sent.
    pub(super) asked: Vec<Arc<Pending>>,
}

impl Router {
    /// Ends the registration of a session inside the process.
    pub fn detach(&self, now: Instant, session: &Arc<Session>) {
        self.end_session(now, session, Ending::Unregistered);
    }

    /// Ends a session's registration: its subscriptions end, its will and `Left` are published, what it asked is withdrawn, and
    /// what it was given fails.
    pub(super) fn end_session(&self, now: Instant, session: &Arc<Session>, ending: Ending) {
        tracing::debug!(source = session.source(), session = %session.id, ending = ending.words(), "a session ends");
        // The others are not recorded when they begin either. A call over HTTP ends after one message.
        let is_application = session.is_application();
        if is_application {
            self.note_closed(now, session, ending);
        }
        self.forget_tokens(session);
        let (subscriptions, will, lease, given, asked) = {
            let mut holds = session.holds.lock();
            holds.close();
            let asked: Vec<_> = holds.asked.values().cloned().collect();
            (
                std::mem::take(&mut holds.subscriptions),
                holds.will.take(),
                holds.lease.take(),
                holds.given_in_order(),
                asked,
            )
        };
        // From here on nothing is pushed to it, and it is given nothing.
        session.outbox().end(End::Detached);
        let waited = session.turns.close(&self.requests);
        for subscription in &subscriptions {
            self.unlist(now, subscription);
        }
        if session.is_call() {
            self.calls.remove(session);
        } else if is_application {
            let most = self.policy.limits().ended_sessions;
            self.ended.insert(self.date(now), session, ending, most);
            self.presence.leave(session);
        }
        let rest = Rest { waited, given, asked };
        match will.filter(|_| ending.publishes_will() && !self.ends_by_drain(ending)) {
            Some(will) => self.publish_will(now, session, &will, rest),
            // As a will, `Left` does not overtake what the session has sent.
            None if is_application && session.commits.any() => self.end_after_commits(now, session, rest),
            None => self.end_rest(now, session, rest),
        }
        // Only now may another node have its source.
        drop(lease);
    }

    /// Does what follows the will of a session that has ended: its `Left`, then the ends of its requests.
    pub(super) fn end_rest(&self, now: Instant, session: &Arc<Session>, rest: Rest) {
        if session.is_application() {
            self.tell_presence(now, session, Change::Left);
        }
        self.end_requests(now, session, rest);
        debug_assert!(session.holds.lock().is_idle(), "a session that has gone holds no request");
        debug_assert_eq!((session.busy(), session.turns.len(), session.turns.waiting()), (0, 0, 0));
    }

    /// Ends the requests of a session that has ended, here or on the node where it is now.
    pub(super) fn end_requests(&self, now: Instant, session: &Arc<Session>, rest: Rest) {
        let Rest { waited, given, asked } = rest;
        for (pending, handler) in waited {
            self.handler_left(now, &pending, &handler);
        }
        for pending in given {
            self.handler_gone(now, &pending, session);
        }
        for pending in asked {
            if let Some(gather) = &pending.gather {
                gather.cancel();
            }
            if self.withdraw(now, &pending, "the requester left") {
                self.metrics.requests.count(RequestOutcome::Cancelled);
            }
        }
    }

    /// Ends the session with the longest queue, in bytes, because all queues together use too much memory. Its connection
    /// closes it. Returns `false` if nothing waits for any session.
    pub fn end_longest_queue(&self) -> bool {
        let mut longest: Option<(usize, Arc<Session>)> = None;
        self.presence.each(|session| {
            let bytes = session.outbox().bytes_held();
            // Of two, the older session, so that the order of the map does not decide.
            let is_longer =
                longest.as_ref().is_none_or(|(most, other)| (bytes, other.number) > (*most, session.number));
            if bytes > 0 && is_longer {
                longest = Some((bytes, Arc::clone(session)));
            }
        });
        if let Some((_, session)) = &longest {
            session.outbox().discard(End::Longest);
        }
        longest.is_some()
    }
}
