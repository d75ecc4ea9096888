//! A source whose session is away may be registered on another node. The node that has the lease is asked, because it alone
//! knows: it ends such a session, and gives the lease up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{GivenUp, LeaseClaim, LeaseHolder, LeaseName, Leases, in_use};
use crate::router::Router;
use crate::router::backplane::Peer;
use crate::router::backplane::message::{LeaseGiven, LeaseOf, Message};

/// The latest time at which a session can have registered, in milliseconds: beyond it, times are not written.
const SINCE_MAX: u64 = 1 << 45;

impl<'a> From<&'a LeaseName> for LeaseOf<'a> {
    fn from(name: &'a LeaseName) -> Self {
        Self { user: name.user.as_deref(), source: &name.source }
    }
}

impl From<LeaseOf<'_>> for LeaseName {
    fn from(name: LeaseOf<'_>) -> Self {
        Self { user: name.user.map(Arc::from), source: Arc::from(name.source) }
    }
}

impl Router {
    /// Another node has a lease that is claimed here. It is asked once whether its session is away.
    pub(super) fn ask_holder(&self, leases: &Arc<Leases>, name: &LeaseName, claim: u64, holder: &LeaseHolder) {
        let is_asked = {
            let mut state = leases.state.lock();
            let Some(seek) = state.sought.get_mut(name).filter(|seek| seek.claim == claim) else { return };
            seek.asked.replace(holder.clone()).is_some()
        };
        // Noted before it is sent: the answer may be there at once.
        if is_asked || !self.say_to(&holder.node, &Message::AskLease { claim, lease: name.into() }) {
            leases.answer(name, claim, Err(in_use(holder.since)));
        }
    }

    /// A node claims a lease that this one has. Sessions that are away end, and the lease is given up unless there is another
    /// session.
    pub(in crate::router) fn lease_asked(&self, now: Instant, peer: &Arc<Peer>, claim: u64, lease: LeaseOf<'_>) {
        let answer = match self.give_up_lease(now, &LeaseName::from(lease)) {
            Ok(claims) => LeaseGiven::Up { claims },
            Err(since) => {
                let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                LeaseGiven::No { since_ms: u64::try_from(since.as_millis()).unwrap_or_default() }
            }
        };
        peer.send(&Message::Lease { claim, lease, answer });
    }

    /// Gives a lease up if no session of its source has a connection. Returns the last claim that is given up.
    ///
    /// # Errors
    /// Since when a session has the source.
    fn give_up_lease(&self, now: Instant, name: &LeaseName) -> Result<u64, SystemTime> {
        let sessions = || self.presence.of_source(name.user.as_ref(), &name.source);
        for session in sessions().iter().filter(|session| session.is_away()) {
            self.displace(now, session);
        }
        // A session that returned at this moment keeps its source, and one that registers gets it.
        match self.leases.as_ref().map_or(Err(0), |leases| leases.has(name)) {
            Err(claims) => Ok(claims),
            Ok(()) => Err(sessions().first().map_or_else(|| self.date(now), |session| session.since)),
        }
    }

    /// A node says whether it has given up a lease.
    pub(in crate::router) fn lease_told(
        &self,
        now: Instant,
        peer: &Peer,
        claim: u64,
        lease: LeaseOf<'_>,
        answer: LeaseGiven,
    ) {
        let Some(leases) = &self.leases else { return };
        let name = LeaseName::from(lease);
        let asked = {
            let state = leases.state.lock();
            let seek = state.sought.get(&name).filter(|seek| seek.claim == claim);
            seek.and_then(|seek| seek.asked.clone()).filter(|holder| &*holder.node == peer.node())
        };
        let Some(holder) = asked else { return };
        match answer {
            LeaseGiven::No { since_ms } => {
                let since = SystemTime::UNIX_EPOCH + Duration::from_millis(since_ms.min(SINCE_MAX));
                leases.answer(&name, claim, Err(in_use(Some(since))));
            }
            LeaseGiven::Up { claims } => {
                let given_up = Some(GivenUp { holder, claims });
                leases.keeper.take(LeaseClaim { id: claim, name, since: self.date(now), given_up });
            }
        }
    }

    /// A node that was asked for leases is lost: they run out by themselves.
    pub(in crate::router) fn leases_unanswered(&self, peer: &Peer) {
        let Some(leases) = &self.leases else { return };
        let unanswered: BTreeMap<LeaseName, (u64, LeaseHolder)> = {
            let state = leases.state.lock();
            let asked = state.sought.iter().filter_map(|(name, seek)| {
                let holder = seek.asked.clone().filter(|holder| &*holder.node == peer.node())?;
                Some((name.clone(), (seek.claim, holder)))
            });
            asked.collect()
        };
        for (name, (claim, holder)) in unanswered {
            leases.answer(&name, claim, Err(in_use(holder.since)));
        }
    }
}
