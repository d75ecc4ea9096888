//! [`Replay`]: retained values on their way to a subscription. A cursor: nothing is kept for it, and each pull looks at a
//! bounded number of values.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use smallvec::SmallVec;
use wire::{Pattern, Triple};

use super::{Bucket, Place, Retained, Value, Values};
use crate::router::history::Stretch;
use crate::router::index::{Observes, Subscription};
use crate::router::policy::Policy;
use crate::router::replay::{COPIED_BYTES_MAX, LOOKED_AT_MAX, attributed, matches, parts};
use crate::router::session::Role;
use crate::router::{Router, Scope};
use crate::websocket::Frame;

/// Retained values on their way to a subscription.
pub(in crate::router) struct Replay {
    /// Weak: the session of the subscription owns the outbox that owns the replay.
    subscription: Weak<Subscription>,
    /// Values with a later stamp are delivered as live events.
    last_stamp: u64,
    /// The events of a log that are replayed afterwards.
    replayed: Option<Stretch>,
    /// The bucket that is looked through. `None`: the first one.
    bucket: Option<Bucket>,
    /// What was looked at in this bucket.
    after: Option<Place>,
}

impl Router {
    /// Pulls up to `most` frames of a replay. Returns whether it is exhausted.
    pub(in crate::router) fn pull_retained(&self, replay: &mut Replay, most: usize, frames: &mut Vec<Frame>) -> bool {
        let subscription = replay.subscription.upgrade().filter(|it| !it.listing.has_ended());
        subscription.is_none_or(|subscription| self.retained.pull(&self.policy, &subscription, replay, most, frames))
    }
}

impl Retained {
    /// A replay of the values with stamps up to this one, without those that are among the events to be replayed. `None`
    /// if there are no values.
    pub(in crate::router) fn replay(
        &self,
        subscription: &Arc<Subscription>,
        last_stamp: u64,
        replayed: Option<Stretch>,
    ) -> Option<Replay> {
        let subscription = Arc::downgrade(subscription);
        (self.size().0 > 0).then(|| Replay { subscription, last_stamp, replayed, bucket: None, after: None })
    }

    fn pull(
        &self,
        policy: &Policy,
        subscription: &Subscription,
        replay: &mut Replay,
        most: usize,
        frames: &mut Vec<Frame>,
    ) -> bool {
        let wanted = Wanted::new(policy, subscription);
        let mut look = Look { left: LOOKED_AT_MAX, most, bytes: 0, found: SmallVec::new() };
        let is_exhausted = self.look(&wanted, replay, &mut look);
        // The copies are made when no lock is held.
        frames.extend(look.found.into_iter().map(|(frame, user)| match user {
            Some(user) => attributed(&frame, &user),
            None => frame,
        }));
        is_exhausted
    }

    /// Collects frames until the look is over. Returns whether nothing is left.
    fn look(&self, wanted: &Wanted<'_>, replay: &mut Replay, look: &mut Look) -> bool {
        let buckets = self.buckets.read();
        let mut bucket = replay.bucket.take().or_else(|| wanted.next(&buckets, None));
        while let Some(current) = bucket {
            let is_finished = match buckets.get(&current) {
                Some(values) => look.through(wanted, &current, &values.lock(), replay),
                None => true,
            };
            if is_finished {
                replay.after = None;
                bucket = wanted.next(&buckets, Some(&current));
            } else {
                bucket = Some(current);
            }
            if look.is_over() {
                replay.bucket = bucket;
                return replay.bucket.is_none();
            }
        }
        true
    }
}

/// What one pull has found, and what it may still do.
struct Look {
    left: usize,
    most: usize,
    bytes: usize,
    /// Frames, with the user to splice in.
    found: SmallVec<[(Frame, Option<Arc<str>>); 4]>,
}

impl Look {
    fn is_over(&self) -> bool {
        self.left == 0 || self.found.len() >= self.most || self.bytes >= COPIED_BYTES_MAX
    }

    /// Looks at the values of a bucket. Returns whether it saw the last of them; else it notes where it stopped.
    fn through(&mut self, wanted: &Wanted<'_>, bucket: &Bucket, values: &Values, replay: &mut Replay) -> bool {
        self.left = self.left.saturating_sub(1);
        let from = match replay.after.take() {
            Some(place) => Bound::Excluded(place),
            None => Bound::Included((Box::from(&*wanted.prefix), None)),
        };
        let mut last = None;
        for (place, value) in values.range((from.clone(), Bound::Unbounded)) {
            if !wanted.may_be_at(place) {
                return true;
            }
            if self.is_over() {
                replay.after = match (last, from) {
                    (Some(place), _) => Some(Place::clone(place)),
                    (None, Bound::Excluded(place)) => Some(place),
                    (None, Bound::Included(_) | Bound::Unbounded) => None,
                };
                return false;
            }
            self.left = self.left.saturating_sub(1);
            last = Some(place);
            let is_replayed = || {
                let among = |stretch: &Stretch| value.position.as_ref().is_some_and(|it| stretch.contains(it));
                replay.replayed.as_ref().is_some_and(among)
            };
            if value.stamp <= replay.last_stamp && wanted.wants(bucket, place, value) && !is_replayed() {
                let user = wanted.user_to_add(bucket);
                self.bytes += user.as_ref().map_or(0, |_| value.frame.len());
                self.found.push((value.frame.clone(), user));
            }
        }
        true
    }
}

