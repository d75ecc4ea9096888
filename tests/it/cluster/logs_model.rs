//! Random play of nodes with history: every subscriber sees one log without a gap, and the last retained value of a triple,
//! whatever is late.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use switchboard::router::Session;
use switchboard::store::history::LogName;
use wire::command::Recover;

use super::kept::Outcome;
use super::logs::{nodes, offsets, take_replay, wanted};
use super::nodes::Nodes;
use crate::support::core::event;

const NODES: usize = 3;
const STEPS: usize = 250;
const SEEDS: u64 = 60;

const TRIPLES: [&str; 2] = ["Phone/Call/Ringing", "Queue/Call/Waiting"];

/// A subscriber and what it has to see.
struct Subscriber {
    node: usize,
    session: Arc<Session>,
    triple: usize,
    /// The offset of the next event.
    next: u64,
}

struct Play {
    nodes: Nodes,
    chance: StdRng,
    senders: Vec<Arc<Session>>,
    subscribers: Vec<Subscriber>,
    /// Stored events of which their nodes do not know yet.
    late: Vec<(usize, Outcome)>,
    published: [u64; 2],
    epochs: [Option<Arc<str>>; 2],
}

impl Play {
    fn new(seed: u64) -> Self {
        let nodes = nodes(NODES);
        let senders = (0..NODES).map(|node| nodes.node(node).attach("phone", Some("alice"))).collect();
        let (chance, subscribers, late) = (StdRng::seed_from_u64(seed), Vec::new(), Vec::new());
        Self { nodes, chance, senders, subscribers, late, published: [0; 2], epochs: [None, None] }
    }

    fn node(&mut self) -> usize {
        self.chance.random_range(0..NODES)
    }

    fn step(&mut self) {
        let node = self.node();
        match self.chance.random_range(0..16) {
            0..=3 => {
                let triple = self.chance.random_range(0..2);
                self.published[triple] += 1;
                let more = if self.chance.random_range(0..3) == 0 { r#","retain":true"# } else { "" };
                self.nodes.node(node).send(&self.senders[node], &event(TRIPLES[triple], more)).unwrap();
            }
            4..=5 => self.late.extend(self.nodes.store_only(node).map(|outcome| (node, outcome))),
            6..=7 if !self.late.is_empty() => {
                // The events of one log of a node are stored one after the other.
                let (node, outcome) = self.late.remove(0);
                self.nodes.tell_stored(node, outcome);
            }
            6..=11 => drop(self.nodes.deliver_one(node)),
            12 => drop(self.nodes.read_one(node)),
            13 => self.nodes.read_gaps(node),
            14 => self.subscribe(node),
            _ if !self.subscribers.is_empty() => {
                let leaver = self.chance.random_range(0..self.subscribers.len());
                self.look();
                let gone = self.subscribers.swap_remove(leaver);
                let core = self.nodes.node(gone.node);
                core.router.detach(core.now, &gone.session);
            }
            _ => {}
        }
    }

    fn subscribe(&mut self, node: usize) {
        let triple = self.chance.random_range(0..2);
        let session = self.nodes.node(node).attach("crm", Some("alice"));
        let from = self.chance.random_range(0..3_u64);
        let recover = self.epochs[triple].clone().filter(|_| from > 0);
        let recover = recover.map(|epoch| Recover::After { epoch: epoch.as_ref().into(), offset: from - 1 });
        let recovers = recover.is_some();
        let (nodes, late, chance) = (&self.nodes, &mut self.late, &mut self.chance);
        let meanwhile = || match chance.random_range(0..3) {
            0 => late.extend(nodes.store_only(node).map(|outcome| (node, outcome))),
            1 => drop(nodes.deliver_one(node)),
            _ => {}
        };
        let subscribed = nodes.subscribe_logged(node, &session, &wanted(TRIPLES[triple], recover), meanwhile).unwrap();
        let position = subscribed.position.unwrap();
        let is_replayed = matches!(subscribed.recovered, Some(switchboard::router::Recovered::Replayed(_)));
        assert!(!recovers || is_replayed || position.offset < from - 1, "{:?}", subscribed.recovered);
        self.epochs[triple] = Some(Arc::clone(&position.epoch));
        let next = if is_replayed { from } else { position.offset + 1 };
        self.subscribers.push(Subscriber { node, session, triple, next });
    }

    /// Compares what the subscribers were sent.
    fn look(&mut self) {
        for subscriber in &mut self.subscribers {
            for message in take_replay(&self.nodes, subscriber.node, &subscriber.session) {
                if message["retained"] == true {
                    continue;
                }
                if let Some(offset) = message["offset"].as_u64() {
                    assert_eq!(offset, subscriber.next, "on node {}", subscriber.node);
                    subscriber.next += 1;
                }
            }
        }
    }

    fn finish(mut self) {
        for _ in 0..40 {
            for (node, outcome) in std::mem::take(&mut self.late) {
                self.nodes.tell_stored(node, outcome);
            }
            (0..NODES).for_each(|node| self.nodes.read_gaps(node));
            self.nodes.settle();
        }
        self.look();
        for Subscriber { node, triple, next, .. } in &self.subscribers {
            assert_eq!(*next, self.published[*triple] + 1, "{} on node {node}", TRIPLES[*triple]);
        }
        for (triple, user) in [(0, Some("alice".into())), (1, None)] {
            let log = LogName { channel: TRIPLES[triple].split('/').next().unwrap().into(), user };
            let retains = |offset: &u64| {
                let entry = self.nodes.logs.entry(&log, *offset);
                entry.is_some_and(|entry| entry.text.contains("\"retain\":true"))
            };
            let last: Vec<u64> = (1..=self.published[triple]).rev().find(retains).into_iter().collect();
            for node in 0..NODES {
                let reader = self.nodes.node(node).attach("reader", Some("alice"));
                self.nodes.subscribe_logged(node, &reader, &wanted(TRIPLES[triple], None), || ()).unwrap();
                self.nodes.settle();
                assert_eq!(
                    offsets(&take_replay(&self.nodes, node, &reader)),
                    last,
                    "{} on node {node}",
                    TRIPLES[triple]
                );
            }
        }
    }
}

#[test]
fn every_subscriber_of_every_node_sees_one_log_without_a_gap() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        println!("SIMULATION_SEED={seed}");
        let mut play = Play::new(seed);
        for _ in 0..STEPS {
            play.step();
        }
        play.finish();
    }
}
