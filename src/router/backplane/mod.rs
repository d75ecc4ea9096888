//! [`Backplane`]: other nodes of a cluster, as far as routing is concerned (docs/cluster.md).
//!
//! A node knows what its peers announce, and tells them what it announces itself (`announce`). A session of a peer that
//! handles requests, or is in a group, has a *stand-in* here: a session like any other, with its subscriptions in the index,
//! whose messages leave by the link ([`remote::Remote`]). So choosing between handlers, ending their requests when they leave and
//! giving idempotent ones to others is the code that serves sessions of this node. A request that comes by a link has a
//! stand-in, too, for its requester.
//!
//! `message` is what is said, `peer` what is known of a peer, `acknowledged` which changes it has taken, `cut_off` what is
//! remembered of one that is lost, `inbox` holds back what must not overtake an event of a log, `events` and `requests`
//! are how both cross a link. `narrowing` is what sessions elsewhere may receive, `load` how busy they are, `pressure` how
//! publishers wait for their queues. `retained` are the values that a cluster keeps, `missed` those that have to be read,
//! `moving` is how a session gets to another node, `asking` is what operators want of all nodes, `records` is what an adapter
//! keeps that events make old. Nothing here waits: what a link cannot take breaks it, and its peer's stand-ins end.

mod acknowledged;
mod announce;
mod asking;
mod cut_off;
mod date;
mod events;
mod inbox;
pub(super) mod load;
pub(super) mod message;
mod missed;
pub(super) mod moving;
mod narrowing;
mod peer;
pub(super) mod pressure;
mod records;
pub(super) mod remote;
mod requests;
mod retained;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use crate::router::history::LogName;
use crate::router::session::{Role, Session};
use crate::router::{Application, Router};
use crate::store::history::Place;
use acknowledged::Checks;
use announce::Announced;
use asking::Asks;
pub(super) use asking::{Answered, Answers};
use cut_off::CutOff;
use load::ChangedLoads;
use message::Message;
use missed::MissedValues;
use moving::Moves;
pub use moving::{Fetched, MoveTicket, Steady};
pub use peer::Lost;
pub(super) use peer::Peer;
use pressure::Adapters;
pub use records::RecordCache;
pub(super) use retained::Revised;

/// What carries messages to other nodes. Messages to one node arrive in the order in which they were given, once, or the
/// link breaks and [`Router::peer_lost`] is called. It never waits, and calls nothing of the router.
pub trait Backplane: Send + Sync {
    /// Gives a message to the link to a node. Returns its number on that link; `None` if there is no link.
    fn send(&self, node: &str, message: Zeroizing<Vec<u8>>) -> Option<u64>;

    /// Gives a snapshot to the link to a node, which begins with it.
    fn send_snapshot(&self, node: &str, message: Zeroizing<Vec<u8>>);

    /// Takes a message that the program of another node gave to [`Router::send_control`].
    fn take_control(&self, node: &str, message: &[u8]);

    /// Returns whether the window of the link to a node is over half full.
    fn is_over_half(&self, node: &str) -> bool;

    /// Returns whether there is a link to every live node, and something of each arrived in the last 250 ms.
    fn is_complete(&self) -> bool;
}

/// The cluster, as one node of it knows it.
pub(super) struct Cluster {
    plane: Arc<dyn Backplane>,
    /// The nodes to which there is a link, in the order of their names.
    peers: ArcSwap<Vec<Arc<Peer>>>,
    announced: Announced,
    cut_off: CutOff,
    /// The handlers whose load has changed.
    loads: Arc<ChangedLoads>,
    adapters: Adapters,
    missed: MissedValues,
    moves: Moves,
    asks: Asks,
    /// What an adapter keeps of records that peers report changes of.
    record_cache: OnceLock<Arc<dyn RecordCache>>,
}

impl Cluster {
    fn new(plane: Arc<dyn Backplane>) -> Self {
        Self {
            plane,
            peers: ArcSwap::default(),
            announced: Announced::default(),
            cut_off: CutOff::default(),
            loads: Arc::default(),
            adapters: Adapters::default(),
            missed: MissedValues::default(),
            moves: Moves::default(),
            asks: Asks::default(),
            record_cache: OnceLock::new(),
        }
    }

    fn peer(&self, node: &str) -> Option<Arc<Peer>> {
        let peers = self.peers.load();
        let at = peers.binary_search_by(|peer| peer.node().cmp(node)).ok()?;
        peers.get(at).map(Arc::clone)
    }

