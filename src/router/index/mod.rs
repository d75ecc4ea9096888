//! [`Index`]: which subscriptions a triple matches, at the same cost with ten and with a million unrelated ones.
//!
//! A subscription is listed under one key for each of its audiences, with its pattern as written. A look-up tries the
//! eight wildcard shapes of a triple in each audience that the envelope reaches, and skips every shape that no
//! subscription of that audience uses.

pub(in crate::router) mod key;
pub(in crate::router) mod receivers;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use dashmap::DashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use wire::{Pattern, Triple, command};

use crate::router::SubscriptionId;
use crate::router::ids::Serial;
use crate::router::policy::Policy;
use crate::router::request::lane::Ordered;
use crate::router::session::Session;
use crate::telemetry::recorder::Mark;
use key::{EXACT, Key, Parts, SHAPES, SLOTS, for_each_key, parts_of, shape};
use receivers::{Entries, Receivers};

pub(in crate::router) use key::{Audience, audiences};

/// One subscription of one session.
pub(in crate::router) struct Subscription {
    pub(in crate::router) id: SubscriptionId,
    /// Later ones are greater.
    pub(in crate::router) serial: Serial,
    /// When it was made.
    pub(in crate::router) since: SystemTime,
    pub(in crate::router) session: Arc<Session>,
    /// As it was written.
    pub(in crate::router) pattern: Pattern,
    pub(in crate::router) role: command::Role,
    pub(in crate::router) group: Option<Box<str>>,
    /// The other users whose envelopes it receives.
    pub(in crate::router) observes: Option<Observes>,
    /// Whether each delivery has to be checked. Changes only while its session's queue is locked.
    pub(in crate::router) checked: AtomicBool,
    /// What an ordered handler needs to take turns.
    pub(in crate::router) ordered: Option<Ordered>,
    pub(in crate::router) listing: Listing,
}

/// The users whose envelopes an observer receives, or the one user whose events a service wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router) enum Observes {
    User(Box<str>),
    All,
}

impl Subscription {
    /// The same subscription of the same session where that is now. Only requests that it has been given refer to it.
    pub(in crate::router) fn moved_to(&self, session: &Arc<Session>) -> Self {
        Self {
            id: self.id,
            serial: self.serial,
            since: self.since,
            session: Arc::clone(session),
            pattern: self.pattern.clone(),
            role: self.role.clone(),
            group: self.group.clone(),
            observes: self.observes.clone(),
            checked: AtomicBool::new(true),
            ordered: None,
            listing: Listing::default(),
        }
    }

    pub(in crate::router) fn is_handler(&self) -> bool {
        matches!(self.role, command::Role::Handler { .. })
    }

    /// Whether each delivery to it has to be checked.
    pub(in crate::router) fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed)
    }

    /// Whether it answers without the broker keeping a request open for it.
    pub(in crate::router) fn takes_commands(&self) -> bool {
        matches!(self.role, command::Role::Handler { answers: false, .. })
    }
}

/// Where the index has a subscription. Kept with it, because the policy from which the keys follow can change.
#[derive(Default)]
pub(in crate::router) struct Listing {
    places: OnceLock<SmallVec<[Place; 1]>>,
    ended: AtomicBool,
}

struct Place {
    key: Arc<[u8]>,
    slot: Slot,
    order: u64,
}

impl Listing {
    /// The subscription has ended. What still has a reference to it sends its session nothing more.
    pub(in crate::router) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether the subscription has ended.
    pub(in crate::router) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// An audience and a wildcard shape.
#[derive(Clone, Copy)]
struct Slot(usize);

impl Slot {
    fn new(audience: Audience<'_>, shape: usize) -> Self {
        Self(audience.number() * SHAPES + shape)
    }

    fn bit(self) -> u64 {
        1 << self.0
    }
}

/// Subscriptions by audience and pattern.
pub(in crate::router) struct Index {
    by_key: DashMap<Arc<[u8]>, Entries, foldhash::fast::RandomState>,
    /// The number of keys of each slot.
    counts: Mutex<[usize; SLOTS]>,
    /// A bit for each slot that has keys: all that look-ups read of what publishers share.
    in_use: AtomicU64,
}

impl Default for Index {
    fn default() -> Self {
        Self { by_key: DashMap::default(), counts: Mutex::new([0; SLOTS]), in_use: AtomicU64::new(0) }
    }
}

/// The lists that a triple matches.
#[derive(Default)]
pub(in crate::router) struct Matches {
    /// One is the usual number.
    lists: SmallVec<[Receivers; 2]>,
    /// A pattern of the sender's own scope names exactly this triple.
    pub(in crate::router) exact: bool,
    /// The mark of the triple, if a pattern names it as it was written.
    pub(in crate::router) mark: Option<Mark>,
}

impl Matches {
    pub(in crate::router) fn extend(&mut self, other: Self) {
        self.lists.extend(other.lists);
        self.exact |= other.exact;
    }
}

impl Deref for Matches {
    type Target = [Receivers];

