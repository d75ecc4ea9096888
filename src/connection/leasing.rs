//! [`Leasing`]: a Register of an exclusive source in a cluster, which waits for the lease of the source.
//!
//! The identity is verified by then. The connection is not read meanwhile, and its time to register stands still: the storage
//! of the cluster has a time of its own.

use std::task::{Context, Poll};
use std::time::Instant;

use super::register::Registering;
use super::timer::Timer;
use super::{Connection, Effect};
use crate::auth::Identity;
use crate::router::{LeaseHold, LeaseTicket, Router};
use wire::{ErrorCode, Refusal};

/// A registration that waits for a lease.
pub(super) struct Leasing {
    registering: Registering,
    identity: Identity,
    /// When the connection would have been closed.
    deadline: Option<Instant>,
    state: State,
}

enum State {
    Waits(LeaseTicket),
    Over(Result<LeaseHold, Refusal>),
}

impl Connection {
    /// Ready when a Register that waited for a lease can go on: then it wants [`super::Input::Leased`].
    #[inline]
    pub fn poll_lease(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.leasing.as_mut().map_or(Poll::Pending, |leasing| leasing.poll(cx))
    }

    /// Lets a Register wait for the lease of its source.
    pub(super) fn wait_for_lease(
        &mut self,
        now: Instant,
        registering: Registering,
        identity: Identity,
        router: &Router,
    ) {
        let ticket = router.seek_lease(now, &identity.principal, registering.source());
        self.heartbeat.not_read();
        let deadline = self.timers.get(Timer::Registration);
        self.timers.stop(Timer::Registration);
        self.leasing = Some(Box::new(Leasing { registering, identity, deadline, state: State::Waits(ticket) }));
    }

    /// Goes on with a Register.
    pub(super) fn leased(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let Leasing { registering, identity, deadline, state } = *self.leasing.take()?;
        if let Some(deadline) = deadline {
            self.timers.set(Timer::Registration, deadline);
        }
        match state {
            State::Waits(_) => None,
            State::Over(Ok(hold)) => self.attach(now, registering, identity, Some(hold), router),
            State::Over(Err(refusal)) if refusal.code == ErrorCode::UpstreamUnavailable => {
                self.refuse_unavailable(now, &registering, &refusal, router);
                None
            }
            State::Over(Err(refusal)) => {
                Some(self.refuse(now, &registering, Some(&identity.principal), &refusal, router))
            }
        }
    }
}

impl Leasing {
    #[cold]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Waits(ticket) = &mut self.state {
            let Poll::Ready(outcome) = ticket.poll(cx) else { return Poll::Pending };
            self.state = State::Over(outcome);
        }
        Poll::Ready(())
    }
}
