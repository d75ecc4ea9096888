//! [`Joining`]: the start of a node, until it may accept sessions.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::jetstream::JetStream;
use super::plane::Plane;
use super::{ClusterError, digest};
use crate::cluster::{BusEvent, Refusal};

/// How long a starting node listens for others at least.
const LISTEN: Duration = Duration::from_millis(1500);

/// How long it waits for what live nodes announce.
const PATIENCE: Duration = Duration::from_secs(15);

/// A node that starts.
pub(super) struct Joining {
    since: Instant,
    digest: Vec<u8>,
    storage: Storage,
}

/// What begins to open the storage.
type Open = Box<dyn FnOnce() -> JoinHandle<Result<JetStream, ClusterError>>>;

/// The storage. It is opened only after the digests were compared, because streams are made as the configuration says.
enum Storage {
    Closed(Option<Open>),
    Opening(JoinHandle<Result<JetStream, ClusterError>>),
    Open(Arc<JetStream>),
}

impl Joining {
    /// `open` begins to open the storage.
    pub(super) fn new(plane: &Plane, open: Open) -> Self {
        Self { since: plane.now(), digest: plane.digest().to_vec(), storage: Storage::Closed(Some(open)) }
    }

    /// Ready when the storage has been opened.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub(super) async fn opened(&mut self) -> Result<(), ClusterError> {
        let Storage::Opening(opening) = &mut self.storage else { return pending().await };
        let failed = |_| ClusterError::Refused("the storage of the cluster has failed".to_owned());
        let storage = opening.await.map_err(failed).flatten()?;
        self.storage = Storage::Open(Arc::new(storage));
        Ok(())
    }

    /// Looks at an event. Returns why this node cannot join, if it says so.
    pub(super) fn look(&self, plane: &Plane, event: &BusEvent) -> Option<ClusterError> {
        let (node, other, live) = match event {
            BusEvent::PeerFound { node, digest, live, .. } | BusEvent::PeerChanged { node, digest, live } => {
                (node, digest, *live)
            }
            BusEvent::Refused(refusal) => return Some(ClusterError::Refused(words(plane, refusal))),
            _ => return None,
        };
        // Of two starting nodes, the one with the lower name counts as live.
        if !live && node > plane.node() {
            return None;
        }
        let key = digest::difference(&self.digest, other)?;
        Some(ClusterError::Refused(format!(
            "{key} is not what the node '{node}' of this cluster has; all nodes need the same value"
        )))
    }

    /// The storage, once this node may accept sessions.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] if a live node does not say what it announces.
    pub(super) fn outcome(&mut self, plane: &Plane) -> Result<Option<Arc<JetStream>>, ClusterError> {
        let passed = plane.now().saturating_duration_since(self.since);
        let knows_all = passed >= LISTEN && plane.is_joined();
        match &mut self.storage {
            Storage::Open(storage) if knows_all => Ok(Some(Arc::clone(storage))),
            Storage::Closed(open) if knows_all => {
                if let Some(open) = open.take() {
                    self.storage = Storage::Opening(open());
                }
                Ok(None)
            }
            // It says itself when it gives up.
            Storage::Opening(_) => Ok(None),
            Storage::Closed(_) | Storage::Open(_) if passed < PATIENCE => Ok(None),
            Storage::Closed(_) | Storage::Open(_) => Err(ClusterError::Refused(
                "a live node of the cluster does not answer on its link; 'switchboard nodes' on that node says more"
                    .into(),
            )),
        }
    }

    /// How long until the answer can change by itself.
    pub(super) fn sleep(&self, plane: &Plane) -> Duration {
        let passed = plane.now().saturating_duration_since(self.since);
        LISTEN.saturating_sub(passed).max(Duration::from_millis(20))
    }
}

fn words(plane: &Plane, refusal: &Refusal) -> String {
    match refusal {
        Refusal::NameTaken { .. } => {
            format!("cluster.node: another live node is named '{}'; each needs a name of its own", plane.node())
        }
        Refusal::UnknownKeys => {
            "cluster.key_file: the other nodes of this cluster seal with another key; all nodes need the same file"
                .into()
        }
        Refusal::KeysDiffer { node } => format!(
            "cluster.key_file: the first key of this node and that of the node '{node}' must be in both key files; a new key is \
             added behind the old one on all nodes, before it becomes the first on any"
        ),
        Refusal::NoCommonVersion { node, versions } => format!(
            "the node '{node}' speaks versions {} to {} of the link protocol, and this program none of them",
            versions.lowest, versions.highest
        ),
    }
}
