//! [`LeaseDesk`]: the leases of this node's exclusive sources, in a bucket of JetStream (docs/cluster.md).
//!
//! One task has all of them: it takes what is claimed, renews what is held, and removes what is released. When that happens is
//! decided by [`Lease`]; the clock is one that goes on while the machine sleeps. The value of a lease names its node, the
//! incarnation with which the node started, and its session; what is written depends on the revision that is there, so of two
//! nodes one is first.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::jetstream::{JetStream, LEASES, Put, Read, StorageError};
use super::plane::Plane;
use crate::cluster::{Lease, LeaseStep, LeaseTimes, StoredAt, part};
use crate::router::{GivenUp, LeaseAnswer, LeaseClaim, LeaseHolder, LeaseKeeper, LeaseName, Router, SessionId};

/// How often leases are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long after an attempt that failed a lease is claimed or removed again.
const AGAIN: Duration = Duration::from_millis(250);

/// How long the marker of a released lease stays.
const MARKER_TTL: Duration = Duration::from_mins(1);

/// The latest time at which a session can have registered, in milliseconds.
const SINCE_MAX: u64 = 1 << 45;

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

/// What is stored of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Value {
    node: String,
    /// That of the node's start: it does not change when the node begins anew with its peers.
    incarnation: [u8; 16],
    /// The claim of that incarnation.
    claim: u64,
    /// The session; all zero until it is registered.
    session: [u8; 16],
    /// When it registered, in milliseconds since 1970.
    since_ms: u64,
}

impl Value {
    /// Whether it is of the same node, which has not been started again.
    fn is_of_node_of(&self, other: &Self) -> bool {
        self.node == other.node && self.incarnation == other.incarnation
    }

    /// Whether its node has given it up.
    fn is_in(&self, GivenUp { holder, claims }: &GivenUp) -> bool {
        *self.node == *holder.node && self.incarnation == holder.incarnation && self.claim <= *claims
    }

    fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.since_ms.min(SINCE_MAX))
    }
}

/// Who has a lease whose value does not open.
fn unknown() -> LeaseHolder {
    LeaseHolder { node: "".into(), incarnation: [0; 16], since: None }
}

fn millis(since: SystemTime) -> u64 {
    u64::try_from(since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or_default()
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

/// What became of a claim.
enum Claimed {
    /// It was sent at this time, and has this revision.
    Taken(Instant, u64),
    Held(LeaseHolder),
    Unavailable,
}

/// What became of a renewal.
enum Renewed {
    /// It has this revision.
    Renewed(u64),
    /// An earlier message of this claim has this revision.
    Found(u64),
    Taken,
    Failed,
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
                () = sleep(LOOK_EVERY) => {}
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
                    all.iter().for_each(|(name, claim)| self.release(*claim, name));
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
            let outcome = bucket.claim(&name, &value, given_up.as_ref()).await;
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
            bucket.remove(&name, &value, revision).await;
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
                    Renewed::Renewed(revision) => lease.renewed(revision),
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
                        let outcome = bucket.renew(&name, &value, revision).await;
                        Done::Renewed { name, claim: value.claim, outcome }
                    }));
                }
            }
        }
        for (name, claim) in lost {
            self.held.remove(&name);
            self.router.lease_lost(tokio::time::Instant::now().into_std(), &name, claim);
        }
    }
}

/// The bucket of leases.
struct Bucket {
    storage: Arc<JetStream>,
    plane: Arc<Plane>,
    times: LeaseTimes,
}

/// What the bucket has for a key.
enum Last {
    /// No value: nothing, or a marker, whose revision this is.
    Free(u64),
    Value(u64, Value),
    /// A value that does not open.
    Unreadable,
}

impl Bucket {
    fn subject(&self, name: &LeaseName) -> String {
        let (_, keys) = self.storage.bucket(LEASES);
        format!("{keys}.{}.{}", self.storage.owner(name.user.as_deref()), part(&name.source))
    }

