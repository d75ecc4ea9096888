//! How a session ends, and why. The order is part of the protocol: its will, `Left`, then the ends of its requests.

use std::sync::Arc;
use std::time::Instant;

use wire::CloseCode;

use crate::router::Router;
use crate::router::outbox::End;
use crate::router::presence::Change;
use crate::router::session::{Role, Session};

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

impl Ending {
    /// Returns whether this leaves a resumable session away. Everything else ends it.
    pub(super) fn leaves_away(self) -> bool {
        match self {
            Self::Lost | Self::Stalled => true,
            // 1000, or no code: the client leaves.
            Self::ByPeer(code) => !matches!(code, None | Some(1000)),
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

impl Router {
    /// Ends the registration of a session inside the process.
    pub fn detach(&self, now: Instant, session: &Arc<Session>) {
        self.end_session(now, session, Ending::Unregistered);
    }

    /// Ends a session's registration: its subscriptions end, `Left` is published, what it asked is withdrawn, and what it was
    /// given fails.
    pub(super) fn end_session(&self, now: Instant, session: &Arc<Session>, ending: Ending) {
        tracing::debug!(source = session.source(), session = %session.id, ending = ending.words(), "a session ends");
        self.forget_tokens(session);
        let (subscriptions, given, asked) = {
            let mut holds = session.holds.lock();
            holds.close();
            let asked: Vec<_> = holds.asked.values().cloned().collect();
            (std::mem::take(&mut holds.subscriptions), holds.given_in_order(), asked)
        };
        // From here on nothing is pushed to it, and it is given nothing.
        session.outbox().end(End::Detached);
        let waited = session.turns.close(&self.requests);
        for subscription in &subscriptions {
            self.unlist(now, subscription);
        }
        if session.role != Role::Adapter {
            self.presence.leave(session);
            self.tell_presence(now, session, Change::Left);
        }
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
            self.withdraw(now, &pending, "the requester left");
        }
        debug_assert!(session.holds.lock().is_idle(), "a session that has gone holds no request");
        debug_assert_eq!((session.busy(), session.turns.len(), session.turns.waiting()), (0, 0, 0));
    }
}
