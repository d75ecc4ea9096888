//! [`Retained`]: the last value of each triple, for sessions that subscribe later. Never a protected triple, which is not
//! an event.
//!
//! A value that is being published reaches each subscriber exactly once. A publish draws a stamp and looks the
//! subscribers up under the gate's read lock; a subscription is indexed, and the last stamp read, under its write lock. So
//! a publish either finds the subscription or has a stamp that is not later than the subscription's, and the replay sends
//! the values with such stamps only. A publish also holds its triple's order lock until it has pushed to all, so the value
//! that is kept at last is the one that subscribers receive last.

mod account;
mod facts;
mod replay;
mod revised;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard, RwLock};
use wire::{Envelope, Refusal, Triple};

use crate::router::decide::Facts;
use crate::router::policy::{Limits, Policy};
use crate::router::replay::marked;
use crate::router::session::Session;
use crate::router::{Position, Scope};
use crate::store::history as stored;
use crate::websocket::Frame;
use account::{Accounts, Owner};
use revised::Cleared;

pub(super) use facts::ValueFacts;
pub(super) use replay::Replay;

/// The locks among which triples are spread, so that unrelated retained events do not wait for each other.
const STRIPES: usize = 64;

/// The memory of a value besides its texts: its place in a node of the map, and the headers of its allocations. Measured
/// with glibc: 257 bytes if triples come in any order, 298 if they come in ascending order, which fills nodes by half.
const VALUE_BYTES: usize = 304;

/// A scope. Users come first in a replay, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Bucket {
    User(Arc<str>),
    Shared,
}

impl Bucket {
    /// The scope of a user, or without one that of shared channels.
    fn of(user: Option<&str>) -> Self {
        user.map_or(Self::Shared, |user| Self::User(user.into()))
    }

    /// A place of this scope, as a file names it.
    fn place(&self, (triple, target): Place) -> stored::Place {
        let user = match self {
            Self::User(user) => Some(Box::from(&**user)),
            Self::Shared => None,
        };
        stored::Place { user, triple, target }
    }
}

/// A canonical triple, and the target for which the value is kept.
type Place = (Box<str>, Option<Box<str>>);

type Values = BTreeMap<Place, Value>;

/// All retained values.
pub(super) struct Retained {
    buckets: RwLock<BTreeMap<Bucket, Mutex<Values>>>,
    accounts: Accounts,
    /// What was cleared, in a cluster.
    cleared: Cleared,
    /// The last stamp that was drawn.
    stamp: AtomicU64,
    gate: RwLock<()>,
    order: [Mutex<()>; STRIPES],
    hasher: foldhash::fast::RandomState,
}

/// An event as later subscribers receive it.
struct Value {
    /// Marked `retained`. On a user-scoped channel without `user`.
    frame: Frame,
    stamp: u64,
    owner: Owner,
    /// On a shared channel, the user in whose name it was sent.
    user: Option<Box<str>>,
    /// Its place in a log, if its channel has history.
    position: Option<Box<Position>>,
    /// What the bucket of a cluster gave it; 0 without one.
    revision: u64,
    /// When it was published, or read from a file.
    since: Instant,
}

