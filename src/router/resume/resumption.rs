//! [`Resumption`]: what a client is told of its wish to resume, or to be resumable.

use std::time::Duration;

use zeroize::Zeroizing;

use super::line::Allowances;
use crate::router::commit::CommitTicket;
use crate::router::outbox::Unresumable;
use crate::telemetry::metrics::ResumeOutcome;

/// What a client is told of its wish to resume, or to be resumable.
pub enum Resumption {
    /// Nothing: it did not ask.
    NotAsked,
    /// No session is resumable. If it named one, that is not known.
    Off {
        /// Why its session does not continue.
        reason: Option<ResumeReason>,
    },
    /// A resumable session has begun.
    Begun {
        /// With what it can continue.
        ticket: ResumeTicket,
        /// Why another one does not continue, if the client named one.
        reason: Option<ResumeReason>,
        /// The end of that one, if its will waits for the disk: it precedes the reply.
        ending: Option<CommitTicket>,
    },
    /// The session continues.
    Resumed {
        /// With what it can continue again.
        ticket: ResumeTicket,
        /// How many messages are sent again.
        replayed: u64,
        /// How many messages of the client were taken in.
        received: u64,
        /// How much of its rates it has used.
        allowances: Option<Allowances>,
    },
}

impl Resumption {
    /// What became of the wish to continue a session, if there was one.
    pub(super) fn outcome(&self) -> Option<ResumeOutcome> {
        match self {
            Self::NotAsked => None,
            Self::Off { reason } | Self::Begun { reason, .. } => reason.map(ResumeReason::outcome),
            Self::Resumed { .. } => Some(ResumeOutcome::Resumed),
        }
    }
}

/// With what a session can continue.
pub struct ResumeTicket {
    /// The token.
    pub token: Zeroizing<String>,
    /// For how long after the loss of its connection.
    pub grace: Duration,
}

/// Why a session does not continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeReason {
    /// The token was never issued here, or its session has ended.
    Unknown,
    /// What was kept for it while it was away went beyond its bounds.
    Overflowed,
    /// It has another source, principal or permissions.
    Identity,
    /// The token was used.
    Replaced,
    /// The client has received more than was sent.
    Ahead,
    /// A message that it has not received is no longer kept.
    TooFar,
}

impl ResumeReason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Overflowed => "OVERFLOWED",
            Self::Identity => "IDENTITY",
            Self::Replaced => "REPLACED",
            Self::Ahead => "AHEAD",
            Self::TooFar => "TOO_FAR",
        }
    }

    fn outcome(self) -> ResumeOutcome {
        match self {
            Self::Unknown => ResumeOutcome::Unknown,
            Self::Overflowed => ResumeOutcome::Overflowed,
            Self::Identity => ResumeOutcome::Identity,
            Self::Replaced => ResumeOutcome::Replaced,
            Self::Ahead => ResumeOutcome::Ahead,
            Self::TooFar => ResumeOutcome::TooFar,
        }
    }
}

impl From<Unresumable> for ResumeReason {
    fn from(why: Unresumable) -> Self {
        match why {
            Unresumable::Ahead => Self::Ahead,
            Unresumable::TooFar => Self::TooFar,
        }
    }
}