    /// Takes a lease: one that nobody has, that this node has by an earlier claim, or that its node has given up.
    async fn claim(&self, name: &LeaseName, value: &Value, given_up: Option<&GivenUp>) -> Claimed {
        let until = self.plane.now() + self.storage.wait();
        let mut expected = 0;
        loop {
            let sent = self.plane.now();
            match self.put(name, value, expected).await {
                Ok(revision) => return Claimed::Taken(sent, revision),
                Err(StorageError::Conflict) => match self.last(name).await {
                    Ok(Last::Free(revision)) => expected = revision,
                    Ok(Last::Value(revision, other)) => {
                        if !other.is_of_node_of(value) && !given_up.is_some_and(|given_up| other.is_in(given_up)) {
                            let (since, incarnation) = (Some(other.since()), other.incarnation);
                            return Claimed::Held(LeaseHolder { node: other.node.into(), incarnation, since });
                        }
                        expected = revision;
                    }
                    Ok(Last::Unreadable) => return Claimed::Held(unknown()),
                    Err(_) => sleep(AGAIN).await,
                },
                Err(StorageError::TooLarge) => return Claimed::Unavailable,
                Err(StorageError::Unavailable(error)) => {
                    tracing::debug!(error, source = &*name.source, "a lease cannot be claimed now");
                    sleep(AGAIN).await;
                }
            }
            if self.plane.now() >= until {
                return Claimed::Unavailable;
            }
        }
    }

    async fn renew(&self, name: &LeaseName, value: &Value, revision: u64) -> Renewed {
        match self.put(name, value, revision).await {
            Ok(revision) => Renewed::Renewed(revision),
            // It may be an earlier renewal of this node, whose acknowledgement did not arrive.
            Err(StorageError::Conflict) => match self.last(name).await {
                Ok(Last::Value(revision, last)) if last.is_of_node_of(value) && last.claim == value.claim => {
                    Renewed::Found(revision)
                }
                Ok(_) => Renewed::Taken,
                Err(_) => Renewed::Failed,
            },
            Err(_) => Renewed::Failed,
        }
    }

    /// Removes a lease of this claim. It runs out by itself if that fails.
    async fn remove(&self, name: &LeaseName, value: &Value, mut revision: u64) {
        let (subject, until) = (self.subject(name), self.plane.now() + self.times.ttl);
        while self.plane.now() < until {
            match self.storage.remove(&subject, revision, MARKER_TTL).await {
                Ok(_) => return,
                Err(StorageError::Conflict) => match self.last(name).await {
                    Ok(Last::Value(last, other)) if other.is_of_node_of(value) && other.claim == value.claim => {
                        revision = last;
                    }
                    Ok(_) => return,
                    Err(_) => sleep(AGAIN).await,
                },
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    async fn put(&self, name: &LeaseName, value: &Value, expected: u64) -> Result<u64, StorageError> {
        let text = postcard::to_allocvec(value).map_err(|error| StorageError::Unavailable(error.to_string()))?;
        let subject = self.subject(name);
        let put = Put::new(StoredAt::subject(&subject), &text);
        let put = Put { expected: Some(expected), ttl: Some(self.times.ttl), ..put };
        self.storage.put(put).await.map(|stored| stored.sequence)
    }

    async fn last(&self, name: &LeaseName) -> Result<Last, StorageError> {
        let ((stream, _), subject) = (self.storage.bucket(LEASES), self.subject(name));
        Ok(match self.storage.last(&stream, &subject).await? {
            None => Last::Free(0),
            Some(read) if read.is_marker() => Last::Free(read.sequence),
            Some(read) => {
                self.read(&subject, &read).map_or(Last::Unreadable, |value| Last::Value(read.sequence, value))
            }
        })
    }

    fn read(&self, subject: &str, read: &Read) -> Option<Value> {
        let text = self.storage.open_stored(StoredAt::subject(subject), &read.sealed)?;
        postcard::from_bytes(&text).ok()
    }
}
