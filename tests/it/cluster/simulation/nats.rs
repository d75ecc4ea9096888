//! [`Nats`]: a network that keeps the order of a publisher on a subject, most of the time, and promises nothing else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use switchboard::cluster::{Bus, Inbound, Incarnation, Outbound};

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
}

/// A message on its way to one subscriber.
#[derive(Clone)]
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
            let is_cut = self.cuts.get(&(from, to)).is_some_and(|until| now < *until);
            if is_cut || random.random_bool(self.weather.lost) {
                continue;
            }
            let first = Delivery { to, inbound, payload: outbound.payload.clone() };
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
