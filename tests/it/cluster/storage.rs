//! [`Storage`]: what nodes in one thread keep in place of JetStream.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde_json::Value;
use switchboard::router::{
    Batch, CommitQueue, LeaseAnswer, LeaseClaim, LeaseHolder, LeaseKeeper, LeaseName, LoggedValue, Position, Router,
    SessionId, ValueOutcome,
};
use switchboard::store::history::{Change, Place};
use wire::{ErrorCode, Refusal};

/// What all nodes see.
#[derive(Default)]
pub(super) struct Storage {
    /// The node that has a lease, by which claim, and since when.
    leases: Mutex<HashMap<LeaseName, (String, u64, SystemTime)>>,
    /// The last value of each place, or that it was cleared, by revision.
    values: Mutex<BTreeMap<u64, Change>>,
    /// Where the event is in its log that left the last value of a place.
    positions: Mutex<BTreeMap<Place, Position>>,
    revisions: AtomicU64,
    is_away: AtomicBool,
}

/// Values that were put, of which the router is not told yet.
pub(super) struct Put {
    batch: Batch,
    revisions: Option<Vec<u64>>,
}

impl Storage {
    /// Whether it answers.
    pub(super) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    /// The node that has the lease of a source.
    pub(super) fn holder(&self, user: &str, source: &str) -> Option<String> {
        let name = LeaseName { user: Some(user.into()), source: source.into() };
        self.leases.lock().get(&name).map(|(node, ..)| node.clone())
    }

    /// Puts what the next event of a queue needs. `None`: there is no event.
    pub(super) fn begin_put(&self, router: &Router, now: Instant, queue: &CommitQueue) -> Option<Put> {
        let event = queue.receive(Duration::ZERO).ok()?;
        let batch = router.plan(now, vec![event]);
        let put = |change: &Change| self.put(&mut self.values.lock(), change.clone());
        let revisions = (!self.is_away.load(Ordering::SeqCst)).then(|| batch.changes().iter().map(put).collect());
        Some(Put { batch, revisions })
    }

    fn put(&self, values: &mut BTreeMap<u64, Change>, change: Change) -> u64 {
        values.retain(|_, other| place(other) != place(&change));
        let revision = self.revisions.fetch_add(1, Ordering::SeqCst) + 1;
        values.insert(revision, change);
        revision
    }

    /// Puts the value of an event in a log, unless that of a later one is there. `is_again`: the event was sent before.
    pub(super) fn put_logged(&self, logged: LoggedValue, is_again: bool) -> ValueOutcome {
        if self.is_away.load(Ordering::SeqCst) {
            return ValueOutcome::Failed(Refusal::new(ErrorCode::StorageUnavailable, "the storage is away"));
        }
        let LoggedValue { place, value, position } = logged.clone();
        let mut values = self.values.lock();
        let mut positions = self.positions.lock();
        let is_later = |last: &Position| last.epoch == position.epoch && last.offset > position.offset;
        if positions.get(&place).is_some_and(is_later) {
            return ValueOutcome::Superseded;
        }
        positions.insert(place.clone(), position);
        let change = value.map_or_else(|| Change::Clear(place.clone()), |value| Change::Keep(place.clone(), value));
        let revision = self.put(&mut values, change);
        match is_again {
            true => ValueOutcome::Again(Box::new(logged), revision),
            false => ValueOutcome::Put(revision),
        }
    }

    /// Tells a router what became of an event.
    pub(super) fn end_put(router: &Router, now: Instant, put: Put) {
        let refusal = Refusal::new(ErrorCode::StorageUnavailable, "the storage is away");
        router.finish_revised(now, put.batch, put.revisions.as_deref().ok_or(&refusal));
    }

