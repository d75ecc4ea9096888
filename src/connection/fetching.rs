//! [`Fetching`]: a Register that waits for its session, which another node of the cluster has.
//!
//! The connection is not read meanwhile. When the session is here, or does not continue, the registration goes on as on one node.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::register::Registering;
use super::timer::Timer;
use super::{Connection, Effect};
use crate::auth::Identity;
use crate::router::{Fetched, MoveTicket, ResumeReason, Router};

/// How long a Register waits for a session. Another node that is being lost can delay it by 2 s.
pub(super) const FETCH_MAX: Duration = Duration::from_secs(4);

/// A Register that waits for its session.
pub(super) struct Fetching {
    pub(super) ticket: MoveTicket,
    pub(super) registering: Registering,
    pub(super) identity: Identity,
    pub(super) outcome: Option<Fetched>,
}

impl Connection {
    /// Ready when a Register that waited for its session can go on: then it wants [`super::Input::Fetched`].
    #[inline]
    pub fn poll_fetch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(fetching) = &mut self.fetching else { return Poll::Pending };
        let Poll::Ready(outcome) = fetching.ticket.poll(cx) else { return Poll::Pending };
        fetching.outcome = Some(outcome);
        Poll::Ready(())
    }

    /// Lets a Register wait.
    pub(super) fn wait_for_session(&mut self, now: Instant, fetching: Fetching) {
        self.fetching = Some(Box::new(fetching));
        self.timers.set(Timer::Fetch, now + FETCH_MAX);
        self.heartbeat.not_read();
    }

    /// Goes on with a Register that waited, also if it has waited for too long.
    pub(super) fn fetched(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        self.timers.stop(Timer::Fetch);
        let Fetching { mut registering, identity, outcome, .. } = *self.fetching.take()?;
        registering.fetched = Some(outcome.unwrap_or(Fetched::Not(ResumeReason::Unknown)));
        self.attach(now, registering, identity, None, router)
    }
}