    fn deref(&self) -> &[Receivers] {
        &self.lists
    }
}

impl Index {
    /// Adds a subscription under every key that it has. A subscription is added once.
    pub(in crate::router) fn insert(&self, policy: &Policy, subscription: &Arc<Subscription>) {
        let mut places = SmallVec::new();
        let mut key = Key::EMPTY;
        for_each_key(policy, subscription, |audience, folded, parts| {
            let slot = Slot::new(audience, shape(parts));
            let key = key.write(audience, folded, parts);
            places.push(self.list(key, slot, parts, subscription));
        });
        let first = subscription.listing.places.set(places).is_ok();
        debug_assert!(first, "a subscription is listed once");
    }

    fn list(&self, key: &[u8], slot: Slot, parts: Parts<'_>, subscription: &Arc<Subscription>) -> Place {
        let subscription = Arc::clone(subscription);
        if let Some(mut entries) = self.by_key.get_mut(key) {
            return Place { slot, order: entries.push(subscription), key: Arc::clone(entries.key()) };
        }
        let mut entries = self.by_key.entry(Arc::from(key)).or_default();
        if entries.is_empty() {
            self.count(slot, |keys| *keys += 1);
            if let [Some(channel), Some(topic), Some(subtopic)] = parts {
                entries.mark = Some(Mark::of_parts([channel, topic, subtopic]));
            }
        }
        Place { slot, order: entries.push(subscription), key: Arc::clone(entries.key()) }
    }

    /// Takes a subscription out.
    pub(in crate::router) fn remove(&self, subscription: &Subscription) {
        for Place { key, slot, order } in subscription.listing.places.get().into_iter().flatten() {
            let mut was_listed = false;
            self.by_key.remove_if_mut(key, |_, entries| {
                was_listed = entries.remove(*order);
                let is_empty = entries.is_empty();
                if is_empty {
                    self.count(*slot, |keys| *keys -= 1);
                }
                is_empty
            });
            debug_assert!(was_listed, "a subscription that was not listed");
        }
    }

    fn count(&self, slot: Slot, change: impl FnOnce(&mut usize)) {
        let mut counts = self.counts.lock();
        let Some(keys) = counts.get_mut(slot.0) else { return };
        change(keys);
        if *keys == 0 {
            self.in_use.fetch_and(!slot.bit(), Ordering::SeqCst);
        } else {
            self.in_use.fetch_or(slot.bit(), Ordering::SeqCst);
        }
    }

    /// The lists of `audiences` that match a canonical triple. `folded`: the triple's channel folds.
    pub(in crate::router) fn matches(&self, audiences: &[Audience<'_>], triple: &Triple<'_>, folded: bool) -> Matches {
        let mut matches = Matches::default();
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
                // Only patterns for all channels have a folded form of their own.
                let is_folded_form = folded && shape & 4 != 0;
                if let Some(receivers) = self.by_key.get(key.write(audience, is_folded_form, parts_of(triple, shape))) {
                    matches.lists.push(receivers.snapshot());
                    if shape == EXACT && !folded {
                        matches.mark = receivers.mark;
                    }
                    matches.exact |= shape == EXACT && !audience.is_observing();
                }
            }
        }
        matches
    }

    /// Whether a pattern of these audiences names exactly this canonical triple.
    pub(in crate::router) fn names(&self, audiences: &[Audience<'_>], triple: &Triple<'_>) -> bool {
        let mut key = Key::EMPTY;
        audiences.iter().any(|&audience| {
            self.in_use.load(Ordering::SeqCst) & Slot::new(audience, EXACT).bit() != 0
                && self.by_key.contains_key(key.write(audience, false, parts_of(triple, EXACT)))
        })
    }

    /// The number of subscriptions, each counted once for each of its keys.
    pub(in crate::router) fn len(&self) -> usize {
        self.by_key.iter().map(|entries| entries.len()).sum()
    }
}
