//! [`Bucket`]: leases as JetStream has them. What is written depends on the revision that is there, so of two nodes one is
//! first.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::pause;
use crate::cluster::{LeaseTimes, StoredAt, part};
use crate::router::{GivenUp, LeaseHolder, LeaseName};
use crate::server::cluster::jetstream::{JetStream, LEASES, Put, Read, StorageError};
use crate::server::cluster::plane::Plane;

/// The latest time at which a session can have registered, in milliseconds.
const SINCE_MAX: u64 = 1 << 45;

/// How long the marker of a released lease stays.
const MARKER_TTL: Duration = Duration::from_mins(1);

/// How long after an attempt that failed a lease is claimed or removed again.
pub(in crate::server::cluster) const AGAIN: Duration = Duration::from_millis(250);

/// What is stored of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::server::cluster) struct Value {
    pub(in crate::server::cluster) node: String,
    /// That of the node's start: it does not change when the node begins anew with its peers.
    pub(in crate::server::cluster) incarnation: [u8; 16],
    /// The claim of that incarnation.
    pub(in crate::server::cluster) claim: u64,
    /// The session; all zero until it is registered.
    pub(in crate::server::cluster) session: [u8; 16],
    /// When it registered, in milliseconds since 1970.
    pub(in crate::server::cluster) since_ms: u64,
}

impl Value {
    /// Whether it is of the same node, which has not been started again.
    pub(in crate::server::cluster) fn is_of_node_of(&self, other: &Self) -> bool {
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

pub(super) fn millis(since: SystemTime) -> u64 {
    u64::try_from(since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or_default()
}

/// What became of a claim.
pub(super) enum Claimed {
    /// It was sent at this time, and has this revision.
    Taken(Instant, u64),
    Held(LeaseHolder),
    Unavailable,
}

/// What became of a renewal.
pub(in crate::server::cluster) enum Renewed {
    /// It has this revision.
    Done(u64),
    /// An earlier message of this claim has this revision.
    Found(u64),
    Taken,
    Failed,
}

/// The bucket of leases.
pub(in crate::server::cluster) struct Bucket {
    pub(in crate::server::cluster) storage: Arc<JetStream>,
    pub(in crate::server::cluster) plane: Arc<Plane>,
    pub(in crate::server::cluster) times: LeaseTimes,
}

/// What the bucket has for a key.
pub(in crate::server::cluster) enum Last {
    /// No value: nothing, or a marker, whose revision this is.
    Free(u64),
    Value(u64, Value),
    /// A value that does not open.
    Unreadable,
}

impl Bucket {
    /// The subject of the lease of a source.
    pub(super) fn subject(&self, name: &LeaseName) -> String {
        let (_, keys) = self.storage.bucket(LEASES);
        format!("{keys}.{}.{}", self.storage.owner(name.user.as_deref()), part(&name.source))
    }

    /// Takes a lease: one that nobody has, that this node has by an earlier claim, or that its node has given up.
    pub(super) async fn claim(&self, subject: &str, value: &Value, given_up: Option<&GivenUp>) -> Claimed {
        let until = self.plane.now() + self.storage.wait();
        let mut expected = 0;
        loop {
            let sent = self.plane.now();
            match self.put(subject, value, expected).await {
                Ok(revision) => return Claimed::Taken(sent, revision),
                Err(StorageError::Conflict) => match self.last(subject).await {
                    Ok(Last::Free(revision)) => expected = revision,
                    Ok(Last::Value(revision, other)) => {
                        if !other.is_of_node_of(value) && !given_up.is_some_and(|given_up| other.is_in(given_up)) {
                            let (since, incarnation) = (Some(other.since()), other.incarnation);
                            return Claimed::Held(LeaseHolder { node: other.node.into(), incarnation, since });
                        }
                        expected = revision;
                    }
                    Ok(Last::Unreadable) => return Claimed::Held(unknown()),
                    Err(_) => pause(AGAIN).await,
                },
                Err(StorageError::TooLarge) => return Claimed::Unavailable,
                Err(StorageError::Unavailable(error)) => {
                    tracing::debug!(error, subject, "a lease cannot be claimed now");
                    pause(AGAIN).await;
                }
            }
            if self.plane.now() >= until {
                return Claimed::Unavailable;
            }
        }
    }

    /// Renews a lease of this claim that has this revision.
    pub(in crate::server::cluster) async fn renew(&self, subject: &str, value: &Value, revision: u64) -> Renewed {
        match self.put(subject, value, revision).await {
            Ok(revision) => Renewed::Done(revision),
            // It may be an earlier renewal of this node, whose acknowledgement did not arrive.
            Err(StorageError::Conflict) => match self.last(subject).await {
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
    pub(in crate::server::cluster) async fn remove(&self, subject: &str, value: &Value, mut revision: u64) {
        let until = self.plane.now() + self.times.ttl;
        while self.plane.now() < until {
            match self.storage.remove(subject, revision, MARKER_TTL).await {
                Ok(_) => return,
                Err(StorageError::Conflict) => match self.last(subject).await {
                    Ok(Last::Value(last, other)) if other.is_of_node_of(value) && other.claim == value.claim => {
                        revision = last;
                    }
                    Ok(_) => return,
                    Err(_) => pause(AGAIN).await,
                },
                Err(_) => pause(AGAIN).await,
            }
        }
    }

    /// Stores a lease if its revision is this one; 0: there is none. Returns the new one.
    pub(in crate::server::cluster) async fn put(
        &self,
        subject: &str,
        value: &Value,
        expected: u64,
    ) -> Result<u64, StorageError> {
        let text = postcard::to_allocvec(value).map_err(|error| StorageError::Unavailable(error.to_string()))?;
        let put = Put::new(StoredAt::subject(subject), &text);
        let put = Put { expected: Some(expected), ttl: Some(self.times.ttl), ..put };
        self.storage.put(put).await.map(|stored| stored.sequence)
    }

    /// What the bucket has of a lease.
    pub(in crate::server::cluster) async fn last(&self, subject: &str) -> Result<Last, StorageError> {
        let (stream, _) = self.storage.bucket(LEASES);
        Ok(match self.storage.last(&stream, subject).await? {
            None => Last::Free(0),
            Some(read) if read.is_marker() => Last::Free(read.sequence),
            Some(read) => self.read(subject, &read).map_or(Last::Unreadable, |value| Last::Value(read.sequence, value)),
        })
    }

    fn read(&self, subject: &str, read: &Read) -> Option<Value> {
        let text = self.storage.open_stored(StoredAt::subject(subject), &read.sealed)?;
        postcard::from_bytes(&text).ok()
    }
}
