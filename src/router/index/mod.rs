//! [`Index`]: which subscriptions a triple matches, at the same cost with ten and with a million unrelated ones.
//!
//! A subscription stands under one key for each audience it belongs to (`u` one user's, `s` services', …) and its pattern
//! as written. A look-up tries the eight wildcard shapes of a triple in each audience that the envelope reaches, and skips
//! every shape that no subscription of that audience uses.

pub(in crate::router) mod receivers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::router::SubscriptionId;
use crate::router::ids::Serial;
use crate::router::index::receivers::Receivers;
use crate::router::policy::Policy;
use crate::router::request::lane::Ordered;
use crate::router::session::{Role, Session};
use wire::command;
use wire::{BROKER, NAME_BYTES_MAX, Pattern, Triple, fold};

/// One subscription of one session.
pub(in crate::router) struct Subscription {
    pub(in crate::router) id: SubscriptionId,
    /// Later ones are greater.
    pub(in crate::router) serial: Serial,
    pub(in crate::router) session: Arc<Session>,
    /// As it was written.
    pub(in crate::router) pattern: Pattern,
    pub(in crate::router) role: command::Role,
    pub(in crate::router) group: Option<Box<str>>,
    /// Scope envelopes an observer wants.
    pub(in crate::router) observes: Option<Observes>,
    /// What an ordered handler needs to take turns.
    pub(in crate::router) ordered: Option<Ordered>,
}

/// Scope envelopes an observer, or a service that wants one user's only, subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router) enum Observes {
    User(Box<str>),
    All,
}

impl Subscription {
    /// Whether it answers without the broker keeping a request open for it.
    pub(in crate::router) fn takes_commands(&self) -> bool {
        matches!(self.role, command::Role::Handler { answers: false, .. })
    }
}

/// Scope subscriptions a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Audience<'a> {
    /// One user's sessions, for user-scoped channels.
    User(&'a str),
    /// Everybody's who is not a service or an adapter, for shared channels and the broker's own events.
    Everyone,
    /// Services, for all channels; and adapters that hear events.
    Services,
    /// In-process adapters that answer.
    Adapters,
    /// Observers of one user.
    Observes(&'a str),
    /// Observers of all users.
    ObservesAll,
}

const AUDIENCES: usize = 6;
const SHAPES: usize = 8;

impl<'a> Audience<'a> {
    fn number(self) -> usize {
        match self {
            Self::User(_) => 0,
            Self::Everyone => 1,
            Self::Services => 2,
            Self::Adapters => 3,
            Self::Observes(_) => 4,
            Self::ObservesAll => 5,
        }
    }

    fn tag(self) -> (u8, &'a str) {
        match self {
            Self::User(user) => (b'u', user),
            Self::Everyone => (b'e', ""),
            Self::Services => (b's', ""),
            Self::Adapters => (b'd', ""),
            Self::Observes(user) => (b'w', user),
            Self::ObservesAll => (b'a', ""),
        }
    }
}

/// The longest key: audience, folding, a user, and three parts with what separates them.
const KEY_BYTES_MAX: usize = 2 + NAME_BYTES_MAX + 1 + 3 * (NAME_BYTES_MAX + 1);

/// A key in the making: a look-up writes it into a buffer of its own, without an allocation, a move or a check of room
/// for each piece.
struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    len: usize,
}

impl Key {
    const EMPTY: Self = Self { bytes: [0; KEY_BYTES_MAX], len: 0 };

    /// No part has a `/`, no user a NUL, and `*` is no value: keys are unambiguous.
    fn write(&mut self, audience: Audience<'_>, folded: bool, parts: [Option<&str>; 3]) -> &[u8] {
        let (tag, user) = audience.tag();
        let [channel, topic, subtopic] = parts.map(|part| part.unwrap_or("*"));
        self.len = 0;
        self.put(&[tag], u8::from(folded));
        self.put(user.as_bytes(), 0);
        self.put(channel.as_bytes(), b'/');
        self.put(topic.as_bytes(), b'/');
        self.put(subtopic.as_bytes(), b'/');
        let key = self.bytes.get_mut(..self.len).unwrap_or_default();
        if matches!(audience, Audience::Adapters) {
            // They compare their triples without regard to case, in the channel, too.
            key.make_ascii_lowercase();
        }
        key
    }

    fn put(&mut self, piece: &[u8], end: u8) {
        // There is room: names were checked before they came here.
        if let Some(place) = self.bytes.get_mut(self.len..)
            && let Some((place, [next, ..])) = place.split_at_mut_checked(piece.len())
        {
            place.copy_from_slice(piece);
            *next = end;
            self.len += piece.len() + 1;
        }
    }
}

/// Bits 4, 2, 1: channel, topic, subtopic is a wildcard.
fn shape(parts: [Option<&str>; 3]) -> usize {
    parts.iter().fold(0, |shape, part| shape * 2 + usize::from(part.is_none()))
}

/// Subscriptions by audience and pattern.
#[derive(Default)]
pub(in crate::router) struct Index {
    by_key: DashMap<Box<[u8]>, Receivers, foldhash::fast::RandomState>,
    /// How many keys each shape of each audience has.
    counts: Mutex<[[usize; SHAPES]; AUDIENCES]>,
    /// A bit for each of them that has any: all that a look-up reads of what publishers share.
    in_use: AtomicU64,
}

