//! A source whose session is away may be registered on another node. The node that has the lease is asked, because it alone
//! knows: it ends such a session, and gives the lease up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{LeaseClaim, LeaseHolder, LeaseName, Leases, in_use};
use crate::router::Router;
use crate::router::backplane::Peer;
use crate::router::backplane::message::{LeaseOf, Message};

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
    pub(super) fn ask_holder(&self, leases: &Arc<Leases>, name: &LeaseName, claim: u64, holder: LeaseHolder) {
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
        let name = LeaseName::from(lease);
        let since = self.give_up_lease(now, &name);
        let since_ms = since.map(|since| {
            let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or_default()
        });
        peer.send(&Message::Lease { claim, lease, since_ms });
    }

    /// Gives a lease up if no session of its source has a connection. Returns since when there is one otherwise.
    fn give_up_lease(&self, now: Instant, name: &LeaseName) -> Option<SystemTime> {
        let sessions = || self.presence.of_source(name.user.as_ref(), &name.source);
        for session in sessions().iter().filter(|session| session.is_away()) {
            self.displace(now, session);
        }
        // One that returned at this moment keeps its source.
        if let Some(session) = sessions().iter().find(|session| session.holds.lock().lease.is_some()) {
            return Some(session.since);
        }
        // A connection may be about to register with the lease.
        if let Some(leases) = &self.leases
            && leases.lose(name, None)
        {
            self.end_leaseless(now, name);
        }
        None
    }

    /// A node says whether it has given up a lease; it has not if its session registered at some time.
    pub(in crate::router) fn lease_told(
        &self,
        now: Instant,
        peer: &Peer,
        claim: u64,
        lease: LeaseOf<'_>,
        since_ms: Option<u64>,
    ) {
        let Some(leases) = &self.leases else { return };
        let name = LeaseName::from(lease);
        let was_asked = {
            let state = leases.state.lock();
            let seek = state.sought.get(&name).filter(|seek| seek.claim == claim);
            seek.and_then(|seek| seek.asked.as_ref()).is_some_and(|holder| &*holder.node == peer.node())
        };
        if !was_asked {
            return;
        }
        match since_ms {
            Some(since_ms) => {
                let since = SystemTime::UNIX_EPOCH + Duration::from_millis(since_ms.min(SINCE_MAX));
                leases.answer(&name, claim, Err(in_use(Some(since))));
            }
            None => {
                let given_up_by = Some(Arc::from(peer.node()));
                leases.keeper.take(LeaseClaim { id: claim, name, since: self.date(now), given_up_by });
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