    fn send(&self, peer: &Peer, message: &Message<'_>) -> Option<u64> {
        self.plane.send(peer.node(), message.write())
    }
}

impl Router {
    /// Makes it a node of a cluster.
    #[must_use]
    pub fn with_backplane(self, plane: Arc<dyn Backplane>) -> Self {
        Self { cluster: Some(Box::new(Cluster::new(plane))), ..self }
    }

    /// Gives a message to the link to a node. Returns `false` if there is none.
    pub(super) fn say_to(&self, node: &str, message: &Message<'_>) -> bool {
        let peer = self.cluster.as_ref().and_then(|cluster| cluster.peer(node));
        peer.is_some_and(|peer| peer.send(message))
    }

    /// Whether it is a node of a cluster.
    pub(super) fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// A link to a node begins: it gets everything that this node announces, and nothing is announced meanwhile.
    pub fn peer_linked(&self, now: Instant, node: &str) {
        let Some(cluster) = &self.cluster else { return };
        self.forget_and_begin(now, cluster, node);
        cluster.cut_off.found(node);
        cluster.announced.snapshot(&*cluster.plane, node);
        if let Some(peer) = cluster.peer(node) {
            // Until it knows what is wanted here, it does not send what it appends to logs.
            if let Some(number) = cluster.send(&peer, &Message::Mark) {
                peer.acknowledged().check_all(number);
            }
        }
    }

    /// The link to a node broke, and begins anew. What the node announced is void, but it may still get what this one does.
    pub fn peer_broken(&self, now: Instant, node: &str, lost: Lost) {
        let Some(cluster) = &self.cluster else { return };
        self.forget_and_begin(now, cluster, node);
        self.tell_gap(now, lost);
    }

    /// Forgets what a node has announced, and knows it as one that has announced nothing yet.
    fn forget_and_begin(&self, now: Instant, cluster: &Cluster, node: &str) {
        let before = cluster.peer(node);
        let new = Arc::new(Peer::new(node, Arc::clone(&cluster.plane), self.window_queue(now)));
        cluster.peers.rcu(|peers| {
            let mut peers: Vec<_> = peers.iter().filter(|peer| peer.node() != node).cloned().collect();
            peers.push(Arc::clone(&new));
            peers.sort_unstable_by(|one, other| one.node().cmp(other.node()));
            peers
        });
        if let Some(before) = before {
            self.forget_peer(now, &before);
        }
    }

    /// A node is lost. Its applications are reported as gone, requests that they handle end, and requests that they asked are
    /// cancelled.
    pub fn peer_lost(&self, now: Instant, node: &str, lost: Lost) {
        let Some(cluster) = &self.cluster else { return };
        let Some(peer) = cluster.peer(node) else { return };
        cluster.peers.rcu(|peers| peers.iter().filter(|peer| peer.node() != node).cloned().collect::<Vec<_>>());
        self.forget_peer(now, &peer);
        self.values_not_due(&peer);
        self.tell_gap(now, lost);
        // What it has appended to logs, and not sent any more.
        self.check_all_logs();
    }

    /// Every link is lost, because this node stood still.
    pub fn all_peers_lost(&self, now: Instant, lost: Lost) {
        let Some(cluster) = &self.cluster else { return };
        for peer in cluster.peers.swap(Arc::default()).iter() {
            self.forget_peer(now, peer);
            self.values_not_due(peer);
        }
        self.tell_gap(now, lost);
    }

    /// A node has taken every message up to this number.
    pub fn peer_acknowledged(&self, node: &str, number: u64) {
        let Some(peer) = self.cluster.as_ref().and_then(|cluster| cluster.peer(node)) else { return };
        let Checks { all, logs } = peer.acknowledged().reached(number);
        if all {
            return self.check_all_logs();
        }
        for log in &logs {
            self.check_log(&LogName::from(log));
        }
    }

    /// Gives the program of another node a message that is not about sessions. Returns `false` if there is no link.
    pub fn send_control(&self, node: &str, message: &[u8]) -> bool {
        let peer = self.cluster.as_ref().and_then(|cluster| cluster.peer(node));
        peer.is_some_and(|peer| peer.send(&Message::Control(message)))
    }

