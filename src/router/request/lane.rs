//! Which ordered subscriptions of a session take turns: those whose replies can be on the same triple, also if only
//! through others.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use wire::command::Role;
use wire::{Pattern, Triple};

/// What an ordered subscription needs to know of itself.
pub(in crate::router) struct Ordered {
    /// Its channel compares topics and subtopics without regard to case.
    folds: bool,
    /// The other triples on which it replies, canonical.
    pub(in crate::router) replies: Box<[Arc<Triple<'static>>]>,
    /// Everything that one of its replies can be on.
    sets: Box<[Set]>,
}

impl Ordered {
    /// The ordered part of a subscription; `None` if it is not ordered. `folds`: whether its channel folds case.
    pub(in crate::router) fn of(pattern: &Pattern, role: &Role, folds: bool) -> Option<Self> {
        let Role::Handler { ordered: true, replies, .. } = role else { return None };
        let channel = pattern.channel.as_deref()?;
        let canonical = |topic: &str, subtopic: &str| {
            let triple = Triple::new(channel, topic, subtopic);
            if folds { triple.folded().to_owned() } else { triple.to_owned() }
        };
        let replies: Box<[_]> = replies.iter().map(|(topic, subtopic)| Arc::new(canonical(topic, subtopic))).collect();
        let (topic, subtopic) = (pattern.topic.as_deref(), pattern.subtopic.as_deref());
        let requests = canonical(topic.unwrap_or_default(), subtopic.unwrap_or_default());
        let requests = Set::new(channel, topic.map(|_| &*requests.topic), subtopic.map(|_| &*requests.subtopic));
        let reply = |it: &Arc<Triple<'_>>| Set::new(channel, Some(&it.topic), Some(&it.subtopic));
        let sets = std::iter::once(requests).chain(replies.iter().map(reply)).collect();
        Some(Self { folds, replies, sets })
    }

    /// A request's triple as replies to it are compared.
    pub(in crate::router) fn canonical(&self, triple: &Triple<'_>) -> Arc<Triple<'static>> {
        Arc::new(if self.folds { triple.folded().to_owned() } else { triple.to_owned() })
    }
}

/// A set of triples: one triple, or all of a topic, of a subtopic, or of a channel. It is known by its hash, which is
/// quick to compare. If two sets had the same hash, their subscriptions would take turns without need, nothing worse.
#[derive(Clone, Copy)]
struct Set {
    kind: Kind,
    own: u64,
    /// The wider sets that it is part of.
    topic: u64,
    subtopic: u64,
    channel: u64,
}

#[derive(Clone, Copy)]
enum Kind {
    One,
    Topic,
    Subtopic,
    Channel,
}

impl Set {
    fn new(channel: &str, topic: Option<&str>, subtopic: Option<&str>) -> Self {
        let hash =
            |topic: Option<&str>, subtopic: Option<&str>| FixedState::default().hash_one((channel, topic, subtopic));
        let kind = match (topic, subtopic) {
            (Some(_), Some(_)) => Kind::One,
            (Some(_), None) => Kind::Topic,
            (None, Some(_)) => Kind::Subtopic,
            (None, None) => Kind::Channel,
        };
        Self {
            kind,
            own: hash(topic, subtopic),
            topic: hash(topic, None),
            subtopic: hash(None, subtopic),
            channel: hash(None, None),
        }
    }
}

/// For each subscription, the place of the first one with which it takes turns.
///
/// Takes time in proportion to the number of triples, for 1,000 subscriptions with 16 replies each about 1 ms.
pub(in crate::router) fn connected(all: &[&Ordered]) -> Vec<usize> {
    let mut groups = Groups::new(all.len());
    let sets = || all.iter().enumerate().flat_map(|(place, it)| it.sets.iter().map(move |set| (place, set)));
    // For each set, a subscription that has it.
    let mut places: HashMap<u64, usize, FixedState> = HashMap::default();
    // Of each channel, a subscription to a whole topic, and one to a whole subtopic.
    let (mut topics, mut subtopics) = (HashMap::new(), HashMap::new());
    for (place, set) in sets() {
        groups.join(place, *places.entry(set.own).or_insert(place));
        match set.kind {
            Kind::Topic => drop(topics.insert(set.channel, place)),
            Kind::Subtopic => drop(subtopics.insert(set.channel, place)),
            Kind::One | Kind::Channel => {}
        }
    }
    for (place, set) in sets() {
        let wider = match set.kind {
            Kind::One => [places.get(&set.topic), places.get(&set.subtopic), places.get(&set.channel)],
            // A whole topic and a whole subtopic of one channel always have a triple in common.
            Kind::Topic => [subtopics.get(&set.channel), places.get(&set.channel), None],
            Kind::Subtopic => [topics.get(&set.channel), places.get(&set.channel), None],
            Kind::Channel => [None; 3],
        };
        for other in wider.into_iter().flatten() {
            groups.join(place, *other);
        }
    }
    (0..all.len()).map(|place| groups.first(place)).collect()
}

/// Disjoint sets of places, each known by its first.
struct Groups(Vec<usize>);

impl Groups {
    fn new(len: usize) -> Self {
        Self((0..len).collect())
    }

