//! [`Nats`]: a network that keeps the order of a publisher on a subject, most of the time, and promises nothing else. The
//! simulation of links, in `src/cluster`, runs on it, too, so what it needs is imported by the module above.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Bus, Inbound, Incarnation, Outbound};

/// Packets that somebody has recorded, and how many of all: some have to be old.
const RECORDED_MAX: usize = 300;
const RECORDED: f64 = 0.05;

/// How a network behaves. Shares are of 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) delay_max: Duration,
    pub(super) lost: f64,
    pub(super) repeated: f64,
    pub(super) reordered: f64,
}

impl Weather {
    pub(super) const CALM: Self =
        Self { delay_max: Duration::from_millis(2), lost: 0.0, repeated: 0.0, reordered: 0.0 };

    /// Any weather from calm to stormy.
    pub(super) fn any(random: &mut StdRng) -> Self {
        Self {
            delay_max: Duration::from_millis([1, 5, 30, 200][random.random_range(0..4)]),
            lost: [0.0, 0.01, 0.2][random.random_range(0..3)],
            repeated: [0.0, 0.01, 0.2][random.random_range(0..3)],
            reordered: [0.0, 0.0, 0.1][random.random_range(0..3)],
        }
    }
}

/// A message on its way to one subscriber.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) to: usize,
    pub(super) inbound: Inbound,
    pub(super) payload: Vec<u8>,
}

/// What a node is subscribed to.
struct Subscription {
    incarnation: Incarnation,
    subject: String,
    beats: String,
}

pub(super) struct Nats {
    pub(super) weather: Weather,
    subscriptions: Vec<Subscription>,
    /// Pairs of publisher and subscriber between which nothing passes, and until when.
    cuts: BTreeMap<(usize, usize), Instant>,
    /// The last delivery of a publisher to a subscriber, apart for beats.
    last: BTreeMap<(usize, usize, bool), Instant>,
    under_way: BTreeMap<(Instant, u64), Delivery>,
    count: u64,
    recorded: VecDeque<Delivery>,
}

impl Nats {
    pub(super) fn new(weather: Weather) -> Self {
        Self {
            weather,
            subscriptions: Vec::new(),
            cuts: BTreeMap::new(),
            last: BTreeMap::new(),
            under_way: BTreeMap::new(),
            count: 0,
            recorded: VecDeque::new(),
        }
    }

    /// Replaces the subscriptions of a node.
    pub(super) fn subscribe(&mut self, at: usize, bus: &Bus) {
        let (subject, beats) = (bus.node_subject(), bus.beats_subject());
        let subscription = Subscription { incarnation: bus.incarnation(), subject, beats };
        match self.subscriptions.get_mut(at) {
            Some(old) => *old = subscription,
            None => self.subscriptions.push(subscription),
        }
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, until: Instant) {
        self.cuts.insert((from, to), until);
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        self.weather = Weather { delay_max: self.weather.delay_max, ..Weather::CALM };
    }

    pub(super) fn publish(&mut self, now: Instant, random: &mut StdRng, from: usize, outbound: &Outbound) {
        for to in 0..self.subscriptions.len() {
            let subscription = &self.subscriptions[to];
            let inbound = match &outbound.subject {
                subject if *subject == subscription.beats => Inbound::Beats,
                subject if *subject == subscription.subject => Inbound::Node(subscription.incarnation),
                _ => continue,
            };
            let first = Delivery { to, inbound, payload: outbound.payload.clone() };
            if random.random_bool(RECORDED) || (inbound == Inbound::Beats && random.random_bool(0.5)) {
                self.recorded.push_back(first.clone());
            }
            if self.recorded.len() > RECORDED_MAX {
                self.recorded.remove(random.random_range(0..RECORDED_MAX));
            }
            if self.cuts.get(&(from, to)).is_some_and(|until| now < *until) || random.random_bool(self.weather.lost) {
                continue;
            }
            if random.random_bool(self.weather.repeated) {
                let at = now + self.delay(random) + self.delay(random);
                self.put(at, first.clone());
            }
            let mut at = now + self.delay(random);
            if !random.random_bool(self.weather.reordered) {
                let last = self.last.entry((from, to, inbound == Inbound::Beats)).or_insert(at);
                at = at.max(*last);
                *last = at;
            }
            self.put(at, first);
        }
    }

    /// Somebody publishes recorded packets again, some of them changed or on another subject.
    pub(super) fn replay(&mut self, now: Instant, random: &mut StdRng) {
        for _ in 0..random.random_range(1..50) {
            let at = random.random_range(0..self.recorded.len().max(1));
            let Some(mut delivery) = self.recorded.get(at).cloned() else { return };
            if random.random_bool(0.1) {
                let at = random.random_range(0..delivery.payload.len());
                delivery.payload[at] ^= 1 << random.random_range(0..8);
            }
            if random.random_bool(0.3) {
                delivery.to = random.random_range(0..self.subscriptions.len());
                delivery.inbound = Inbound::Node(self.subscriptions[delivery.to].incarnation);
            }
            self.put(now, delivery);
        }
    }

    /// Returns the next message that has arrived.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Delivery> {
        let first = self.under_way.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    fn put(&mut self, at: Instant, delivery: Delivery) {
        self.count += 1;
        self.under_way.insert((at, self.count), delivery);
    }

    fn delay(&self, random: &mut StdRng) -> Duration {
        self.weather.delay_max.mul_f64(random.random())
    }
}