/// The lists that a triple matches. Few: one is the usual number.
pub(in crate::router) type Matches = SmallVec<[Receivers; 2]>;

impl Index {
    /// Adds a subscription under every key that it has.
    pub(in crate::router) fn insert(&self, policy: &Policy, subscription: &Arc<Subscription>) {
        let mut key = Key::EMPTY;
        for_each_key(policy, subscription, |audience, folded, parts| {
            let mut receivers = self.by_key.entry(Box::from(key.write(audience, folded, parts))).or_default();
            if receivers.is_empty() {
                self.count(audience, shape(parts), |keys| keys + 1);
            }
            receivers.push(Arc::clone(subscription));
        });
    }

    /// Takes a subscription out.
    pub(in crate::router) fn remove(&self, policy: &Policy, subscription: &Subscription) {
        let mut key = Key::EMPTY;
        for_each_key(policy, subscription, |audience, folded, parts| {
            self.by_key.remove_if_mut(key.write(audience, folded, parts), |_, receivers| {
                receivers.remove(subscription.serial);
                let empty = receivers.is_empty();
                if empty {
                    self.count(audience, shape(parts), |keys| keys - 1);
                }
                empty
            });
        });
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a audience has a number below AUDIENCES, three parts a shape below SHAPES"
    )]
    fn count(&self, audience: Audience<'_>, shape: usize, change: impl Fn(usize) -> usize) {
        let mut counts = self.counts.lock();
        let keys = &mut counts[audience.number()][shape];
        *keys = change(*keys);
        let bit = 1 << (audience.number() * SHAPES + shape);
        if *keys == 0 {
            self.in_use.fetch_and(!bit, Ordering::SeqCst);
        } else {
            self.in_use.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// The lists of `audiences` that match a canonical triple. `folded`: the triple's channel folds.
    pub(in crate::router) fn matches(&self, audiences: &[Audience<'_>], triple: &Triple<'_>, folded: bool) -> Matches {
        let mut matches = Matches::new();
        let in_use = self.in_use.load(Ordering::SeqCst);
        // A pattern for all channels never matches the broker's own.
        let shapes = if triple.is_broker() { (1 << (SHAPES / 2)) - 1 } else { (1 << SHAPES) - 1 };
        let in_use_by = |audience: Audience<'_>| in_use >> (audience.number() * SHAPES) & shapes;
        if audiences.iter().all(|&audience| in_use_by(audience) == 0) {
            return matches;
        }
        let mut key = Key::EMPTY;
        for &audience in audiences {
            let mut left = in_use_by(audience);
            while left != 0 {
                let shape = left.trailing_zeros() as usize;
                left &= left - 1;
                let part = |bit: usize, part| (shape & bit == 0).then_some(part);
                let parts = [part(4, &*triple.channel), part(2, &*triple.topic), part(1, &*triple.subtopic)];
                // Only patterns for all channels have a folded form of their own.
                let folded = folded && shape & 4 != 0;
                if let Some(receivers) = self.by_key.get(key.write(audience, folded, parts)) {
                    matches.push(receivers.clone());
                }
            }
        }
        matches
    }
}

/// Calls `each` with every key of a subscription: its audiences, and a folded form where its pattern is for all channels.
fn for_each_key(
    policy: &Policy,
    subscription: &Subscription,
    mut each: impl FnMut(Audience<'_>, bool, [Option<&str>; 3]),
) {
    let Pattern { channel, topic, subtopic } = &subscription.pattern;
    let channel = channel.as_deref();
    let topic_folded = topic.as_deref().map(fold);
    let subtopic_folded = subtopic.as_deref().map(fold);
    let written = [channel, topic.as_deref(), subtopic.as_deref()];
    let folded = [channel, topic_folded.as_deref(), subtopic_folded.as_deref()];
    for audience in audiences(policy, subscription) {
        match channel {
            Some(name) if policy.folds(name) => each(audience, false, folded),
            None if policy.folds_any() => {
                each(audience, false, written);
                each(audience, true, folded);
            }
            _ => each(audience, false, written),
        }
    }
}

/// The audiences of a subscription. A pattern for all channels may match user-scoped and shared ones.
fn audiences<'a>(policy: &Policy, subscription: &'a Subscription) -> SmallVec<[Audience<'a>; 2]> {
    let hears = subscription.role == command::Role::Subscriber;
    let own = match (&subscription.session.role, &subscription.observes) {
        (Role::Adapter, _) if !hears => return SmallVec::from_slice(&[Audience::Adapters]),
        // An adapter hears what a service hears: every user's events.
        (Role::Adapter | Role::Service, None | Some(Observes::All)) => {
            return SmallVec::from_slice(&[Audience::Services]);
        }
        (Role::User(user), None) => Audience::User(user),
        (_, Some(Observes::User(user))) => Audience::Observes(user),
        (_, Some(Observes::All)) => Audience::ObservesAll,
    };
    match subscription.pattern.channel.as_deref() {
        None | Some(BROKER) => SmallVec::from_slice(&[own, Audience::Everyone]),
        Some(channel) if policy.is_shared(channel) => SmallVec::from_slice(&[Audience::Everyone]),
        Some(_) => SmallVec::from_slice(&[own]),
    }
}
