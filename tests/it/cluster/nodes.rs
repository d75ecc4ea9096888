//! [`Nodes`]: several routers with links between them that deliver when the test says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde_json::Value;
use switchboard::config::{Cluster, Config};
use switchboard::router::{Backplane, CommitQueue, Ids, Lost, Policy, Router, Session, Size, Subscribed, ValueOutcome};
use wire::command::Subscribe;
use zeroize::Zeroizing;

use super::kept::{Logs, Outcome, Queues};
use super::storage::{Keeper, Put, Storage};
use crate::support::client::Desk;
use crate::support::core::Core;

/// What is under way to each node: from which one, and what.
type UnderWay = Arc<Vec<Mutex<VecDeque<(usize, Packet)>>>>;

enum Packet {
    Snapshot(Vec<u8>),
    Message(u64, Vec<u8>),
}

/// The links of one node.
struct Links {
    node: usize,
    numbers: Mutex<Vec<u64>>,
    /// The nodes to which there is a link.
    up: Mutex<Vec<bool>>,
    /// The nodes to which the window counts as over half.
    over_half: Mutex<Vec<bool>>,
    /// Whether every live node is linked, and was not silent.
    complete: AtomicBool,
    under_way: UnderWay,
}

impl Backplane for Links {
    fn send(&self, node: &str, message: Zeroizing<Vec<u8>>) -> Option<u64> {
        let to = number(node);
        if !self.up.lock()[to] {
            return None;
        }
        // Held over both, so that the order is that of the numbers.
        let mut under_way = self.under_way[to].lock();
        let number = {
            let mut numbers = self.numbers.lock();
            numbers[to] += 1;
            numbers[to]
        };
        under_way.push_back((self.node, Packet::Message(number, message.to_vec())));
        Some(number)
    }

    fn send_snapshot(&self, node: &str, message: Zeroizing<Vec<u8>>) {
        let to = number(node);
        self.up.lock()[to] = true;
        self.under_way[to].lock().push_back((self.node, Packet::Snapshot(message.to_vec())));
    }

    fn take_control(&self, _node: &str, _message: &[u8]) {
        // A router has no program around it here.
    }

    fn is_over_half(&self, node: &str) -> bool {
        self.over_half.lock()[number(node)]
    }

    fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }
}

fn name(node: usize) -> String {
    format!("node-{node}")
}

fn number(node: &str) -> usize {
    node.strip_prefix("node-").unwrap().parse().unwrap()
}

/// Routers that know each other.
pub(super) struct Nodes {
    desks: Vec<Desk>,
    links: Vec<Arc<Links>>,
    under_way: UnderWay,
    keepers: Vec<Arc<Keeper>>,
    queues: Vec<Queues>,
    /// The events of each node that wait for the storage, and are for no log.
    values: Vec<CommitQueue>,
    /// What they keep together.
    pub(super) storage: Arc<Storage>,
    /// The logs that they keep together.
    pub(super) logs: Logs,
    /// How often gaps were read.
    gaps: AtomicU32,
}

