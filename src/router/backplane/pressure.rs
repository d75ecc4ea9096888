//! Pressure across a link (docs/protocol.md, Pressure): publishers wait for queues on other nodes.
//!
//! The node of the receiver reports a queue over half to the node of the publisher, and once more when it is under half. There,
//! the stand-in of the receiver has a queue that counts as over half meanwhile, so that waiting for it is the code that waits
//! for a queue of this node. Both nodes keep the time that publishers may wait: the one of the receiver for its queue, the
//! one of the publisher for its connection. The window of a link over half is such a queue, too.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use parking_lot::Mutex;

use super::message::{Id, Message};
use super::peer::Peer;
use super::remote::Remote;
use crate::router::Router;
use crate::router::outbox::Pressure;
use crate::router::session::{Role, Session};

/// For how many receivers one publisher waits at most.
const RECEIVERS_MAX: usize = 64;

/// The receivers on other nodes whose queues a session has filled over half, until its next message.
#[derive(Default)]
pub(in crate::router) struct PressedElsewhere {
    any: AtomicBool,
    receivers: Mutex<Vec<Arc<Session>>>,
}

impl PressedElsewhere {
    fn note(&self, receiver: &Arc<Session>) {
        let mut receivers = self.receivers.lock();
        if receivers.len() < RECEIVERS_MAX && !receivers.iter().any(|other| Arc::ptr_eq(other, receiver)) {
            receivers.push(Arc::clone(receiver));
            self.any.store(true, Ordering::Release);
        }
    }

    /// Moves the receivers that hold publishers up still to those that a publisher waits for.
    #[inline]
    pub(in crate::router) fn take(&self, pressed: &mut Vec<Arc<Session>>) {
        if self.any.load(Ordering::Acquire) {
            self.take_some(pressed);
        }
    }

    #[cold]
    fn take_some(&self, pressed: &mut Vec<Arc<Session>>) {
        let mut receivers = self.receivers.lock();
        self.any.store(false, Ordering::Release);
        let receivers = std::mem::take(&mut *receivers);
        pressed.extend(receivers.into_iter().filter(|receiver| receiver.outbox().holds_publishers()));
    }
}

/// The queues over half of which a peer was told, by the numbers of their sessions.
pub(super) type Reports = Mutex<BTreeMap<u64, (Arc<Report>, Option<Instant>)>>;

/// Waits for a queue to be under half, and tells a peer then.
pub(super) struct Report {
    peer: Arc<Peer>,
    receiver: Arc<Session>,
    /// What [`begin_wait`](crate::router::Outbox::begin_wait) returned.
    reliefs: u64,
}

impl Report {
    /// Tells the peer if the queue was under half; otherwise it is called again when that may be.
    fn look(self: &Arc<Self>) {
        let mut reports = self.peer.reports().lock();
        let number = self.receiver.number;
        if !reports.get(&number).is_some_and(|(current, _)| Arc::ptr_eq(current, self)) {
            return;
        }
        let waker = Waker::from(Arc::clone(self));
        let outbox = self.receiver.outbox();
        if outbox.poll_under_half_since(self.reliefs, &mut Context::from_waker(&waker)).is_ready() {
            reports.remove(&number);
            // Under the lock, so that it never follows a report that came later.
            self.peer.send(&Message::Relieved { receiver: *self.receiver.id.as_bytes() });
        }
    }
}

impl Wake for Report {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

impl Peer {
    /// The queue of one of its sessions is under half.
    pub(super) fn relieved(&self, now: Instant, receiver: Id) {
        if let Some(receiver) = self.stand_in(receiver) {
            receiver.outbox().set_pressed(now, false);
        }
    }
}

/// The adapters of this node, by number: they publish, but nobody announces them.
#[derive(Default)]
pub(super) struct Adapters(Mutex<BTreeMap<u64, Weak<Session>>>);

impl Router {
    /// Tells a peer that messages of one of its sessions have filled these queues over half. `sender` 0: none that waits.
    pub(super) fn report_pressed(&self, now: Instant, peer: &Arc<Peer>, sender: u64, pressed: &[Arc<Session>]) {
        if sender == 0 {
            return;
        }
        for receiver in pressed {
            let id = *receiver.id.as_bytes();
            let mut reports = peer.reports().lock();
            let begun = match reports.entry(receiver.number) {
                Entry::Occupied(_) => None,
                Entry::Vacant(place) => {
                    let (reliefs, most) = receiver.outbox().begin_wait(now);
                    let report = Arc::new(Report { peer: Arc::clone(peer), receiver: Arc::clone(receiver), reliefs });
                    place.insert((Arc::clone(&report), Some(now + most)));
                    Some((report, now + most))
                }
            };
            peer.send(&Message::Pressed { sender, receiver: id });
            drop(reports);
            if let Some((report, until)) = begun {
                report.look();
                self.requests.wake_before(until);
            }
        }
    }

