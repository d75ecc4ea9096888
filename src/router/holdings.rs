//! [`Holdings`]: what a session has, and what ends with it: its subscriptions, its open requests, its will and its lease.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::router::ended::EndedSubscriptions;
use crate::router::ids::Serial;
use crate::router::index::Subscription;
use crate::router::outbox::PushError;
use crate::router::request::pending::Pending;
use crate::router::session::Session;
use crate::router::{LeaseHold, RequestId};

/// The subscriptions and open requests of a session. They end with it.
#[derive(Default)]
pub(super) struct Holdings {
    pub(super) subscriptions: Vec<Arc<Subscription>>,
    /// Requests that the session sent. A gather has one entry for each handler.
    pub(super) asked: BTreeMap<Serial, Arc<Pending>>,
    /// Requests that the session handles, by the ids by which it knows them. The router makes these, so a client cannot choose
    /// ids that collide, and the fast hash is safe.
    given: HashMap<RequestId, Arc<Pending>, foldhash::fast::FixedState>,
    /// The event that is published when the session ends. It was checked.
    pub(super) will: Option<Box<str>>,
    /// The lease of its source, if that is exclusive in a cluster.
    pub(super) lease: Option<LeaseHold>,
    /// Why an operator has closed the session.
    pub(super) kicked: Option<Arc<str>>,
    /// Subscriptions that have ended. `None`: none has.
    pub(super) ended: Option<Box<EndedSubscriptions>>,
    gone: bool,
}

impl Holdings {
    /// Returns those of a session that has just registered, with its will.
    pub(super) fn new(will: Option<Box<str>>) -> Self {
        Self { will, ..Self::default() }
    }

    /// Returns the requests that the session handles, in the order in which they were sent.
    pub(super) fn given_in_order(&self) -> Vec<Arc<Pending>> {
        let mut given: Vec<_> = self.given.values().cloned().collect();
        given.sort_unstable_by_key(|pending| pending.serial);
        given
    }

    /// Returns up to `most` of the requests that the session handles.
    pub(super) fn some_given(&self, most: usize) -> impl Iterator<Item = &Arc<Pending>> {
        self.given.values().take(most)
    }

    /// Returns whether no request is open, neither sent nor handled.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.given.is_empty()
    }

    /// Returns whether the session has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.gone
    }

    /// Marks the session as ended if no request is open. Returns whether it has ended.
    pub(super) fn close_if_idle(&mut self) -> bool {
        self.gone |= self.is_idle();
        self.gone
    }

    /// Marks the session as ended. It accepts no further requests.
    pub(super) fn close(&mut self) {
        self.gone = true;
    }
}

impl Session {
    /// Adds a request that this session sent.
    ///
    /// # Errors
    /// [`PushError::Closed`] if the session has ended.
    pub(super) fn ask(&self, pending: &Arc<Pending>) -> Result<(), PushError> {
        let mut holds = self.holds.lock();
        if holds.gone {
            return Err(PushError::Closed);
        }
        holds.asked.insert(pending.serial, Arc::clone(pending));
        Ok(())
    }

    /// Removes a request that this session sent.
    pub(super) fn forget(&self, request: Serial) {
        self.holds.lock().asked.remove(&request);
    }

    /// Adds a request for this session to handle, under the id by which it knows it.
    ///
    /// # Errors
    /// [`PushError::Closed`] if the session has ended.
    pub(super) fn take(&self, id: RequestId, pending: &Arc<Pending>) -> Result<(), PushError> {
        let mut holds = self.holds.lock();
        if holds.gone {
            return Err(PushError::Closed);
        }
        let before = holds.given.insert(id, Arc::clone(pending));
        debug_assert!(before.is_none(), "a session is given a request once");
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.load.note(self.number);
        Ok(())
    }

    /// Removes a request that this session handled.
    pub(super) fn release(&self, request: RequestId) {
        let mut holds = self.holds.lock();
        let released = holds.given.remove(&request);
        debug_assert!(released.is_some(), "a handler holds the request that it was given");
        self.busy.fetch_sub(1, Ordering::Relaxed);
        self.load.note(self.number);
    }

    /// Returns a request that it was given and has not answered.
    pub(super) fn given(&self, request: RequestId) -> Option<Arc<Pending>> {
        self.holds.lock().given.get(&request).cloned()
    }
}
