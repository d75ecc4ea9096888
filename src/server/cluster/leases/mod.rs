//! [`LeaseDesk`]: the leases of this node's exclusive sources, in a bucket of JetStream (docs/cluster.md).
//!
//! One task has all of them: it takes what is claimed, renews what is held, and removes what is released. When that happens is
//! decided by [`Lease`]; the clock is one that goes on while the machine sleeps. The value of a lease names its node, the
//! incarnation with which the node started, and its session. What is written depends on the revision that is there, so of two
//! nodes one is first: `bucket` writes and reads, also for the leases of `topics`.

pub(super) mod bucket;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant as Timer, sleep_until};

use super::jetstream::JetStream;
use super::plane::Plane;
use crate::cluster::{Lease, LeaseStep, LeaseTimes};
use crate::router::{LeaseAnswer, LeaseClaim, LeaseKeeper, LeaseName, Router, SessionId};
use bucket::{Bucket, Claimed, Renewed, Value, millis};

/// How often leases are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What the router wants of the task that has the leases.
enum Order {
    Take(LeaseClaim),
    Describe {
        claim: u64,
        name: LeaseName,
        session: SessionId,
        since: SystemTime,
    },
    Release {
        claim: u64,
        name: LeaseName,
    },
    /// The node ends, and with it all of its sessions.
    ReleaseAll,
}

/// Where the router leaves its orders. There are a few for each session, so their number is bounded by that of sessions.
#[derive(Default)]
pub(super) struct LeaseDesk {
    orders: Mutex<VecDeque<Order>>,
    /// Leases that are being removed, and orders that are being carried out.
    busy: AtomicUsize,
    wake: Notify,
}

impl LeaseDesk {
    fn order(&self, order: Order) {
        let mut orders = self.orders.lock();
        self.busy.fetch_add(1, Ordering::AcqRel);
        orders.push_back(order);
        drop(orders);
        self.wake.notify_one();
    }

    /// Releases all leases: no session is left that could have one.
    pub(super) fn release_all(&self) {
        self.order(Order::ReleaseAll);
    }