/// The values that a subscription receives.
struct Wanted<'s> {
    policy: &'s Policy,
    subscription: &'s Subscription,
    users: Users,
    shared: Shared<'s>,
    /// What the canonical triples begin with.
    prefix: String,
    /// The prefix is a whole triple.
    is_exact: bool,
}

/// The values of shared channels that are wanted.
enum Shared<'s> {
    None,
    /// Those in the name of this user.
    Of(&'s str),
    All,
}

/// The users whose values are wanted.
enum Users {
    None,
    One(Arc<str>),
    All,
}

impl<'s> Wanted<'s> {
    fn new(policy: &'s Policy, subscription: &'s Subscription) -> Self {
        let Pattern { channel, topic, subtopic } = &subscription.pattern;
        let (users, shared) = match (&subscription.session.role, &subscription.observes) {
            (Role::User(user), None) => (Users::One(Arc::clone(user)), Shared::All),
            (Role::User(_), Some(Observes::User(user))) => (Users::One(Arc::from(&**user)), Shared::All),
            (Role::Service | Role::Adapter, Some(Observes::User(user))) => {
                (Users::One(Arc::from(&**user)), Shared::Of(user))
            }
            (_, Some(Observes::All)) | (Role::Service | Role::Adapter, None) => (Users::All, Shared::All),
        };
        let is_shared = channel.as_deref().map(|channel| policy.is_shared(channel));
        let folds = channel.as_deref().is_some_and(|channel| policy.folds(channel));
        let mut prefix = channel.as_deref().map_or_else(String::new, |channel| format!("{channel}/"));
        if let (Some(_), Some(topic)) = (channel, topic) {
            prefix += topic;
            prefix.push('/');
            prefix += subtopic.as_deref().unwrap_or_default();
        }
        if folds {
            let channel_len = channel.as_deref().map_or(0, str::len);
            prefix.get_mut(channel_len..).into_iter().for_each(str::make_ascii_lowercase);
        }
        Self {
            policy,
            subscription,
            users: if is_shared == Some(true) { Users::None } else { users },
            shared: if is_shared == Some(false) { Shared::None } else { shared },
            prefix,
            is_exact: channel.is_some() && topic.is_some() && subtopic.is_some(),
        }
    }

    /// The bucket to look through after this one.
    fn next<V>(&self, buckets: &BTreeMap<Bucket, V>, after: Option<&Bucket>) -> Option<Bucket> {
        let user = match (&self.users, after) {
            (Users::One(user), None) => Some(Bucket::User(Arc::clone(user))),
            (Users::None, _) | (Users::One(_), Some(_)) => None,
            (Users::All, after) => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let next = buckets.range((from, Bound::Unbounded)).next().map(|(bucket, _)| bucket);
                next.filter(|bucket| **bucket != Bucket::Shared).cloned()
            }
        };
        let shared = match self.shared {
            Shared::None => None,
            Shared::Of(_) | Shared::All => Some(Bucket::Shared),
        };
        user.or_else(|| shared.filter(|shared| after != Some(shared)))
    }

    /// Whether this and later places can match.
    fn may_be_at(&self, (triple, _): &Place) -> bool {
        if self.is_exact { **triple == *self.prefix } else { triple.starts_with(&self.prefix) }
    }

    fn wants(&self, bucket: &Bucket, (triple, target): &Place, value: &Value) -> bool {
        let is_of_user = match (bucket, &self.shared) {
            (Bucket::Shared, Shared::Of(user)) => value.user.as_deref() == Some(*user),
            (Bucket::Shared, Shared::None | Shared::All) | (Bucket::User(_), _) => true,
        };
        is_of_user
            && target.as_deref().is_none_or(|target| *target == *self.subscription.session.source)
            && matches(self.policy, &self.subscription.pattern, triple)
            && self.may_receive(bucket, triple, value)
    }

    /// Whether the session may have the value. Nobody may if its triple is protected now.
    fn may_receive(&self, bucket: &Bucket, triple: &str, value: &Value) -> bool {
        let scope = match bucket {
            Bucket::User(user) => Scope::User(user),
            Bucket::Shared => Scope::Shared(value.user.as_deref()),
        };
        let [channel, topic, subtopic] = parts(triple);
        let triple = Triple::new(channel, topic, subtopic);
        !self.policy.is_protected(&triple) && self.subscription.may_receive(&triple, scope)
    }

    /// The user that is spliced into the values of a bucket.
    fn user_to_add(&self, bucket: &Bucket) -> Option<Arc<str>> {
        match bucket {
            Bucket::User(user) if self.subscription.sees_user() => Some(Arc::clone(user)),
            Bucket::User(_) | Bucket::Shared => None,
        }
    }
}
