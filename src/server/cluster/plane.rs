//! [`Plane`]: the links to other nodes, which every thread of the router gives messages to.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use zeroize::Zeroizing;

use super::clock::Clock;
use super::reload::{Control, Reloads, WAITING_MAX};
use super::{PeerRow, View};
use crate::cluster::{Bus, BusEvent, BusSettings, Inbound, Incarnation, Keys, NodeId, Outbound, PeerState, Seed};
use crate::config;
use crate::router::Backplane;
use crate::telemetry::metrics::ClusterGauges;

/// The largest NATS message before NATS has said what it takes.
const LARGEST: usize = 256 << 10;

/// How old what is known of another node may be.
const FRESH: Duration = Duration::from_millis(250);

/// The links, and what wakes the thread that serves them.
pub(super) struct Plane {
    bus: Mutex<Bus>,
    clock: Clock,
    /// There is something to transmit.
    wake: Notify,
    node: NodeId,
    digest: Vec<u8>,
    state: Mutex<State>,
    reloads: Reloads,
    controls: mpsc::Sender<Control>,
    /// Taken once.
    waiting: Mutex<Option<mpsc::Receiver<Control>>>,
}

#[derive(Default)]
struct State {
    /// The server that is connected.
    nats: Option<String>,
    is_cut_off: bool,
    /// How often NATS was connected.
    connects: u64,
}

impl Plane {
    pub(super) fn new(settings: &config::Cluster, node: NodeId, keys: Keys, digest: Vec<u8>) -> Self {
        let clock = Clock::new();
        let settings = BusSettings {
            name: settings.name.clone(),
            node: node.clone(),
            keys,
            link_bytes: settings.link_bytes,
            largest: LARGEST,
            digest: digest.clone(),
        };
        let bus = Bus::new(settings, Seed::System, clock.now());
        let (controls, waiting) = mpsc::channel(WAITING_MAX);
        Self {
            bus: Mutex::new(bus),
            clock,
            wake: Notify::new(),
            node,
            digest,
            state: Mutex::default(),
            reloads: Reloads::default(),
            controls,
            waiting: Mutex::new(Some(waiting)),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(super) fn node(&self) -> &NodeId {
        &self.node
    }

    /// The reloads of all nodes.
    pub(super) fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// The messages of the programs of other nodes. `None` after the first call.
    pub(super) fn take_controls(&self) -> Option<mpsc::Receiver<Control>> {
        self.waiting.lock().take()
    }

    /// Says from now on that this is what all nodes have in common.
    pub(super) fn digest_changed(&self, digest: Vec<u8>) {
        self.bus.lock().digest_changed(self.now(), digest);
        self.wake.notify_one();
    }

    /// What this node has in common with the others at its start.
    pub(super) fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// Says what NATS takes: half of that is used.
    pub(super) fn set_largest(&self, max_payload: usize) {
        self.bus.lock().set_largest(LARGEST.min(max_payload / 2));
    }

    /// Lets the thread that serves the links look again.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn subjects(&self) -> (String, String, Incarnation) {
        let bus = self.bus.lock();
        (bus.node_subject(), bus.beats_subject(), bus.incarnation())
    }

    pub(super) fn receive(&self, from: Inbound, bytes: &[u8]) {
        self.bus.lock().receive(self.now(), from, bytes);
    }

    pub(super) fn transmit(&self) -> Option<Outbound> {
        self.bus.lock().transmit(self.now())
    }

    pub(super) fn event(&self) -> Option<BusEvent> {
        self.bus.lock().event()
    }

    pub(super) fn timeout(&self) {
        self.bus.lock().timeout(self.now());
    }

    /// How long until the bus wants to be called.
    pub(super) fn sleep(&self) -> Option<Duration> {
        let deadline = self.bus.lock().deadline();
        deadline.map(|at| at.saturating_duration_since(self.now()))
    }

    /// Notes the server that is connected. Returns whether it was another one before, or none.
    pub(super) fn set_connected(&self, server: Option<String>) -> bool {
        self.bus.lock().connected(self.now(), server.is_some());
        let mut state = self.state.lock();
        state.connects += u64::from(state.nats.is_none() && server.is_some());
        let is_new = state.nats != server;
        state.nats = server;
        is_new
    }

    pub(super) fn set_cut_off(&self, is_cut_off: bool) {
        self.state.lock().is_cut_off = is_cut_off;
    }

    pub(super) fn is_well(&self) -> bool {
        let state = self.state.lock();
        state.nats.is_some() && !state.is_cut_off
    }

    pub(super) fn say_live(&self) {
        self.bus.lock().say_live(self.now());
    }

    /// Ready when there may be something to transmit.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What metrics show of the cluster.
    pub(super) fn gauges(&self) -> ClusterGauges {
        let (is_connected, connects) = {
            let state = self.state.lock();
            (state.nats.is_some(), state.connects)
        };
        let bus = self.bus.lock();
        let counts = bus.counts();
        let linked = || bus.peers().filter(|peer| peer.state == PeerState::Linked);
        ClusterGauges {
            is_connected,
            nodes: 1 + linked().count(),
            window_bytes: linked().map(|peer| peer.window_bytes).sum(),
            messages: [counts.messages_received, counts.messages_sent],
            bytes: [counts.bytes_received, counts.bytes_sent],
            reconnects: connects.saturating_sub(1),
            links_broken: counts.broken,
            nodes_lost: counts.lost,
            resent: counts.parts_resent,
            unopened: counts.unopened + counts.unknown_keys,
        }
    }

    /// Whether every live peer has a link and has said what it announces.
    pub(super) fn is_joined(&self) -> bool {
        self.bus.lock().peers().filter(|peer| peer.live).all(|peer| peer.state == PeerState::Linked)
    }

    /// Whether a peer has not acknowledged everything.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.bus.lock().peers().any(|peer| peer.state == PeerState::Linked && peer.window_bytes > 0)
    }

