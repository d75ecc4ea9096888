//! [`BusEvent`]: what a bus tells its caller.

use std::time::Instant;

use super::{Incarnation, MessageBytes, NodeId, Number, Versions};

/// What happened, for the router. Events of one peer are in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// A peer that was unknown or lost has answered a link message that names our incarnation. Its snapshot follows, and so
    /// does [`BusEvent::SnapshotWanted`].
    PeerFound {
        /// The peer.
        node: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
        /// Its digest.
        digest: Vec<u8>,
        /// Whether it accepts sessions. A starting one does not.
        live: bool,
    },
    /// A peer with a link says something else about itself than before.
    PeerChanged {
        /// The peer.
        node: NodeId,
        /// Its digest.
        digest: Vec<u8>,
        /// Whether it accepts sessions.
        live: bool,
    },
    /// A link begins: call [`Bus::snapshot`](super::Bus::snapshot). Until then, [`Bus::send`](super::Bus::send) to this peer fails.
    SnapshotWanted {
        /// The peer.
        node: NodeId,
    },
    /// Forget what this peer announced before, and read this.
    Snapshot {
        /// The peer.
        node: NodeId,
        /// What it gave to [`Bus::snapshot`](super::Bus::snapshot).
        message: MessageBytes,
    },
    /// A message from a peer.
    Message {
        /// The peer.
        node: NodeId,
        /// What it gave to [`Bus::send`](super::Bus::send).
        message: MessageBytes,
    },
    /// A peer has taken everything up to this number, since our last snapshot for it. Numbers from before that snapshot mean
    /// nothing any more.
    Acknowledged {
        /// The peer.
        node: NodeId,
        /// The last number that it has taken.
        number: Number,
    },
    /// The link with a peer broke: messages in either direction may be lost. It begins anew by itself with a
    /// [`BusEvent::Snapshot`], or the peer is lost. [`BusEvent::SnapshotWanted`] follows, unless our last snapshot is still
    /// under way.
    Broken {
        /// The peer.
        node: NodeId,
        /// The cause.
        why: BrokenWhy,
        /// Nothing is missing that the peer sent before.
        since: Instant,
    },
    /// A peer is lost, and all that it announced is void.
    Lost {
        /// The peer.
        node: NodeId,
        /// The cause.
        why: LostWhy,
        /// Nothing is missing that the peer sent before.
        since: Instant,
    },
    /// This node's own clock stood still. It has a new incarnation, and no peers: subscribe to [`Bus::node_subject`](super::Bus::node_subject) again.
    /// No [`BusEvent::Lost`] follows for the peers that it had.
    Paused {
        /// Nothing is missing that peers sent before.
        since: Instant,
    },
    /// This node has not received its own beats for 2 s.
    CutOff,
    /// It receives them again.
    Restored,
    /// Another live node has this node's name: they came together after both had started, and have no link. To others, each
    /// of them seems to restart whenever the other one is found.
    NameShared {
        /// The other node's incarnation.
        incarnation: Incarnation,
    },
    /// Another node seals with a key that this one does not have, or cannot open what this one seals. They have no link,
    /// though both may have sessions. Told at most once a minute.
    KeysApart {
        /// The other node's incarnation.
        incarnation: Incarnation,
        /// Its name; `None` if it cannot be opened.
        node: Option<NodeId>,
    },
    /// This node cannot join the cluster. Only a starting node gets this, once.
    Refused(Refusal),
}

/// Why a link broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenWhy {
    /// More was unacknowledged than [`BusSettings::link_bytes`](super::BusSettings::link_bytes).
    WindowExceeded,
    /// The peer has begun it anew, because it broke there.
    ByPeer,
    /// The peer sent what no node sends, such as a message above [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX).
    Malformed,
}

/// Why a peer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostWhy {
    /// It has not answered for 2 s: nothing arrived on its link, or it does not receive ours.
    Silent,
    /// It has a new incarnation.
    Restarted,
    /// Its link broke and could not be begun anew within 2 s.
    Unanswered,
    /// The snapshot for it is larger than the window.
    SnapshotTooLarge,
}

/// Why a starting node cannot join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another node has this node's name, and counts as live.
    NameTaken {
        /// The other node's incarnation.
        incarnation: Incarnation,
    },
    /// All beats are sealed with keys that this node does not have.
    UnknownKeys,
    /// A live node cannot open what this node seals, or the reverse, though they have a key in common.
    KeysDiffer {
        /// The other node.
        node: NodeId,
    },
    /// A live node speaks none of our versions.
    NoCommonVersion {
        /// The other node.
        node: NodeId,
        /// What it speaks.
        versions: Versions,
    },
}