    /// Whether every order is carried out, and every lease that was released is removed.
    pub(super) fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Acquire) == 0
    }

    fn done(&self) {
        self.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl LeaseKeeper for LeaseDesk {
    fn take(&self, claim: LeaseClaim) {
        self.order(Order::Take(claim));
    }

    fn describe(&self, claim: u64, name: &LeaseName, session: SessionId, since: SystemTime) {
        self.order(Order::Describe { claim, name: name.clone(), session, since });
    }

    fn release(&self, claim: u64, name: &LeaseName) {
        self.order(Order::Release { claim, name: name.clone() });
    }
}

/// What the task needs.
pub(super) struct Leasing {
    pub(super) desk: Arc<LeaseDesk>,
    pub(super) storage: Arc<JetStream>,
    pub(super) router: Arc<Router>,
    pub(super) plane: Arc<Plane>,
    pub(super) times: LeaseTimes,
}

/// A lease that is claimed or held.
struct Held {
    value: Value,
    /// `None` while it is being taken.
    lease: Option<Lease>,
}

/// What became of an operation.
enum Done {
    Claimed { name: LeaseName, claim: u64, outcome: Claimed },
    Renewed { name: LeaseName, claim: u64, outcome: Renewed },
    Removed,
}

type Operation = Pin<Box<dyn Future<Output = Done> + Send>>;

impl Leasing {
    /// Serves the leases of this node for as long as it runs.
    pub(super) async fn run(self) {
        let Self { desk, storage, router, plane, times } = self;
        let (_, _, incarnation) = plane.subjects();
        let me = Value {
            node: plane.node().to_string(),
            incarnation: *incarnation.as_bytes(),
            claim: 0,
            session: [0; 16],
            since_ms: 0,
        };
        let bucket = Arc::new(Bucket { storage, plane, times });
        let mut table = Table { desk, router, bucket, me, held: BTreeMap::new(), operations: FuturesUnordered::new() };
        loop {
            tokio::select! {
                Some(done) = table.operations.next() => table.done(done),
                () = table.desk.wake.notified() => {}
                () = pause(LOOK_EVERY) => {}
            }
            table.take_orders();
            table.look();
        }
    }
}

struct Table {
    desk: Arc<LeaseDesk>,
    router: Arc<Router>,
    bucket: Arc<Bucket>,
    /// What the values of this node have in common.
    me: Value,
    held: BTreeMap<LeaseName, Held>,
    operations: FuturesUnordered<Operation>,
}

impl Table {
    fn take_orders(&mut self) {
        loop {
            let Some(order) = self.desk.orders.lock().pop_front() else { return };
            match order {
                Order::Take(claim) => self.take(claim),
                Order::Describe { claim, name, session, since } => {
                    if let Some(held) = self.held.get_mut(&name).filter(|held| held.value.claim == claim) {
                        held.value.session = session.to_bytes();
                        held.value.since_ms = millis(since);
                    }
                }
                Order::Release { claim, name } => self.release(claim, &name),
                Order::ReleaseAll => {
                    let all: Vec<_> = self.held.iter().map(|(name, held)| (name.clone(), held.value.claim)).collect();
                    for (name, claim) in all {
                        self.release(claim, &name);
                    }
                }
            }
            self.desk.done();
        }
    }

    fn take(&mut self, claim: LeaseClaim) {
        let LeaseClaim { id: claim, name, since, given_up } = claim;
        let value = Value { claim, since_ms: millis(since), ..self.me.clone() };
        self.held.insert(name.clone(), Held { value: value.clone(), lease: None });
        let bucket = Arc::clone(&self.bucket);
        self.operations.push(Box::pin(async move {
            let outcome = bucket.claim(&bucket.subject(&name), &value, given_up.as_ref()).await;
            Done::Claimed { name, claim, outcome }
        }));
    }

    fn release(&mut self, claim: u64, name: &LeaseName) {
        let Some(held) = self.held.get(name).filter(|held| held.value.claim == claim) else { return };
        let (value, revision) = (held.value.clone(), held.lease.as_ref().map(Lease::revision));
        self.held.remove(name);
        // What is being taken is removed when it was.
        if let Some(revision) = revision {
            self.remove(name.clone(), value, revision);
        }
    }

    fn remove(&mut self, name: LeaseName, value: Value, revision: u64) {
        self.desk.busy.fetch_add(1, Ordering::AcqRel);
        let bucket = Arc::clone(&self.bucket);
        self.operations.push(Box::pin(async move {
            bucket.remove(&bucket.subject(&name), &value, revision).await;
            Done::Removed
        }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Removed => self.desk.done(),
            Done::Claimed { name, claim, outcome } => self.claimed(name, claim, outcome),
            Done::Renewed { name, claim, outcome } => {
                let now = self.bucket.plane.now();
                let held = self.held.get_mut(&name).filter(|held| held.value.claim == claim);
                let Some(lease) = held.and_then(|held| held.lease.as_mut()) else { return };
                match outcome {
                    Renewed::Done(revision) => lease.renewed(revision),
                    Renewed::Found(revision) => lease.found(now, revision),
                    Renewed::Taken => lease.taken(),
                    Renewed::Failed => lease.failed(now),
                }
            }
        }
    }

    fn claimed(&mut self, name: LeaseName, claim: u64, outcome: Claimed) {
        let is_wanted = self.held.get(&name).is_some_and(|held| held.value.claim == claim);
        let answer = match outcome {
            Claimed::Taken(sent, revision) if is_wanted => {
                if let Some(held) = self.held.get_mut(&name) {
                    held.lease = Some(Lease::new(self.bucket.times, sent, revision));
                }
                LeaseAnswer::Taken
            }
            Claimed::Taken(_, revision) => {
                let value = Value { claim, ..self.me.clone() };
                return self.remove(name, value, revision);
            }
            Claimed::Held(holder) => LeaseAnswer::Held(holder),
            Claimed::Unavailable => LeaseAnswer::Unavailable,
        };
        if !is_wanted {
            return;
        }
        if answer != LeaseAnswer::Taken {
            self.held.remove(&name);
        }
        self.router.lease_answered(&name, claim, answer);
    }

    /// Renews what is due, and gives up what was not renewed for too long.
    fn look(&mut self) {
        let now = self.bucket.plane.now();
        let mut lost = Vec::new();
        for (name, held) in &mut self.held {
            let Some(lease) = &mut held.lease else { continue };
            match lease.step(now) {
                LeaseStep::Wait(_) => {}
                LeaseStep::Lost => lost.push((name.clone(), held.value.claim)),
                LeaseStep::Renew(revision) => {
                    let (bucket, name, value) = (Arc::clone(&self.bucket), name.clone(), held.value.clone());
                    self.operations.push(Box::pin(async move {
                        let outcome = bucket.renew(&bucket.subject(&name), &value, revision).await;
                        Done::Renewed { name, claim: value.claim, outcome }
                    }));
                }
            }
        }
        for (name, claim) in lost {
            self.held.remove(&name);
            self.router.lease_lost(Timer::now().into_std(), &name, claim);
        }
    }
}

/// Waits before the next attempt, or the next look.
pub(super) async fn pause(time: Duration) {
    sleep_until(Timer::now() + time).await;
}