impl Default for Retained {
    fn default() -> Self {
        Self {
            buckets: RwLock::default(),
            accounts: Accounts::default(),
            cleared: Cleared::default(),
            stamp: AtomicU64::new(0),
            gate: RwLock::default(),
            order: std::array::from_fn(|_| Mutex::default()),
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

impl Retained {
    /// The lock that keeps retained events of one triple in their order.
    pub(super) fn order(&self, canonical: &Triple<'_>) -> Option<MutexGuard<'_, ()>> {
        let stripe = usize::try_from(self.hasher.hash_one(canonical) % STRIPES as u64).unwrap_or_default();
        self.order.get(stripe).map(Mutex::lock)
    }

    /// Keeps an event as its triple's last value, or clears the value if the payload is `null`, and looks its subscribers
    /// up. `frame` is the event with its mark, `position` its place in a log. An event that was decided before its channel got
    /// another scope or other folding is not kept.
    ///
    /// # Errors
    /// `TOO_LARGE` if a limit would be exceeded; then nothing changes.
    #[expect(clippy::too_many_arguments, reason = "what is known of one event")]
    pub(super) fn keep<T>(
        &self,
        now: Instant,
        policy: &Policy,
        sender: &Session,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
        (frame, position): (Frame, Option<Box<Position>>),
        look_up: impl FnOnce() -> T,
    ) -> Result<T, Refusal> {
        let place: Place = (facts.canonical.to_string().into(), envelope.target().map(Box::from));
        let _gate = self.gate.read();
        let channel = &*facts.canonical.channel;
        if policy.is_shared(channel) != facts.shared || policy.folds(channel) != facts.folded {
            return Ok(look_up());
        }
        let (bucket, owner, user) = match scope {
            Scope::User(user) => {
                let user: Arc<str> = Arc::from(user);
                (Bucket::User(Arc::clone(&user)), Owner::User(user), None)
            }
            Scope::Shared(user) => (Bucket::Shared, Owner::of(sender), user.map(Box::from)),
        };
        if envelope.payload_is_null() {
            self.clear(&bucket, &place);
        } else {
            let stamp = self.next_stamp();
            // What is on disk has kept them before it was written.
            let is_on_disk = facts.durable || facts.retains_durably;
            let limits = policy.limits();
            let limits = if is_on_disk { limits.without_retained_bounds() } else { limits };
            self.insert(
                &limits,
                &bucket,
                place,
                Value { frame, stamp, owner, user, position, revision: 0, since: now },
            )?;
        }
        Ok(look_up())
    }

    /// Checks whether [`Retained::keep`] would keep an event whose frame has about this length.
    ///
    /// # Errors
    /// `TOO_LARGE`.
    pub(super) fn check(
        &self,
        limits: &Limits,
        sender: &Session,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
        bytes: usize,
    ) -> Result<(), Refusal> {
        if envelope.payload_is_null() {
            return Ok(());
        }
        let place: Place = (facts.canonical.to_string().into(), envelope.target().map(Box::from));
        let (bucket, owner) = match scope {
            Scope::User(user) => (Bucket::User(user.into()), Owner::User(user.into())),
            Scope::Shared(_) => (Bucket::Shared, Owner::of(sender)),
        };
        let buckets = self.buckets.read();
        let values = buckets.get(&bucket).map(|values| values.lock());
        let replaced = values.as_ref().and_then(|values| values.get(&place));
        let replaced = replaced.map(|old| (&old.owner, size(&place, old)));
        self.accounts.check(limits, (&owner, VALUE_BYTES + bytes + place.0.len()), replaced)
    }

    /// Keeps a value that a file had.
    pub(super) fn load(&self, now: Instant, limits: Limits, place: &stored::Place, value: stored::Retained) {
        let stored::Retained { user, service, position, text } = value;
        let position = position.map(|(epoch, offset)| Position { offset, epoch: epoch.into() });
        let Some(owner) = Owner::of_stored(place, user.as_deref(), service.as_deref()) else { return };
        let frame = marked(&text, position.as_ref(), "retained");
        let bucket = Bucket::of(place.user.as_deref());
        let (stamp, position) = (self.next_stamp(), position.map(Box::new));
        let value = Value { frame, stamp, owner, user, position, revision: 0, since: now };
        // It was within the limits when it was accepted.
        let place = (place.triple.clone(), place.target.clone());
        self.insert(&limits.without_retained_bounds(), &bucket, place, value).ok();
    }

    fn next_stamp(&self) -> u64 {
        self.stamp.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Calls `list` with the last stamp while no retained event is between its stamp and its look-up.
    pub(super) fn at_rest<T>(&self, list: impl FnOnce(u64) -> T) -> T {
        let _gate = self.gate.write();
        list(self.stamp.load(Ordering::SeqCst))
    }

    /// Whether there is a value at a place.
    pub(super) fn has(&self, place: &stored::Place) -> bool {
        let bucket = Bucket::of(place.user.as_deref());
        let buckets = self.buckets.read();
        buckets
            .get(&bucket)
            .is_some_and(|values| values.lock().contains_key(&(place.triple.clone(), place.target.clone())))
    }

    /// Removes the values of these channels, and returns their places. Nothing is kept in the meantime.
    pub(super) fn remove_channels(&self, channels: &BTreeSet<String>) -> Vec<stored::Place> {
        let mut removed = Vec::new();
        let _gate = self.gate.write();
        let mut buckets = self.buckets.write();
        for (bucket, values) in &mut *buckets {
            let values = values.get_mut();
            for channel in channels {
                let prefix = format!("{channel}/");
                let from: Place = (prefix.as_str().into(), None);
                let of_channel = values.range(from..).map(|(place, _)| place);
                let of_channel: Vec<_> =
                    of_channel.take_while(|(triple, _)| triple.starts_with(&prefix)).cloned().collect();
                for place in of_channel {
                    if let Some(value) = values.remove(&place) {
                        self.accounts.remove(&value.owner, size(&place, &value));
                        removed.push(bucket.place(place));
                    }
                }
            }
        }
        buckets.retain(|_, values| !values.get_mut().is_empty());
        removed
    }

    fn insert(&self, limits: &Limits, bucket: &Bucket, place: Place, value: Value) -> Result<(), Refusal> {
        loop {
            let buckets = self.buckets.read();
            if let Some(values) = buckets.get(bucket) {
                let mut values = values.lock();
                let replaced = values.get(&place).map(|old| (&old.owner, size(&place, old)));
                let counted = self.accounts.replace(limits, (&value.owner, size(&place, &value)), replaced);
                if counted.is_ok() {
                    values.insert(place, value);
                }
                let is_empty = values.is_empty();
                drop(values);
                drop(buckets);
                if is_empty {
                    self.remove_if_empty(bucket);
                }
                return counted;
            }
            drop(buckets);
            // Somebody may remove it again, as long as it is empty.
            self.buckets.write().entry(bucket.clone()).or_default();
        }
    }

    fn clear(&self, bucket: &Bucket, place: &Place) {
        let buckets = self.buckets.read();
        let Some(values) = buckets.get(bucket) else { return };
        let mut values = values.lock();
        if let Some(value) = values.remove(place) {
            self.accounts.remove(&value.owner, size(place, &value));
        }
        let is_empty = values.is_empty();
        drop(values);
        drop(buckets);
        if is_empty {
            self.remove_if_empty(bucket);
        }
    }

    fn remove_if_empty(&self, bucket: &Bucket) {
        let mut buckets = self.buckets.write();
        if buckets.get_mut(bucket).is_some_and(|values| values.get_mut().is_empty()) {
            buckets.remove(bucket);
        }
    }

    /// The number of values, and the memory that they use.
    pub(super) fn size(&self) -> (usize, usize) {
        let total = self.accounts.total();
        (total.values, total.bytes)
    }
}

/// Who sent an event.
#[derive(Clone, Copy)]
pub(super) struct Author<'a> {
    pub(super) source: &'a str,
    /// It is a service or an adapter, so what it sends on shared channels counts for itself.
    pub(super) is_service: bool,
}

/// An event as a file, or the bucket of a cluster, keeps it as its triple's last value.
pub(super) fn stored(
    author: Author<'_>,
    envelope: &Envelope<'_>,
    scope: Scope<'_>,
    facts: &Facts<'_>,
    text: String,
    position: Option<Position>,
) -> (stored::Place, stored::Retained) {
    let (user, sent_for, service) = match scope {
        Scope::User(user) => (Some(user.into()), None, None),
        Scope::Shared(user) => (None, user.map(Box::from), author.is_service.then(|| author.source.into())),
    };
    let (triple, target) = (facts.canonical.to_string().into(), envelope.target().map(Box::from));
    let position = position.map(|it| ((*it.epoch).into(), it.offset));
    let value = stored::Retained { user: sent_for, service, position, text: text.into() };
    (stored::Place { user, triple, target }, value)
}

/// The memory that a value counts with.
fn size((triple, target): &Place, value: &Value) -> usize {
    let texts = [Some(&**triple), target.as_deref(), value.user.as_deref()];
    let position_bytes = value.position.as_ref().map_or(0, |_| size_of::<Position>());
    VALUE_BYTES + position_bytes + value.frame.wire().len() + texts.into_iter().flatten().map(str::len).sum::<usize>()
}