    /// Lets a router take over all values.
    pub(super) fn read(&self, router: &Router, now: Instant) {
        for (revision, change) in &*self.values.lock() {
            match change {
                Change::Keep(place, value) => router.take_over_value(now, place, Some(value), *revision),
                Change::Clear(place) => router.take_over_value(now, place, None, *revision),
                Change::Append { .. } | Change::Trim { .. } | Change::Forget(_) => {}
            }
        }
    }

    /// The payloads of all values, in their order.
    pub(super) fn values(&self) -> Vec<Value> {
        let text = |change: &Change| match change {
            Change::Keep(_, value) => Some(serde_json::from_str::<Value>(&value.text).unwrap()["data"].clone()),
            _ => None,
        };
        let mut found: Vec<_> = self.values.lock().values().filter_map(text).collect();
        found.sort_by_key(ToString::to_string);
        found
    }

    fn claim(&self, node: &str, claim: &LeaseClaim) -> LeaseAnswer {
        if self.is_away.load(Ordering::SeqCst) {
            return LeaseAnswer::Unavailable;
        }
        let mut leases = self.leases.lock();
        match leases.get(&claim.name) {
            Some((holder, by, since)) if holder != node && !is_given_up(claim, holder, *by) => {
                let (node, incarnation) = (holder.as_str().into(), [0; 16]);
                LeaseAnswer::Held(LeaseHolder { node, incarnation, since: Some(*since) })
            }
            _ => {
                leases.insert(claim.name.clone(), (node.to_owned(), claim.id, claim.since));
                LeaseAnswer::Taken
            }
        }
    }
}

fn is_given_up(claim: &LeaseClaim, holder: &str, by: u64) -> bool {
    claim.given_up.as_ref().is_some_and(|given_up| *given_up.holder.node == *holder && by <= given_up.claims)
}

fn place(change: &Change) -> Option<&Place> {
    match change {
        Change::Keep(place, _) | Change::Clear(place) => Some(place),
        Change::Append { .. } | Change::Trim { .. } | Change::Forget(_) => None,
    }
}

/// The leases of one node.
pub(super) struct Keeper {
    node: String,
    storage: Arc<Storage>,
    claims: Mutex<VecDeque<LeaseClaim>>,
    /// The claim by which the node has a lease.
    held: Mutex<HashMap<LeaseName, u64>>,
}

impl Keeper {
    pub(super) fn new(node: String, storage: &Arc<Storage>) -> Self {
        Self { node, storage: Arc::clone(storage), claims: Mutex::default(), held: Mutex::default() }
    }

    /// Answers the next claim. Returns whether there was one.
    pub(super) fn answer_one(&self, router: &Router) -> bool {
        let Some(claim) = self.claims.lock().pop_front() else { return false };
        let answer = {
            // Held over both, as the task that has the leases of a node does one after the other.
            let mut held = self.held.lock();
            let answer = self.storage.claim(&self.node, &claim);
            if answer == LeaseAnswer::Taken {
                held.insert(claim.name.clone(), claim.id);
            }
            answer
        };
        router.lease_answered(&claim.name, claim.id, answer);
        true
    }

    /// The claim by which the node has a lease.
    pub(super) fn claim_of(&self, user: &str, source: &str) -> Option<(LeaseName, u64)> {
        let name = LeaseName { user: Some(user.into()), source: source.into() };
        let claim = self.held.lock().get(&name).copied();
        claim.map(|claim| (name, claim))
    }
}

impl LeaseKeeper for Keeper {
    fn take(&self, claim: LeaseClaim) {
        self.claims.lock().push_back(claim);
    }

    fn describe(&self, _: u64, _: &LeaseName, _: SessionId, _: SystemTime) {}

    fn release(&self, claim: u64, name: &LeaseName) {
        let mut held = self.held.lock();
        if held.get(name) == Some(&claim) {
            held.remove(name);
            let mut leases = self.storage.leases.lock();
            if leases.get(name).is_some_and(|(node, by, _)| *node == self.node && *by == claim) {
                leases.remove(name);
            }
        }
    }
}
