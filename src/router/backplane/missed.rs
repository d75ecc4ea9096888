//! [`MissedValues`]: values that are in the bucket and that this node may not have, because there was no link to the peer that has
//! put them there.
//!
//! From its snapshot on, a peer counts this node as live, and tells publishers that every live node has their values. So a
//! subscription that is to receive retained values waits from then on until the bucket was read. The wait has a bound: without
//! JetStream, subscriptions get what this node has.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use wire::BROKER;
use wire::command::{Retained, Role as Wanted, Subscribe};

use super::Peer;
use crate::router::Router;
use crate::router::history::{Found, LookTicket};
use crate::router::session::{Role, Session};

/// What has to be read from the bucket.
#[derive(Default)]
pub(super) struct MissedValues {
    /// Told when the bucket has to be read on.
    notify: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Something reads the bucket. Otherwise nothing waits for that.
    is_read: bool,
    /// How often there was something to read.
    missed: u64,
    /// The peers whose links began, and how often that was by then. A read that begins later has what they put there before.
    due: BTreeMap<Arc<str>, u64>,
    /// The subscriptions that wait.
    waiting: Vec<oneshot::Sender<Found>>,
    /// Until when.
    until: Option<Instant>,
}

impl State {
    /// Takes the subscriptions that need not wait any more.
    fn ready(&mut self) -> Vec<oneshot::Sender<Found>> {
        if !self.due.is_empty() {
            return Vec::new();
        }
        self.until = None;
        take(&mut self.waiting)
    }
}

fn settle(ready: Vec<oneshot::Sender<Found>>) {
    for waiting in ready {
        // Its session may have ended.
        waiting.send(Found::values()).ok();
    }
}

impl Router {
    /// Told when the bucket has to be read on: a peer can have put values there that did not arrive.
    pub fn values_missed(&self) -> Option<&Notify> {
        self.cluster.as_ref().map(|cluster| &cluster.missed.notify)
    }

    /// What a read of the bucket that begins now will have: [`Router::values_read`] gets it when the read has ended well.
    pub fn begin_read_of_values(&self) -> u64 {
        let Some(cluster) = &self.cluster else { return 0 };
        let mut state = cluster.missed.state.lock();
        state.is_read = true;
        state.missed
    }

    /// The bucket was read to its end. `begun`: what [`Router::begin_read_of_values`] returned.
    pub fn values_read(&self, begun: u64) {
        let Some(cluster) = &self.cluster else { return };
        let ready = {
            let mut state = cluster.missed.state.lock();
            state.due.retain(|_, missed| *missed > begun);
            state.ready()
        };
        settle(ready);
    }

    /// A link has ended, or a peer says that there is something to read.
    pub(super) fn note_values_missed(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.missed.state.lock().missed += 1;
            cluster.missed.notify.notify_one();
        }
    }

    /// The link to a peer begins: what it has put into the bucket before has to be read before anybody subscribes.
    pub(super) fn values_due(&self, peer: &Peer) {
        let Some(cluster) = &self.cluster else { return };
        {
            let mut state = cluster.missed.state.lock();
            state.missed += 1;
            let missed = state.missed;
            state.due.insert(Arc::clone(peer.name()), missed);
        }
        cluster.missed.notify.notify_one();
    }

    /// A peer is lost. Its values are read when its link begins anew; until then it does not count this node as live.
    pub(super) fn values_not_due(&self, peer: &Peer) {
        let Some(cluster) = &self.cluster else { return };
        let ready = {
            let mut state = cluster.missed.state.lock();
            state.due.remove(peer.node());
            state.ready()
        };
        settle(ready);
    }

    /// Lets a subscription wait, if it is to receive retained values that this node may not have.
    pub(in crate::router) fn wait_for_values(
        &self,
        now: Instant,
        session: &Session,
        wanted: &Subscribe,
    ) -> Option<LookTicket> {
        let cluster = self.cluster.as_ref()?;
        let receives = matches!(wanted.role, Wanted::Subscriber) && wanted.retained != Retained::Never;
        // What the broker itself publishes is not retained, and an adapter need not wait: it is there before any session.
        if !receives || session.role == Role::Adapter || wanted.pattern.channel.as_deref() == Some(BROKER) {
            return None;
        }
        let (ticket, until) = {
            let mut state = cluster.missed.state.lock();
            if !state.is_read || state.due.is_empty() {
                return None;
            }
            let until = *state.until.get_or_insert(now + self.policy.limits().history.timeout);
            let (waiting, ticket) = oneshot::channel();
            state.waiting.push(waiting);
            (ticket, until)
        };
        self.requests.wake_before(until);
        Some(LookTicket::new(ticket))
    }

    /// When [`Router::expire_values`] has to be called.
    pub(in crate::router) fn values_deadline(&self) -> Option<Instant> {
        self.cluster.as_ref()?.missed.state.lock().until
    }

    /// Lets subscriptions wait no longer for a bucket that cannot be read, until the next link begins.
    pub(in crate::router) fn expire_values(&self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        let ready = {
            let mut state = cluster.missed.state.lock();
            if state.until.is_none_or(|until| now < until) {
                return;
            }
            state.due.clear();
            state.ready()
        };
        tracing::warn!(
            subscriptions = ready.len(),
            "the retained values of the cluster cannot be read: subscriptions get those that this node has"
        );
        settle(ready);
    }
}
