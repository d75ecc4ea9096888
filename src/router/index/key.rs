//! The keys of the index: an audience, and a pattern as the index compares it.

use smallvec::SmallVec;
use wire::{BROKER, NAME_BYTES_MAX, Pattern, Triple, command, fold};

use crate::router::index::{Observes, Subscription};
use crate::router::policy::Policy;
use crate::router::session::Role;

/// Those whom a list of subscriptions belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Audience<'a> {
    /// One user's sessions, for user-scoped channels.
    User(&'a str),
    /// The sessions of all users, for shared channels and the broker's own events.
    Everyone,
    /// Services and adapters, for all channels.
    Services,
    /// In-process adapters that answer.
    Adapters,
    /// Observers of one user, and services that want one user's events only.
    Observes(&'a str),
    /// Observers of all users.
    ObservesAll,
}

const AUDIENCES: usize = 6;

/// The wildcard shapes of a pattern: bits 4, 2, 1 say that channel, topic, subtopic is a wildcard.
pub(super) const SHAPES: usize = 8;

/// The number of slots, which are audiences times shapes.
pub(super) const SLOTS: usize = AUDIENCES * SHAPES;

/// The shape of a pattern that names one triple.
pub(super) const EXACT: usize = 0;

impl<'a> Audience<'a> {
    pub(super) fn number(self) -> usize {
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

    /// Whether its members watch from outside the sender's scope.
    pub(super) fn is_observing(self) -> bool {
        matches!(self, Self::Observes(_) | Self::ObservesAll)
    }
}

/// The longest key: audience, folding, a user, and three parts with their separators.
const KEY_BYTES_MAX: usize = 2 + NAME_BYTES_MAX + 1 + 3 * (NAME_BYTES_MAX + 1);

/// The three parts of a pattern; `None` is a wildcard.
pub(super) type Parts<'p> = [Option<&'p str>; 3];

/// A buffer for one key after another, so that a look-up allocates nothing.
pub(super) struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    len: usize,
}

impl Key {
    pub(super) const EMPTY: Self = Self { bytes: [0; KEY_BYTES_MAX], len: 0 };

    /// Writes a key. Keys are unambiguous: no part has a `/`, no user a NUL, and `*` is not a value. Adapters compare their
    /// triples without regard to ASCII case, so their keys are written in lower case.
    pub(super) fn write(&mut self, audience: Audience<'_>, folded: bool, parts: Parts<'_>) -> &[u8] {
        let (tag, user) = audience.tag();
        let [channel, topic, subtopic] = parts.map(|part| part.unwrap_or("*"));
        self.len = 0;
        self.put(&[tag], u8::from(folded));
        self.put(user.as_bytes(), 0);
        self.put(channel.as_bytes(), b'/');
        self.put(topic.as_bytes(), b'/');
        self.put(subtopic.as_bytes(), b'/');
        if matches!(audience, Audience::Adapters) {
            self.fold();
        }
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Folds the whole key, because adapters compare their triples without regard to case, in the channel, too. Apart from
    /// the other keys, which it would make slower.
    #[inline(never)]
    fn fold(&mut self) {
        if let Some(key) = self.bytes.get_mut(..self.len) {
            key.make_ascii_lowercase();
        }
    }

    fn put(&mut self, piece: &[u8], end: u8) {
        if let Some(place) = self.bytes.get_mut(self.len..)
            && let Some((place, [next, ..])) = place.split_at_mut_checked(piece.len())
        {
            place.copy_from_slice(piece);
            *next = end;
            self.len += piece.len() + 1;
        } else {
            debug_assert!(false, "a name that was not checked");
        }
    }
}

pub(super) fn shape(parts: Parts<'_>) -> usize {
    parts.iter().fold(0, |shape, part| shape * 2 + usize::from(part.is_none()))
}

/// The parts that patterns of a shape name of a triple.
pub(super) fn parts_of<'t>(triple: &'t Triple<'_>, shape: usize) -> Parts<'t> {
    let part = |bit: usize, part: &'t str| (shape & bit == 0).then_some(part);
    [part(4, &triple.channel), part(2, &triple.topic), part(1, &triple.subtopic)]
}

/// Calls `each` with every key of a subscription: for each of its audiences, also in a folded form if its pattern is for
/// all channels.
pub(super) fn for_each_key(
    policy: &Policy,
    subscription: &Subscription,
    mut each: impl FnMut(Audience<'_>, bool, Parts<'_>),
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
            // Though no channel may fold now: a reload can change that.
            None => {
                each(audience, false, written);
                each(audience, true, folded);
            }
            _ => each(audience, false, written),
        }
    }
}

/// The audiences of a subscription. A pattern for all channels may match user-scoped and shared ones.
pub(in crate::router) fn audiences<'a>(policy: &Policy, subscription: &'a Subscription) -> SmallVec<[Audience<'a>; 2]> {
    let is_subscriber = subscription.role == command::Role::Subscriber;
    let own = match (&subscription.session.role, &subscription.observes) {
        (Role::Adapter, _) if !is_subscriber => return SmallVec::from_slice(&[Audience::Adapters]),
        (Role::Adapter | Role::Service, None | Some(Observes::All)) => {
            return SmallVec::from_slice(&[Audience::Services]);
        }
        // A service that names a user wants that user's events only, on shared channels too.
        (Role::Adapter | Role::Service, Some(Observes::User(user))) => {
            return SmallVec::from_slice(&[Audience::Observes(user)]);
        }
        (Role::User(user), None) => Audience::User(user),
        (Role::User(_), Some(Observes::User(user))) => Audience::Observes(user),
        (Role::User(_), Some(Observes::All)) => Audience::ObservesAll,
    };
    match subscription.pattern.channel.as_deref() {
        None | Some(BROKER) => SmallVec::from_slice(&[own, Audience::Everyone]),
        Some(channel) if policy.is_shared(channel) => SmallVec::from_slice(&[Audience::Everyone]),
        Some(_) => SmallVec::from_slice(&[own]),
    }
}