    /// The same for one queue, if it is over half.
    pub(super) fn report_if_over(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        sender: u64,
        (receiver, pressure): (&Arc<Session>, Pressure),
    ) {
        if pressure == Pressure::Over {
            self.report_pressed(now, peer, sender, std::slice::from_ref(receiver));
        }
    }

    /// A session of this node has filled the queue of a session of a peer over half.
    pub(super) fn pressed_from(&self, now: Instant, peer: &Arc<Peer>, sender: u64, receiver: Id) {
        let Some(cluster) = &self.cluster else { return };
        let Some(receiver) = self.stand_in_for(now, peer, receiver) else { return };
        if receiver.outbox().set_pressed(now, true) == Pressure::Relieved {
            return;
        }
        let adapter = || cluster.adapters.0.lock().get(&sender).and_then(Weak::upgrade);
        if let Some(sender) = cluster.announced.session(sender).or_else(adapter) {
            sender.pressed.note(&receiver);
        }
    }

    /// The window of the link to a peer is over half: its publisher waits.
    pub(super) fn window_pressed(&self, now: Instant, peer: &Peer, sender: &Session) {
        let window = peer.window();
        if window.outbox().set_pressed(now, true) == Pressure::Over {
            sender.pressed.note(window);
        }
        // It may have been acknowledged meanwhile.
        self.window_moved(now, peer);
    }

    /// A node has acknowledged messages, so its window may be under half.
    pub fn peer_window_moved(&self, now: Instant, node: &str) {
        if let Some(peer) = self.cluster.as_ref().and_then(|cluster| cluster.peer(node)) {
            self.window_moved(now, &peer);
        }
    }

    fn window_moved(&self, now: Instant, peer: &Peer) {
        let Some(cluster) = &self.cluster else { return };
        let window = peer.window().outbox();
        if window.is_over_half() && !cluster.plane.is_over_half(peer.node()) {
            window.set_pressed(now, false);
        }
    }

    /// A queue that counts as over half while the window of a link is.
    pub(super) fn window_queue(&self, now: Instant) -> Arc<Session> {
        let registration = Remote::registration("window", None);
        Arc::new(self.session(now, Role::Service, registration, None))
    }

    /// An adapter was attached.
    pub(in crate::router) fn note_adapter(&self, adapter: &Arc<Session>) {
        if let Some(cluster) = &self.cluster {
            let mut adapters = cluster.adapters.0.lock();
            adapters.retain(|_, adapter| adapter.strong_count() > 0);
            adapters.insert(adapter.number, Arc::downgrade(adapter));
        }
    }

    /// When publishers of other nodes have waited long enough for a queue of this one.
    pub(in crate::router) fn pressure_deadline(&self) -> Option<Instant> {
        let peers = self.cluster.as_ref()?.peers.load();
        let first = |peer: &Arc<Peer>| peer.reports().lock().values().filter_map(|(_, until)| *until).min();
        peers.iter().filter_map(first).min()
    }

    /// Ends the waits of publishers of other nodes that have waited long enough.
    pub(in crate::router) fn expire_pressure(&self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        for peer in cluster.peers.load().iter() {
            let mut due = Vec::new();
            for (report, until) in peer.reports().lock().values_mut() {
                if until.take_if(|until| *until <= now).is_some() {
                    due.push(Arc::clone(&report.receiver));
                }
            }
            // This wakes reports, which take that lock.
            for receiver in due {
                receiver.outbox().waited_in_vain(now);
            }
        }
    }
}
