//! `GET /v1/cluster`: the nodes of the cluster, as this one knows them, and which of them reads a topic of Salesforce.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::request::Answer;
use crate::cluster::PeerState;
use crate::salesforce::{TopicReader, TopicSnapshot};
use crate::server::cluster::{Cluster, PeerRow, View};

/// The cluster, as this node knows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterView {
    /// The name of the cluster; `null` if this broker is in none.
    cluster: Option<String>,
    /// The broker that was asked.
    node: String,
    /// Its incarnation, which is new at each start and after each pause.
    incarnation: Option<String>,
    /// The NATS server to which it is connected; `null` if there is none.
    nats: Option<String>,
    /// It does not receive its own beats.
    cut_off: bool,
    /// The version of the link protocol that is spoken.
    version: Option<u8>,
    /// The other nodes, by name.
    nodes: Vec<OtherNode>,
    /// The topics of Salesforce whose events the broker that was asked publishes, or would if no other node did, by name.
    topics: Vec<TopicRow>,
}

/// A topic of Salesforce.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TopicRow {
    /// The NAME of its table in the configuration.
    name: String,
    /// Its name in Salesforce.
    topic: String,
    /// The node that reads it; `null` if this one knows of none.
    reader: Option<String>,
    /// It is this node that reads it, and its stream of events is open.
    connected: bool,
}

/// Another node.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OtherNode {
    /// Its name.
    node: String,
    incarnation: String,
    #[schema(inline)]
    state: NodeState,
    /// It accepts sessions.
    live: bool,
    /// How long ago the last message of it arrived, in milliseconds.
    last_heard_ms: u64,
    /// What it has been sent and has not acknowledged, in bytes.
    window_bytes: usize,
    /// The lowest and the highest version of the link protocol that it speaks.
    versions: [u8; 2],
}

impl TopicRow {
    fn new(topic: TopicSnapshot, node: &str) -> Self {
        let TopicSnapshot { name, topic, reader, connected, .. } = topic;
        let reader = match reader {
            TopicReader::Here => Some(node.to_owned()),
            TopicReader::Node(node) => Some(node.to_string()),
            TopicReader::Nobody => None,
        };
        Self { name, topic, reader, connected }
    }
}

/// How the link to a node is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum NodeState {
    /// There is a link.
    Linked,
    /// There is a link, and what the node announces is awaited.
    Joining,
    /// The link broke and begins anew.
    Broken,
    /// Nothing of the node arrives.
    Lost,
}

impl From<PeerState> for NodeState {
    fn from(state: PeerState) -> Self {
        match state {
            PeerState::Linked => Self::Linked,
            PeerState::Joining => Self::Joining,
            PeerState::Broken => Self::Broken,
            PeerState::Lost => Self::Lost,
        }
    }
}

impl From<PeerRow> for OtherNode {
    fn from(peer: PeerRow) -> Self {
        Self {
            node: peer.node,
            incarnation: peer.incarnation.to_string(),
            state: peer.state.into(),
            live: peer.live,
            last_heard_ms: u64::try_from(peer.silent_for.as_millis()).unwrap_or(u64::MAX),
            window_bytes: peer.window_bytes,
            versions: [peer.versions.lowest, peer.versions.highest],
        }
    }
}

/// List the nodes of the cluster
#[utoipa::path(get, path = "/v1/cluster", responses((status = 200, description = "The nodes.", body = ClusterView)))]
pub(super) async fn cluster(State(shared): State<Shared>) -> Answer<ClusterView> {
    let topics = shared.broker.adapters.topics();
    let rows = |node: &str| topics.into_iter().map(|topic| TopicRow::new(topic, node)).collect();
    Answer(match shared.broker.cluster.as_ref().map(Cluster::view) {
        None => ClusterView {
            cluster: None,
            node: shared.node.to_string(),
            incarnation: None,
            nats: None,
            cut_off: false,
            version: None,
            nodes: Vec::new(),
            topics: rows(&shared.node),
        },
        Some(View { name, node, incarnation, nats, is_cut_off, version, peers }) => ClusterView {
            cluster: Some(name),
            topics: rows(&node),
            node,
            incarnation: Some(incarnation.to_string()),
            nats,
            cut_off: is_cut_off,
            version: Some(version),
            nodes: peers.into_iter().map(OtherNode::from).collect(),
        },
    })
}