    /// A message arrived by the link to a node. Returns `false` if it cannot be read.
    pub fn peer_says(&self, now: Instant, node: &str, bytes: &[u8]) -> bool {
        let Some(peer) = self.cluster.as_ref().and_then(|cluster| cluster.peer(node)) else { return true };
        let Some(message) = Message::read(bytes) else { return false };
        if message.is_announcement() {
            self.handle(now, &peer, &message);
        } else if peer.inbox.begin(bytes) {
            self.handle(now, &peer, &message);
            self.handle_held(now, &peer);
        } else if peer.inbox.resume() {
            // It holds as much as it may.
            self.handle_held(now, &peer);
        }
        true
    }

    fn handle(&self, now: Instant, peer: &Arc<Peer>, message: &Message<'_>) {
        match message {
            Message::Snapshot { changes } => self.begin_anew(now, peer, changes),
            Message::Change(change) => self.changed(now, peer, change),
            Message::Event(event) => self.event_from(now, peer, event),
            Message::Grouped { subscription, group, event } => {
                self.grouped_from(now, peer, (*subscription, group), event);
            }
            Message::Returned { group, event } => self.returned_from(now, peer, group, event),
            Message::Request(request) => self.request_from(now, peer, request),
            Message::Gone(part) => self.gone_from(now, peer, *part),
            Message::Answer { part, sender, more, text } => {
                self.answer_from(now, peer, (*part, *sender), *more, text);
            }
            Message::Failed { part, code, words } => self.failure_from(now, peer, *part, code, words),
            Message::Cancel { part, late } => self.cancel_from(now, peer, *part, *late),
            Message::Loads(loads) => peer.set_loads(loads),
            Message::Pressed { sender, receiver } => self.pressed_from(now, peer, *sender, *receiver),
            Message::Relieved { receiver } => peer.relieved(now, *receiver),
            Message::Control(bytes) => peer.take_control(bytes),
            Message::Retained { revision, is_event, by_service, event } => {
                self.retained_from(
                    now,
                    peer,
                    event,
                    Revised { revision: *revision, by_service: *by_service },
                    *is_event,
                );
            }
            Message::Cleared { revision, user, triple, target } => {
                let (triple, target) = (Box::from(*triple), target.map(Box::from));
                let place = Place { user: user.map(Box::from), triple, target };
                self.take_over_value(now, &place, None, *revision);
            }
            Message::ReadValues => self.note_values_missed(),
            Message::RecordsChanged { event } => self.records_changed_elsewhere(*event),
            Message::AskLease { claim, lease } => self.lease_asked(now, peer, *claim, *lease),
            Message::Lease { claim, lease, answer } => self.lease_told(now, peer, *claim, *lease, *answer),
            Message::Moving(moving) => self.moving_from(now, peer, moving),
            Message::Ask { ask, question } => self.asked_from(now, peer, *ask, question),
            Message::Told { ask, answer } => self.told_from(now, peer, *ask, *answer),
            Message::Mark => {}
        }
    }
}

impl Router {
    /// Returns whether the applications of some live node may be missing, or out of date by more than 250 ms.
    pub fn applications_are_partial(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| !cluster.plane.is_complete())
    }

    /// Adds the applications of other nodes whose user `fits`, together with those of the same name that are there.
    pub(super) fn applications_elsewhere(&self, fits: impl Fn(Option<&str>) -> bool, rows: &mut Vec<Application>) {
        let Some(cluster) = &self.cluster else { return };
        let before = rows.len();
        cluster.peers.load().iter().for_each(|peer| peer.applications(&fits, rows));
        if rows.len() > before {
            join_rows(rows);
        }
    }
}

/// Makes one row of those of one application on several nodes.
fn join_rows(rows: &mut Vec<Application>) {
    let key = |row: &Application| (row.user.is_none(), row.user.clone(), row.source.clone());
    rows.sort_by_cached_key(key);
    rows.dedup_by(|later, row| {
        let is_same = later.source == row.source && later.user == row.user;
        if is_same {
            row.since = row.since.min(later.since);
            row.sessions += later.sessions;
            row.state = row.state.livelier(later.state);
        }
        is_same
    });
}

impl Session {
    /// Returns whether it is a registered application of this node: not an adapter, not a call over HTTP, and not the stand-in
    /// of a session elsewhere.
    pub(in crate::router) fn is_application(&self) -> bool {
        self.role != Role::Adapter && !self.is_call() && self.remote().is_none()
    }
}
