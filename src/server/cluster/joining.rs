//! [`Joining`]: the start of a node, until it may accept sessions.

use std::time::{Duration, Instant};

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
}

impl Joining {
    pub(super) fn new(plane: &Plane) -> Self {
        Self { since: plane.now(), digest: plane.digest().to_vec() }
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

    /// Whether this node may accept sessions.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] if a live node does not say what it announces.
    pub(super) fn is_over(&self, plane: &Plane) -> Result<bool, ClusterError> {
        let passed = plane.now().saturating_duration_since(self.since);
        match passed >= LISTEN && plane.is_joined() {
            true => Ok(true),
            false if passed < PATIENCE => Ok(false),
            false => Err(ClusterError::Refused(
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
        Refusal::NoCommonVersion { node, versions } => format!(
            "the node '{node}' speaks versions {} to {} of the link protocol, and this program none of them",
            versions.lowest, versions.highest
        ),
    }
}
