//! Which ordered subscriptions of a session take turns: those whose replies can be on the same triple, also if only
//! through others.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::command::Role;
use wire::{Pattern, Triple};

/// What an ordered subscription needs to know of itself, in canonical form.
pub(in crate::router) struct Ordered {
    /// Its channel compares topics and subtopics without regard to case.
    folds: bool,
    /// The requests that it gets. Their triples can have the reply, too.
    requests: Triple<'static>,
    topic_is_any: bool,
    subtopic_is_any: bool,
    /// The other triples on which it replies.
    pub(in crate::router) replies: Box<[Arc<Triple<'static>>]>,
}

impl Ordered {
    /// The ordered part of a subscription; `None` if it is not ordered. `folds`: whether its channel folds case.
    pub(in crate::router) fn of(pattern: &Pattern, role: &Role, folds: bool) -> Option<Self> {
        let Role::Handler { ordered: true, replies, .. } = role else { return None };
        let channel = pattern.channel.as_deref()?;
        let triple = |topic: &str, subtopic: &str| {
            let triple = Triple::new(channel, topic, subtopic);
            if folds { triple.folded().to_owned() } else { triple.to_owned() }
        };
        let (topic, subtopic) = (pattern.topic.as_deref(), pattern.subtopic.as_deref());
        Some(Self {
            folds,
            requests: triple(topic.unwrap_or_default(), subtopic.unwrap_or_default()),
            topic_is_any: topic.is_none(),
            subtopic_is_any: subtopic.is_none(),
            replies: replies.iter().map(|(topic, subtopic)| Arc::new(triple(topic, subtopic))).collect(),
        })
    }

    /// A request's triple as replies to it are compared.
    pub(in crate::router) fn canonical(&self, triple: &Triple<'_>) -> Arc<Triple<'static>> {
        Arc::new(if self.folds { triple.folded().to_owned() } else { triple.to_owned() })
    }

    /// Everything that one of its replies can be on.
    fn sets(&self) -> impl Iterator<Item = Set<'_>> {
        let Triple { channel, topic, subtopic } = &self.requests;
        let requests = match (self.topic_is_any, self.subtopic_is_any) {
            (false, false) => Set::One(channel, topic, subtopic),
            (false, true) => Set::Topic(channel, topic),
            (true, false) => Set::Subtopic(channel, subtopic),
            (true, true) => Set::Channel(channel),
        };
        let replies = self.replies.iter().map(|it| Set::One(&it.channel, &it.topic, &it.subtopic));
        replies.chain([requests])
    }
}

/// A set of triples.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Set<'a> {
    One(&'a str, &'a str, &'a str),
    /// All triples of a topic.
    Topic(&'a str, &'a str),
    /// All triples with a subtopic.
    Subtopic(&'a str, &'a str),
    Channel(&'a str),
}

/// For each subscription, the place of the first one with which it takes turns.
///
/// Takes time in proportion to the number of triples (times its logarithm, since the sets are in order).
pub(in crate::router) fn connected(all: &[&Ordered]) -> Vec<usize> {
    let mut groups = Groups::new(all.len());
    let mut sets: BTreeMap<Set<'_>, usize> = BTreeMap::new();
    // Of each channel, a subscription to a whole topic, and one to a whole subtopic.
    let (mut topics, mut subtopics) = (BTreeMap::new(), BTreeMap::new());
    for (place, ordered) in all.iter().enumerate() {
        for set in ordered.sets() {
            groups.join(place, *sets.entry(set).or_insert(place));
            match set {
                Set::Topic(channel, _) => drop(topics.insert(channel, place)),
                Set::Subtopic(channel, _) => drop(subtopics.insert(channel, place)),
                Set::One(..) | Set::Channel(_) => {}
            }
        }
    }
    for (set, place) in &sets {
        let (channel, wider) = match *set {
            Set::One(channel, topic, subtopic) => {
                (channel, [sets.get(&Set::Topic(channel, topic)), sets.get(&Set::Subtopic(channel, subtopic))])
            }
            // A whole topic and a whole subtopic of one channel always have a triple in common.
            Set::Topic(channel, _) => (channel, [subtopics.get(channel), None]),
            Set::Subtopic(channel, _) => (channel, [topics.get(channel), None]),
            Set::Channel(channel) => (channel, [None, None]),
        };
        for other in wider.into_iter().flatten().chain(sets.get(&Set::Channel(channel))) {
            groups.join(*place, *other);
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
            let all: Vec<Ordered> = (0..random.random_range(1..7)).map(|_| drawn(&mut random)).collect();
            let mut first: Vec<usize> = (0..all.len()).collect();
            for _ in 0..all.len() {
                for (a, b) in (0..all.len()).flat_map(|a| (0..all.len()).map(move |b| (a, b))) {
                    if !triples(&all[a]).is_disjoint(&triples(&all[b])) {
                        first[a] = first[a].min(first[b]);
                    }
                }
            }
            assert_eq!(connected(&all.iter().collect::<Vec<_>>()), first);
        }
    }

    const PARTS: [&str; 3] = ["a", "b", "c"];

    fn drawn(random: &mut StdRng) -> Ordered {
        let mut part = || -> Box<str> { PARTS[random.random_range(0..3)].into() };
        let (topic, subtopic, reply) = (part(), part(), (part().into(), part().into()));
        let pattern = Pattern {
            channel: Some(if random.random_bool(0.5) { "A".into() } else { "B".into() }),
            topic: random.random_bool(0.8).then_some(topic),
            subtopic: random.random_bool(0.8).then_some(subtopic),
        };
        let replies = if random.random_bool(0.3) { vec![reply] } else { Vec::new() };
        Ordered::of(&pattern, &Role::Handler { answers: true, ordered: true, replies }, false).unwrap()
    }

    fn triples(ordered: &Ordered) -> BTreeSet<[&str; 3]> {
        let mut triples = BTreeSet::new();
        for (topic, subtopic) in PARTS.into_iter().flat_map(|topic| PARTS.map(|subtopic| (topic, subtopic))) {
            for set in ordered.sets() {
                let (channel, is_in) = match set {
                    Set::One(channel, its, last) => (channel, its == topic && last == subtopic),
                    Set::Topic(channel, its) => (channel, its == topic),
                    Set::Subtopic(channel, last) => (channel, last == subtopic),
                    Set::Channel(channel) => (channel, true),
                };
                if is_in {
                    triples.insert([channel, topic, subtopic]);
                }
            }
        }
        triples
    }
}
