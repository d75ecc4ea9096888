//! The links between the nodes of a cluster: a reliable, ordered bus over an unreliable one.
//!
//! [`Bus`] is a state machine without I/O. The caller gives it time and what arrived from NATS, gives NATS what
//! [`Bus::transmit`] returns, and acts on [`Bus::event`]. It knows neither sessions nor envelopes: a message is bytes.
//!
//! What it promises, for each ordered pair of incarnations:
//!
//! - Messages arrive in the order in which they were sent, each at most once. From a snapshot on, they arrive without a gap
//!   until the link breaks or the peer is lost.
//! - After [`BusEvent::Broken`] and [`BusEvent::Lost`], nothing arrives from that peer before its next
//!   [`BusEvent::Snapshot`].
//! - A message that was sealed for another incarnation, or that was seen before, changes nothing.
//! - A peer that does not answer what is sent to it is lost after 2 s, also if packets of it still arrive. While messages move
//!   in either direction, that is 6 s: its answers may wait behind them.
//!
//! Start at `bus`: it has all peers and their timers. `peer` is one peer, `outgoing` and `incoming` are the two directions
//! of its link, `greeting` is how a peer proves that it is there, `event` is what the caller is told. `packet` is the layout of a
//! NATS message, `seal` encrypts it, `stored` encrypts what is kept in JetStream, `subject` has the names of subjects.

mod bus;
mod chance;
mod event;
mod greeting;
mod incoming;
mod lease;
mod message_bytes;
mod outgoing;
mod packet;
mod peer;
mod seal;
#[cfg(test)]
mod simulation;
mod stored;
mod subject;

pub use bus::Bus;
pub use event::{BrokenWhy, BusEvent, LostWhy, Refusal};
pub use lease::{Lease, LeaseStep, LeaseTimes};
pub use message_bytes::MessageBytes;
pub use seal::{Fingerprint, Keys, KeysError};
pub use stored::{NotOpened, STORED_SEAL_BYTES, StoredAt, StoredSealer};
pub use subject::{
    beats_subject, bucket_stream, bucket_subjects, history_stream, history_subjects, node_subject, part,
};

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

/// The lowest and the highest version of the link protocol that this program speaks.
pub const VERSIONS: Versions = Versions { lowest: 1, highest: 1 };

/// The length of a digest in a beat.
pub const DIGEST_BYTES_MAX: usize = 8 * 1024;

/// The length of a message, which is cut into parts on its way.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Peers of a node, lost ones included.
pub const PEERS_MAX: usize = 64;

/// Where and as whom this node speaks.
#[derive(Debug)]
pub struct BusSettings {
    /// The name of the cluster, `cluster.name`.
    pub name: String,
    /// The name of this node, `cluster.node`.
    pub node: NodeId,
    /// The first key seals, and all of them open.
    pub keys: Keys,
    /// The bytes of unacknowledged messages for each peer, `cluster.link_bytes`.
    pub link_bytes: usize,
    /// The length of a NATS message: min(256 KiB, half of `max_payload`). At least 1 KiB is used; beats and greetings need 256
    /// bytes more than the digest.
    pub largest: usize,
    /// What beats and greetings carry for the peers to compare. Cut off after [`DIGEST_BYTES_MAX`].
    pub digest: Vec<u8>,
}

/// Where random bytes come from: incarnations, challenges and nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// The operating system.
    System,
    /// A generator that repeats itself. For tests only: every nonce can be foreseen from the number.
    Fixed(u64),
}

/// The name of a node: 1 to 64 letters, digits, `_` and `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Returns the name if it is one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        subject::is_plain(name).then(|| Self(name.into()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The random id of a node, new at each start and after each pause. Its text is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation([u8; 16]);

impl Incarnation {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Incarnation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ())?;
        Ok(Self(bytes))
    }
}

/// The number of a message on its link, from 1. A message in several parts has the number of its last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number(pub u64);

/// A range of versions of the link protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest version that a node speaks.
    pub lowest: u8,
    /// The highest one.
    pub highest: u8,
}

impl Versions {
    /// Returns whether there is a version that both speak.
    #[must_use]
    pub fn share_one_with(self, other: Self) -> bool {
        self.lowest <= other.highest && other.lowest <= self.highest
    }
}

/// Which of this node's two subscriptions a NATS message arrived on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// The beats of all nodes: [`Bus::beats_subject`].
    Beats,
    /// The link messages to this incarnation: [`Bus::node_subject`] when it was subscribed to.
    Node(Incarnation),
}

/// A message to give to NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The subject to publish it on.
    pub subject: String,
    /// What is published; at most [`BusSettings::largest`] bytes.
    pub payload: Vec<u8>,
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLink {
    /// The peer is unknown or lost, or its link is broken or waits for a snapshot.
    #[error("no link with this node")]
    Down,
    /// This message exceeded the window, so the link broke.
    #[error("the window of this link is exceeded")]
    WindowExceeded,
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("the message is too long for a link")]
    TooLong,
}

/// How a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// There is a link, and this node has the peer's snapshot.
    Linked,
    /// There is a link, and the peer's snapshot is awaited.
    Joining,
    /// The link is broken and begins anew.
    Broken,
    /// The peer is lost.
    Lost,
}

/// A peer, as operators and the router see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView<'a> {
    /// The peer's name.
    pub node: &'a NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// How it is.
    pub state: PeerState,
    /// Whether it said that it accepts sessions.
    pub live: bool,
    /// Its digest.
    pub digest: &'a [u8],
    /// The peer has answered what was sent to it then.
    pub last_heard: Instant,
    /// The size of the messages that it has not acknowledged, at most [`BusSettings::link_bytes`].
    pub window_bytes: usize,
    /// The versions that it speaks.
    pub versions: Versions,
}

/// What a bus has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusCounts {
    /// NATS messages sent.
    pub packets_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// NATS messages received, whatever was in them.
    pub packets_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Messages that [`Bus::send`] and [`Bus::snapshot`] queued.
    pub messages_sent: u64,
    /// Messages and snapshots received.
    pub messages_received: u64,
    /// Parts that were sent again.
    pub parts_resent: u64,
    /// Links that broke.
    pub broken: u64,
    /// Peers that were lost.
    pub lost: u64,
    /// Pauses of this node.
    pub paused: u64,
    /// Times that this node was cut off.
    pub cut_off: u64,
    /// Packets sealed with a key that this node does not have.
    pub unknown_keys: u64,
    /// Packets that did not open, though the key is known.
    pub unopened: u64,
    /// Packets that were seen before, or overtaken by a later one.
    pub repeated: u64,
    /// Packets for an earlier incarnation, or from one without a link.
    pub strangers: u64,
    /// Packets that opened, but make no sense.
    pub malformed: u64,
    /// Packets dropped because the caller had not taken the events before; the peer sends them again.
    pub events_full: u64,
    /// Peers without a link because there are [`PEERS_MAX`] others.
    pub peers_full: u64,
    /// Peers without a link because they have this node's name, none of its versions, or keys that do not match.
    pub refused: u64,
    /// Packets that were not sent because the system gave no random numbers.
    pub no_randomness: u64,
}
