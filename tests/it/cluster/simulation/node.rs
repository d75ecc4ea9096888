//! [`Node`]: a router with real links, and the applications that are there from the beginning.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use switchboard::cluster::{Bus, BusEvent, BusSettings, Inbound, Keys, NodeId, Outbound, Seed};
use switchboard::config::Config;
use switchboard::router::{Backplane, Ids, Lost, Policy, Router, Session};
use wire::command::{Role, Subscribe};
use zeroize::Zeroizing;

use crate::cluster::network::Delivery;
use crate::cluster::routing::HANDLER;
use crate::support::core::Core;

/// How often loads are announced.
const LOADS_EVERY: Duration = Duration::from_millis(500);

/// The links of a node.
pub(super) struct Plane {
    bus: Mutex<Bus>,
    now: Mutex<Instant>,
}

impl Backplane for Plane {
    fn send(&self, node: &str, message: Zeroizing<Vec<u8>>) -> Option<u64> {
        let (node, now) = (NodeId::new(node).unwrap(), *self.now.lock());
        self.bus.lock().send(now, &node, Bytes::from(message.to_vec())).ok().map(|number| number.0)
    }

    fn send_snapshot(&self, node: &str, message: Zeroizing<Vec<u8>>) {
        let (node, now) = (NodeId::new(node).unwrap(), *self.now.lock());
        self.bus.lock().snapshot(now, &node, Bytes::from(message.to_vec())).ok();
    }

    fn take_control(&self, _node: &str, _message: &[u8]) {
        // A router has no program around it here.
    }

    fn is_over_half(&self, node: &str) -> bool {
        self.bus.lock().is_over_half(&NodeId::new(node).unwrap())
    }

    fn is_complete(&self) -> bool {
        self.bus.lock().is_complete(*self.now.lock(), Duration::from_millis(250))
    }
}

/// The applications of a node that stay.
pub(super) struct Cast {
    /// Publishes and asks.
    pub(super) phone: Arc<Session>,
    /// Receives the events of its user.
    pub(super) crm: Arc<Session>,
    /// A service that receives everything, presence included.
    pub(super) board: Arc<Session>,
    /// A member of a group.
    pub(super) worker: Arc<Session>,
    /// Answers requests.
    pub(super) handler: Arc<Session>,
}

pub(super) struct Node {
    pub(super) core: Core,
    pub(super) plane: Arc<Plane>,
    pub(super) cast: Cast,
    /// Until then the process does not run. What arrives waits for it.
    pub(super) frozen: Option<Instant>,
    pub(super) waiting: Vec<Delivery>,
    /// Until then it has no connection to NATS.
    pub(super) away: Option<Instant>,
    loads_due: Instant,
    start: Instant,
}

impl Node {
    pub(super) fn new(start: Instant, number: usize, link_bytes: usize, config: &Config) -> Self {
        let settings = BusSettings {
            name: "test".to_owned(),
            node: NodeId::new(&format!("node-{number}")).unwrap(),
            keys: Keys::parse(&"01".repeat(32)).unwrap(),
            link_bytes,
            largest: 4096,
            digest: b"digest".to_vec(),
        };
        let mut bus = Bus::new(settings, Seed::Fixed(number as u64), start);
        bus.connected(start, true);
        bus.say_live(start);
        let plane = Arc::new(Plane { bus: Mutex::new(bus), now: Mutex::new(start) });
        let ids = Ids::seeded(number as u64 + 1);
        let router = Router::new(start, SystemTime::UNIX_EPOCH, Policy::new(config), ids, Vec::new());
        let core = Core { router: router.with_backplane(Arc::clone(&plane) as _), now: start };
        let cast = Cast {
            phone: core.attach(&format!("phone-{number}"), Some("alice")),
            crm: core.attach(&format!("crm-{number}"), Some("alice")),
            board: core.attach(&format!("board-{number}"), None),
            worker: core.attach(&format!("worker-{number}"), None),
            handler: core.attach(&format!("handler-{number}"), Some("alice")),
        };
        for session in [&cast.crm, &cast.board] {
            core.subscribe(session, "Calls/*/*");
            core.subscribe(session, "Broker/Cluster/Gap");
        }
        core.subscribe(&cast.board, "Broker/Application/*");
        let wanted = Subscribe::new("Queue/*/*".parse().unwrap(), Role::Subscriber);
        core.subscribe_as(&cast.worker, &Subscribe { group: Some("workers".to_owned()), ..wanted });
        core.subscribe_as(&cast.handler, &Subscribe::new("Calls/Call/Dial".parse().unwrap(), HANDLER));
        Self { core, plane, cast, frozen: None, waiting: Vec::new(), away: None, loads_due: start, start }
    }

    pub(super) fn set_now(&mut self, now: Instant) {
        self.core.now = now;
        *self.plane.now.lock() = now;
    }

    pub(super) fn bus<T>(&self, look: impl FnOnce(&mut Bus) -> T) -> T {
        look(&mut self.plane.bus.lock())
    }

    pub(super) fn receive(&self, inbound: Inbound, payload: &[u8]) {
        self.bus(|bus| bus.receive(self.core.now, inbound, payload));
    }

    /// Fires what is due. As in a broker, what has arrived comes first.
    pub(super) fn fire(&mut self) {
        let now = self.core.now;
        self.bus(|bus| bus.timeout(now));
        if now >= self.loads_due {
            self.loads_due = now + LOADS_EVERY;
            self.core.router.announce_loads();
        }
        while self.core.router.deadline().is_some_and(|deadline| deadline <= now) {
            self.core.router.expire(now);
        }
    }

    /// Passes what has happened on to the router. Returns its name.
    pub(super) fn happened(&self) -> Option<&'static str> {
        let event = self.bus(Bus::event)?;
        let Core { router, now } = &self.core;
        let now = *now;
        let lost =
            |since: Instant| Lost { since: SystemTime::UNIX_EPOCH + since.saturating_duration_since(self.start) };
        Some(match event {
            BusEvent::PeerFound { .. } | BusEvent::PeerChanged { .. } => "Peer",
            BusEvent::SnapshotWanted { node } => {
                router.peer_linked(now, node.as_str());
                "SnapshotWanted"
            }
            BusEvent::Snapshot { node, message } | BusEvent::Message { node, message } => {
                assert!(router.peer_says(now, node.as_str(), &message), "a message that cannot be read");
                "Message"
            }
            BusEvent::Acknowledged { node, number } => {
                router.peer_acknowledged(node.as_str(), number.0);
                router.peer_window_moved(now, node.as_str());
                "Acknowledged"
            }
            BusEvent::Broken { node, since, .. } => {
                router.peer_broken(now, node.as_str(), lost(since));
                "Broken"
            }
            BusEvent::Lost { node, since, .. } => {
                router.peer_lost(now, node.as_str(), lost(since));
                "Lost"
            }
            BusEvent::Paused { since } => {
                router.all_peers_lost(now, lost(since));
                "Paused"
            }
            BusEvent::CutOff => {
                router.set_cut_off(now, true);
                "CutOff"
            }
            BusEvent::Restored => {
                router.set_cut_off(now, false);
                "Restored"
            }
            BusEvent::KeysApart { .. } => panic!("all nodes have one key"),
            BusEvent::NameShared { .. } => panic!("each node has a name of its own"),
            BusEvent::Refused(refusal) => panic!("a live node is refused: {refusal:?}"),
        })
    }

    pub(super) fn transmit(&self) -> Option<Outbound> {
        let now = self.core.now;
        self.bus(|bus| bus.transmit(now))
    }
}