    pub(super) fn view(&self, name: &str) -> View {
        let (nats, is_cut_off) = {
            let state = self.state.lock();
            (state.nats.clone(), state.is_cut_off)
        };
        let now = self.now();
        let bus = self.bus.lock();
        let peers = bus.peers().map(|peer| PeerRow {
            node: peer.node.to_string(),
            incarnation: peer.incarnation,
            state: peer.state,
            live: peer.live,
            silent_for: now.saturating_duration_since(peer.last_heard),
            window_bytes: peer.window_bytes,
            versions: peer.versions,
        });
        View {
            name: name.to_owned(),
            node: self.node.to_string(),
            incarnation: bus.incarnation(),
            nats,
            is_cut_off,
            version: bus.version(),
            peers: peers.collect(),
        }
    }
}

impl Backplane for Plane {
    fn send(&self, node: &str, message: Zeroizing<Vec<u8>>) -> Option<u64> {
        let node = NodeId::new(node)?;
        // Wiped when the last reference is dropped: it may hold a password.
        let number = self.bus.lock().send(self.now(), &node, Bytes::from_owner(message)).ok();
        self.wake.notify_one();
        number.map(|number| number.0)
    }

    fn send_snapshot(&self, node: &str, message: Zeroizing<Vec<u8>>) {
        let Some(node) = NodeId::new(node) else { return };
        if let Err(error) = self.bus.lock().snapshot(self.now(), &node, Bytes::from_owner(message)) {
            tracing::debug!(%node, %error, "no snapshot was sent");
        }
        self.wake.notify_one();
    }

    fn take_control(&self, node: &str, message: &[u8]) {
        if self.controls.try_send((node.to_owned(), message.to_vec())).is_err() {
            tracing::warn!(node, "a message of another node is dropped, because too many wait");
        }
    }

    fn is_over_half(&self, node: &str) -> bool {
        NodeId::new(node).is_some_and(|node| self.bus.lock().is_over_half(&node))
    }

    fn is_complete(&self) -> bool {
        self.bus.lock().is_complete(self.now(), FRESH)
    }
}