impl Nodes {
    /// This many routers, which are linked.
    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter")]
    pub(super) fn new(count: usize, config: &Config) -> Self {
        let now = Instant::now();
        let under_way: UnderWay = Arc::new((0..count).map(|_| Mutex::default()).collect());
        let links: Vec<_> = (0..count)
            .map(|node| {
                let (numbers, up) = (Mutex::new(vec![0; count]), Mutex::new(vec![false; count]));
                let over_half = Mutex::new(vec![false; count]);
                let complete = AtomicBool::new(true);
                Arc::new(Links { node, numbers, up, over_half, complete, under_way: Arc::clone(&under_way) })
            })
            .collect();
        let storage = Arc::<Storage>::default();
        let keepers: Vec<_> = (0..count).map(|node| Arc::new(Keeper::new(name(node), &storage))).collect();
        let mut queues = Vec::new();
        // As the name says: retained values are kept for all nodes.
        let cluster = Cluster { name: "test".to_owned(), ..config.cluster.clone() };
        let config = &Config { cluster, ..config.clone() };
        let core = |node: &Arc<Links>| {
            let ids = Ids::seeded(node.node as u64 + 1);
            let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(config), ids, Vec::new());
            let router = router.with_leases(Arc::clone(&keepers[node.node]) as _);
            let router =
                router.with_backplane(Arc::clone(node) as _).with_node(&name(node.node), &[Zeroizing::new([7; 32])]);
            let (router, queue) = Queues::attach(router);
            queues.push(queue);
            Desk::of(Core { router, now }, config)
        };
        let desks: Vec<_> = links.iter().map(core).collect();
        let values = desks.iter().map(|_| CommitQueue::default()).collect();
        let (logs, gaps) = (Logs::default(), AtomicU32::new(0));
        let nodes = Self { desks, links, under_way, keepers, queues, values, storage, logs, gaps };
        for one in 0..count {
            for other in (0..count).filter(|other| *other != one) {
                nodes.desks[one].core.router.peer_linked(now, &name(other));
            }
        }
        nodes.settle();
        nodes
    }

    /// The leases of a node.
    pub(super) fn keeper(&self, node: usize) -> &Keeper {
        &self.keepers[node]
    }

    pub(super) fn node(&self, node: usize) -> &Core {
        &self.desks[node].core
    }

    /// What the connections of a node share.
    pub(super) fn desk(&self, node: usize) -> &Desk {
        &self.desks[node]
    }

    /// Delivers and acknowledges everything that is under way, and what follows from it.
    pub(super) fn settle(&self) {
        let step = |node| {
            self.deliver_one(node)
                || self.answer_one(node)
                || self.put_one(node)
                || self.store_one(node)
                || self.read_one(node)
        };
        while (0..self.desks.len()).any(step) {}
    }

    /// Puts what the next event of a node needs into the storage, and lets the node deliver it. Returns whether there was one.
    pub(super) fn put_one(&self, node: usize) -> bool {
        self.begin_put(node).map(|put| self.end_put(node, put)).is_some()
    }

    /// The first half of that.
    pub(super) fn begin_put(&self, node: usize) -> Option<Put> {
        let Core { router, now } = &self.desks[node].core;
        self.queues[node].sort(router, &self.values[node]);
        self.storage.begin_put(router, *now, &self.values[node])
    }

    /// The second half.
    pub(super) fn end_put(&self, node: usize, put: Put) {
        Storage::end_put(&self.desks[node].core.router, self.desks[node].core.now, put);
    }

    /// Lets a node read all values.
    pub(super) fn read_values(&self, node: usize) {
        self.storage.read(&self.desks[node].core.router, self.desks[node].core.now);
    }

    /// Answers the next claim of a lease of a node. Returns whether there was one.
    pub(super) fn answer_one(&self, node: usize) -> bool {
        self.keepers[node].answer_one(&self.desks[node].core.router)
    }

    /// Stores the next event of a node. Returns whether there was one.
    pub(super) fn store_one(&self, node: usize) -> bool {
        let stored = self.store_only(node);
        stored.is_some_and(|outcome| {
            self.tell_stored(node, outcome);
            true
        })
    }

    /// Stores the next event of a node, which does not know yet.
    pub(super) fn store_only(&self, node: usize) -> Option<Outcome> {
        self.queues[node].sort(&self.desks[node].core.router, &self.values[node]);
        self.queues[node].store_one(&self.desks[node].core.router, &self.logs, node)
    }

    /// Puts the value of an event that was stored, if it has one, and tells its node what became of both.
    pub(super) fn tell_stored(&self, node: usize, (append, outcome): Outcome) {
        let Core { router, now } = &self.desks[node].core;
        let place = outcome.as_ref().ok().and_then(|places| places.first()).filter(|_| append.has_value());
        let value = place.and_then(|place| match place.is_duplicate {
            true => {
                let first = self.logs.entry(&append.logs()[0], place.position.offset)?;
                Some((router.value_of_first(&append, &place.position, &first)?, true))
            }
            false => Some((append.value(&place.position)?, false)),
        });
        let value = value.map_or(ValueOutcome::Nothing, |(value, is_again)| self.storage.put_logged(value, is_again));
        router.appended(*now, append, outcome, value);
    }

    /// Reads once for a node. Returns whether something was to be read.
    pub(super) fn read_one(&self, node: usize) -> bool {
        let Core { router, now } = &self.desks[node].core;
        self.queues[node].read_one(*now, router, &self.logs)
    }

    /// Lets a node read what it has missed for longer than it waits for it.
    pub(super) fn read_gaps(&self, node: usize) {
        let Core { router, now } = &self.desks[node].core;
        let times = self.gaps.fetch_add(1, Ordering::Relaxed) + 1;
        router.expire(*now + times * Duration::from_millis(101));
    }

    /// Subscribes to what needs something of a log. `meanwhile` is called whenever it waits.
    pub(super) fn subscribe_logged(
        &self,
        node: usize,
        session: &Arc<Session>,
        wanted: &Subscribe,
        mut meanwhile: impl FnMut(),
    ) -> Result<Subscribed, &'static str> {
        let Core { router, now } = &self.desks[node].core;
        let (mut found, mut told) = (None, None);
        loop {
            let tell = |subscribed: Subscribed| {
                told = Some(subscribed);
                None
            };
            let waits = router.subscribe_when_read(*now, session, wanted, found.take(), tell);
            let Some(mut ticket) = waits.map_err(|refusal| refusal.code.as_str())? else { break };
            found = loop {
                match ticket.poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(found) => break Some(found),
                    Poll::Pending => {
                        meanwhile();
                        self.read_one(node);
                    }
                }
            };
        }
        Ok(told.unwrap())
    }

    /// Delivers and acknowledges the next message to a node. Returns whether there was one.
    pub(super) fn deliver_one(&self, to: usize) -> bool {
        let Some((from, packet)) = self.under_way[to].lock().pop_front() else { return false };
        let Core { router, now } = &self.desks[to].core;
        match packet {
            Packet::Snapshot(bytes) => assert!(router.peer_says(*now, &name(from), &bytes)),
            Packet::Message(number, bytes) => {
                assert!(router.peer_says(*now, &name(from), &bytes));
                self.desks[from].core.router.peer_acknowledged(&name(to), number);
            }
        }
        true
    }

    /// Says whether the window from one node to another is over half.
    pub(super) fn set_over_half(&self, from: usize, to: usize, is_over_half: bool) {
        self.links[from].over_half.lock()[to] = is_over_half;
        let Core { router, now } = &self.desks[from].core;
        router.peer_window_moved(*now, &name(to));
    }

    /// Says whether a node knows of every live node what it announced lately.
    pub(super) fn set_complete(&self, node: usize, is_complete: bool) {
        self.links[node].complete.store(is_complete, Ordering::Relaxed);
    }

    /// Loses the links between a node and all others, with what is under way.
    pub(super) fn lose(&self, node: usize) {
        self.under_way[node].lock().clear();
        self.under_way.iter().for_each(|to| to.lock().retain(|(from, _)| *from != node));
        for other in (0..self.desks.len()).filter(|other| *other != node) {
            for (one, other) in [(node, other), (other, node)] {
                self.links[one].up.lock()[other] = false;
                let Core { router, now } = &self.desks[one].core;
                router.peer_lost(*now, &name(other), Lost { since: SystemTime::UNIX_EPOCH });
            }
        }
    }

    /// Links a node with all others again.
    pub(super) fn find(&self, node: usize) {
        for other in (0..self.desks.len()).filter(|other| *other != node) {
            for (one, other) in [(node, other), (other, node)] {
                let Core { router, now } = &self.desks[one].core;
                router.peer_linked(*now, &name(other));
            }
        }
        self.settle();
    }

    /// Sends a text from a session of a node, and delivers what follows. Returns the code if it was refused.
    pub(super) fn send(&self, node: usize, session: &Arc<Session>, text: &str) -> Result<(), &'static str> {
        let sent = self.desks[node].core.send(session, text).map(drop).map_err(|denied| denied.refusal.code.as_str());
        self.settle();
        sent
    }

    /// What waits for a session of a node.
    pub(super) fn take(&self, node: usize, session: &Session) -> Vec<Value> {
        self.desks[node].core.take(session)
    }

    /// Delivers to a node until something is over. In a thread of its own.
    pub(super) fn deliver_until(&self, node: usize, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Acquire) {
            if !self.deliver_one(node) {
                thread::yield_now();
            }
        }
    }

    /// Ends the memory of sessions that have moved, and of those that are away. Nothing is left then on these nodes.
    #[track_caller]
    pub(super) fn expect_nothing_left(&self, nodes: impl IntoIterator<Item = usize>) {
        self.settle();
        for _ in 0..3 {
            for Core { router, now } in self.desks.iter().map(|desk| &desk.core) {
                router.expire(*now + Duration::from_mins(5));
            }
            self.settle();
        }
        for node in nodes {
            let router = &self.desks[node].core.router;
            assert_eq!(router.size(), Size::default(), "node {node}");
            assert!(!router.has_sessions_to_move(), "node {node}");
        }
    }
}

/// Tells other threads that it is over, also if the thread that has it fails.
pub(super) struct Over<'a>(pub(super) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
