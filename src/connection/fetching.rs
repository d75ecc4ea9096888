//! [`Fetching`]: a Register that waits for its session, which another node of the cluster has.
//!
//! The connection is not read meanwhile, and its time to register stands still: a large queue takes its time. When the session
//! is here, or does not continue, the registration goes on as on one node.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::register::Registering;
use super::timer::Timer;
use super::{Connection, Effect};
use crate::auth::Identity;
use crate::router::{Fetched, MoveTicket, ResumeReason, Router};

/// How long a Register waits while nothing of its session arrives. Another node that is being lost can delay it by 2 s.
pub(super) const FETCH_MAX: Duration = Duration::from_secs(4);

/// How long it waits in all.
const FETCH_ALL_MAX: Duration = Duration::from_secs(30);

/// A Register that waits for its session.
pub(super) struct Fetching {
    pub(super) ticket: MoveTicket,
    pub(super) registering: Registering,
    pub(super) identity: Identity,
    pub(super) outcome: Option<Fetched>,
    /// How much of the session had arrived when it was last looked at.
    parts: u64,
    /// When it waits no longer, whatever arrives.
    until: Instant,
    /// When the connection would have been closed.
    registration: Option<Instant>,
}

impl Fetching {
    pub(super) fn new(now: Instant, ticket: MoveTicket, registering: Registering, identity: Identity) -> Self {
        let until = now + FETCH_ALL_MAX;
        Self { ticket, registering, identity, outcome: None, parts: 0, until, registration: None }
    }
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
    pub(super) fn wait_for_session(&mut self, now: Instant, mut fetching: Fetching) {
        fetching.registration = self.timers.get(Timer::Registration);
        self.timers.stop(Timer::Registration);
        self.fetching = Some(Box::new(fetching));
        self.timers.set(Timer::Fetch, now + FETCH_MAX);
        self.heartbeat.not_read();
    }

    /// The time is over in which something of the session should have arrived. Goes on without the session if nothing has.
    pub(super) fn fetch_is_late(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let fetching = self.fetching.as_mut()?;
        let parts = fetching.ticket.parts();
        if parts > fetching.parts && now < fetching.until {
            fetching.parts = parts;
            self.timers.set(Timer::Fetch, (now + FETCH_MAX).min(fetching.until));
            return None;
        }
        self.fetched(now, router)
    }

    /// Goes on with a Register that waited.
    pub(super) fn fetched(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        self.timers.stop(Timer::Fetch);
        let Fetching { mut registering, identity, outcome, registration, .. } = *self.fetching.take()?;
        if let Some(deadline) = registration {
            self.timers.set(Timer::Registration, deadline);
        }
        registering.fetched = Some(outcome.unwrap_or(Fetched::Not(ResumeReason::Unknown)));
        self.attach(now, registering, identity, None, router)
    }
}
