//! How busy the handlers of other nodes are: each node announces how many requests its handlers have, now and then.
//!
//! A peer is not told of the requests that it gave out itself, because it counts them the moment it gives them. So what a
//! node adds up is never more than what its handler has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::message::{Id, Message};
use super::peer::Peer;
use super::remote::Remote;
use crate::router::Router;
use crate::router::session::Session;

/// How many loads one message names at most.
const IN_ONE: usize = 1024;

/// How many requests a handler has, beside those that the receiver of this gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) struct Load {
    pub(in crate::router) session: Id,
    pub(in crate::router) requests: u32,
}

/// The numbers of the handlers of this node whose load has changed since it was announced.
#[derive(Default)]
pub(in crate::router) struct ChangedLoads(Mutex<BTreeSet<u64>>);

impl ChangedLoads {
    fn take(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Notes that the load of one session has changed, once it is a handler in a cluster.
#[derive(Default)]
pub(in crate::router) struct LoadNote {
    is_noted: AtomicBool,
    changed: OnceLock<Arc<ChangedLoads>>,
}

impl LoadNote {
    /// From now on changes are noted here.
    fn note_in(&self, changed: &Arc<ChangedLoads>) {
        self.changed.get_or_init(|| Arc::clone(changed));
    }

    /// The load of the session with this number has changed.
    #[inline]
    pub(in crate::router) fn note(&self, number: u64) {
        if let Some(changed) = self.changed.get()
            && !self.is_noted.swap(true, Ordering::AcqRel)
        {
            changed.0.lock().insert(number);
        }
    }
}

impl Peer {
    /// It says how busy handlers are.
    pub(super) fn set_loads(&self, loads: &[Load]) {
        for load in loads {
            if let Some(stand_in) = self.stand_in(load.session)
                && let Some(remote) = stand_in.remote()
            {
                remote.set_load(load.requests);
            }
        }
    }
}

impl Router {
    /// A session of this node is a handler: from now on, its load is announced.
    pub(super) fn watch_load(&self, session: &Session) {
        if let Some(cluster) = &self.cluster {
            session.load.note_in(&cluster.loads);
            if session.busy() > 0 {
                session.load.note(session.number);
            }
        }
    }

    /// Tells the peers how busy handlers are, if that has changed since the last call. To be called every 500 ms.
    pub fn announce_loads(&self) {
        let Some(cluster) = &self.cluster else { return };
        let changed = cluster.loads.take();
        if changed.is_empty() {
            return;
        }
        let peers = cluster.peers.load();
        let mut loads: Vec<Vec<Load>> = peers.iter().map(|_| Vec::new()).collect();
        for session in cluster.announced.sessions(&changed) {
            // Before the count, so that a change during it is noted again.
            session.load.is_noted.store(false, Ordering::Release);
            let (all, by_peer) = requests_of(&session);
            for (peer, loads) in peers.iter().zip(&mut loads) {
                let own = by_peer.get(&Arc::as_ptr(peer)).copied().unwrap_or_default();
                let requests = u32::try_from(all.saturating_sub(own)).unwrap_or(u32::MAX);
                loads.push(Load { session: *session.id.as_bytes(), requests });
            }
        }
        for (peer, loads) in peers.iter().zip(&loads) {
            for some in loads.chunks(IN_ONE) {
                peer.send(&Message::Loads(some.to_vec()));
            }
        }
    }
}

/// How many requests a session has, and how many of them sessions of each peer asked.
fn requests_of(session: &Session) -> (usize, BTreeMap<*const Peer, usize>) {
    let holds = session.holds.lock();
    let mut by_peer = BTreeMap::new();
    let mut all = 0;
    for pending in holds.some_given(usize::MAX) {
        all += 1;
        if let Some(remote) = pending.asker.remote() {
            *by_peer.entry(Arc::as_ptr(remote.peer())).or_default() += 1;
        }
    }
    (all, by_peer)
}

impl Session {
    /// The number of requests that it was given and has not answered, as far as this node knows.
    pub(in crate::router) fn load(&self) -> usize {
        self.busy() + self.remote().map_or(0, Remote::load)
    }
}