    fn first(&mut self, mut place: usize) -> usize {
        while let Some(&before) = self.0.get(place).filter(|before| **before != place) {
            // Halve the path, so that the next search is shorter.
            let earlier = self.0.get(before).copied().unwrap_or(before);
            if let Some(it) = self.0.get_mut(place) {
                *it = earlier;
            }
            place = earlier;
        }
        place
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.first(a), self.first(b));
        if let Some(later) = self.0.get_mut(a.max(b)) {
            *later = a.min(b);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Ordered subscriptions, written `pattern -> reply reply`.
    fn check(subscriptions: &[&str], lanes: &[usize]) {
        let read = |text: &&str| {
            let (pattern, replies) = text.split_once(" -> ").unwrap_or((text, ""));
            let reply = |it: &str| it.split_once('/').map(|(topic, subtopic)| (topic.to_owned(), subtopic.to_owned()));
            let replies = replies.split_whitespace().filter_map(reply).collect();
            let role = Role::Handler { answers: true, ordered: true, replies };
            let pattern: Pattern = pattern.parse().unwrap();
            Ordered::of(&pattern, &role, pattern.channel.as_deref() == Some("Memo")).unwrap()
        };
        let all: Vec<Ordered> = subscriptions.iter().map(read).collect();
        assert_eq!(connected(&all.iter().collect::<Vec<_>>()), lanes, "{subscriptions:?}");
    }

    #[test]
    fn only_subscriptions_that_can_reply_on_one_triple_take_turns() {
        check(&["A/Agent/Login", "A/Agent/Logout"], &[0, 1]);
        check(&["A/Agent/Login -> Agent/In", "A/Agent/Relogin -> Agent/In"], &[0, 0]);
        check(&["A/Agent/Login -> Agent/In", "B/Agent/Relogin -> Agent/In"], &[0, 1]);
        check(&["A/Agent/Login", "A/Agent/Relogin -> Agent/Login"], &[0, 0]);
        check(&["A/Agent/*", "A/Agent/Login", "A/User/Login"], &[0, 0, 2]);
        check(&["A/Agent/*", "A/User/Find -> Agent/Found"], &[0, 0]);
        check(&["A/*/Login", "A/Agent/Login", "A/Agent/Find"], &[0, 0, 2]);
        check(&["A/Agent/*", "A/User/*", "B/*/*"], &[0, 1, 2]);
        check(&["A/Agent/*", "A/*/Login", "A/User/*"], &[0, 0, 0]);
        check(&["A/Agent/*", "A/User/Find", "A/*/*"], &[0, 0, 0]);
        check(&["Memo/Agent/Login", "Memo/User/Find -> AGENT/login"], &[0, 0]);
        check(&["A/Agent/Login", "A/User/Find -> AGENT/login"], &[0, 1]);
        // Only through a third.
        check(&["A/X/One -> R/1", "A/X/Two -> R/2", "A/X/Three -> R/1 R/2", "A/X/Four -> R/4"], &[0, 0, 0, 3]);
    }

    /// Compares with the pairs that share a triple of a small world, and what follows from these pairs.
    #[test]
    fn lanes_are_the_connected_components() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..2_000 {
            let drawn: Vec<_> = (0..random.random_range(1..7)).map(|_| drawn(&mut random)).collect();
            let (all, triples): (Vec<Ordered>, Vec<BTreeSet<[&str; 3]>>) = drawn.into_iter().unzip();
            let mut first: Vec<usize> = (0..all.len()).collect();
            for _ in 0..all.len() {
                for (a, b) in (0..all.len()).flat_map(|a| (0..all.len()).map(move |b| (a, b))) {
                    if !triples[a].is_disjoint(&triples[b]) {
                        first[a] = first[a].min(first[b]);
                    }
                }
            }
            assert_eq!(connected(&all.iter().collect::<Vec<_>>()), first);
        }
    }

    const PARTS: [&str; 3] = ["a", "b", "c"];

    /// A subscription, and the triples on which it replies.
    fn drawn(random: &mut StdRng) -> (Ordered, BTreeSet<[&'static str; 3]>) {
        let mut part = || PARTS[random.random_range(0..3)];
        let (topic, subtopic, reply) = (part(), part(), (part(), part()));
        let channel = if random.random_bool(0.5) { "A" } else { "B" };
        let (topic, subtopic) = (random.random_bool(0.8).then_some(topic), random.random_bool(0.8).then_some(subtopic));
        let reply = random.random_bool(0.3).then_some(reply);
        let mut triples = BTreeSet::new();
        for (its, last) in PARTS.into_iter().flat_map(|its| PARTS.map(|last| (its, last))) {
            let is_request = topic.is_none_or(|topic| topic == its) && subtopic.is_none_or(|subtopic| subtopic == last);
            if is_request || reply == Some((its, last)) {
                triples.insert([channel, its, last]);
            }
        }
        let pattern = Pattern::from_parts(Some(channel), topic, subtopic).unwrap();
        let replies = reply.map(|(topic, subtopic)| (topic.to_owned(), subtopic.to_owned())).into_iter().collect();
        (Ordered::of(&pattern, &Role::Handler { answers: true, ordered: true, replies }, false).unwrap(), triples)
    }
}
