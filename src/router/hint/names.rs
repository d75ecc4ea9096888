//! [`Names`]: the triples that exact patterns name, in the order of their folded text, so that similar ones are found
//! with few look-ups.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::RwLock;
use smallvec::SmallVec;
use wire::{BROKER, Pattern, Triple};

use super::distance::{PART_BYTES_MAX, slips};

/// The number of channels, of topics in a channel, and of subtopics in a topic that one search compares.
const COMPARED: usize = 64;

/// Sorts behind everything that begins with a part and its `/`.
const AFTER_PART: char = '0';

/// Triples by their folded text; few are written in more than one way.
type Folded = BTreeMap<Box<str>, SmallVec<[Written; 1]>>;

/// The triples that exact patterns name. Sessions that name the same triple share an entry.
#[derive(Default)]
pub(super) struct Names {
    folded: RwLock<Folded>,
}

struct Written {
    text: Box<str>,
    subscriptions: usize,
}

/// A triple that is similar to another one. The most similar one is the least.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Similar {
    /// It differs in letter case.
    InCase(Box<str>),
    /// Two or three parts are swapped.
    Swapped(Box<str>),
    /// One part differs by this number of slips.
    Misspelt(usize, Box<str>),
}

impl Similar {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::InCase(text) | Self::Swapped(text) | Self::Misspelt(_, text) => text,
        }
    }
}

/// The text of a pattern that names one triple, unless it is too long or the broker's own.
fn exact(pattern: &Pattern) -> Option<String> {
    let parts = [pattern.channel.as_deref()?, pattern.topic.as_deref()?, pattern.subtopic.as_deref()?];
    let is_short = parts.iter().all(|part| part.len() <= PART_BYTES_MAX);
    (is_short && parts.first() != Some(&BROKER)).then(|| parts.join("/"))
}

impl Names {
    /// Adds the triple of a subscription, if its pattern is exact and no part is too long.
    pub(super) fn insert(&self, pattern: &Pattern) {
        let Some(text) = exact(pattern) else { return };
        let mut folded = self.folded.write();
        let forms = folded.entry(text.to_ascii_lowercase().into()).or_default();
        match forms.iter_mut().find(|form| *form.text == *text) {
            Some(form) => form.subscriptions += 1,
            None => forms.push(Written { text: text.into(), subscriptions: 1 }),
        }
    }

    /// Takes the triple of a subscription out.
    pub(super) fn remove(&self, pattern: &Pattern) {
        let Some(text) = exact(pattern) else { return };
        let mut folded = self.folded.write();
        let mut was_there = false;
        let key = text.to_ascii_lowercase();
        if let Some(forms) = folded.get_mut(&*key) {
            if let Some(form) = forms.iter_mut().find(|form| *form.text == *text) {
                form.subscriptions -= 1;
                was_there = true;
            }
            forms.retain(|form| form.subscriptions > 0);
            if forms.is_empty() {
                folded.remove(&*key);
            }
        }
        debug_assert!(was_there, "a triple that was not added");
    }

    /// The number of subscriptions that were added.
    pub(super) fn len(&self) -> usize {
        self.folded.read().values().flatten().map(|form| form.subscriptions).sum()
    }

    /// Whether a triple is named, in a form that `accept` accepts.
    pub(super) fn any(&self, triple: &Triple<'_>, accept: impl Fn(&str) -> bool) -> bool {
        let key = triple.to_string().to_ascii_lowercase();
        self.folded.read().get(&*key).is_some_and(|forms| forms.iter().any(|form| accept(&form.text)))
    }

    /// The most similar triple that `accept` accepts. Looks at a bounded number of triples.
    pub(super) fn similar(&self, triple: &Triple<'_>, accept: impl Fn(&str) -> bool) -> Option<Similar> {
        let [channel, topic, subtopic] =
            [&triple.channel, &triple.topic, &triple.subtopic].map(|part| part.to_ascii_lowercase());
        let [c, t, s] = [&*channel, &*topic, &*subtopic];
        if [c, t, s].iter().any(|part| part.len() > PART_BYTES_MAX) {
            return None;
        }
        let search = Search { folded: &self.folded.read(), accept };
        let in_case = search.first(&[c, t, s].join("/")).map(Similar::InCase);
        in_case
            .or_else(|| {
                let swapped = [[c, s, t], [t, c, s], [s, t, c], [t, s, c], [s, c, t]];
                swapped.iter().find_map(|parts| search.first(&parts.join("/"))).map(Similar::Swapped)
            })
            .or_else(|| {
                let subtopics = search.misspelt(&[c, t, ""].join("/"), s, "");
                let topics = search.misspelt(&[c, ""].join("/"), t, &["", s].join("/"));
                let channels = search.misspelt("", c, &["", t, s].join("/"));
                subtopics.into_iter().chain(topics).chain(channels).min()
            })
    }
}

struct Search<'n, A> {
    folded: &'n Folded,
    accept: A,
}

impl<A: Fn(&str) -> bool> Search<'_, A> {
    /// The first written form of a folded triple that is accepted.
    fn first(&self, folded: &str) -> Option<Box<str>> {
        let accepted = |form: &&Written| (self.accept)(&form.text);
        self.folded.get(folded)?.iter().find(accepted).map(|form| form.text.clone())
    }

    /// The most similar triple `before` + a part like `part` + `after`. Jumps from part to part, whatever is below each.
    fn misspelt(&self, before: &str, part: &str, after: &str) -> Option<Similar> {
        let mut best = None;
        let mut from = Bound::Included(before.to_owned());
        for _ in 0..COMPARED {
            let range = (from.as_ref().map(String::as_str), Bound::Unbounded);
            let Some((key, _)) = self.folded.range::<str, _>(range).next() else { break };
            let Some(rest) = key.strip_prefix(before) else { break };
            let other = rest.split('/').next().unwrap_or_default();
            if let Some(slips) = slips(part, other)
                && let Some(text) = self.first(&[before, other, after].concat())
            {
                let found = Similar::Misspelt(slips, text);
                best = Some(best.map_or_else(|| found.clone(), |best: Similar| best.min(found.clone())));
            }
            from = Bound::Included(format!("{before}{other}{AFTER_PART}"));
            if after.is_empty() {
                // The last part has nothing below it.
                from = Bound::Excluded(key.to_string());
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triple(text: &str) -> Triple<'_> {
        let mut parts = text.split('/');
        let mut part = || parts.next().unwrap();
        Triple::new(part(), part(), part())
    }

    fn names(patterns: &[&str]) -> Names {
        let names = Names::default();
        for pattern in patterns {
            names.insert(&pattern.parse().unwrap());
        }
        names
    }

    fn similar(names: &Names, to: &str) -> Option<String> {
        names.similar(&triple(to), |_| true).map(|similar| similar.text().to_owned())
    }

    #[test]
    fn a_similar_triple_is_found_by_case_order_and_spelling() {
        let patterns =
            ["Phone/Call/MakeCall", "Phone/Call/*", "Sales/Ticket/Opened", "phone-2/Call/Ring", "Phone/Agent/Ring"];
        let names = names(&patterns);
        for (sent, meant) in [
            ("Phone/Call/makecall", Some("Phone/Call/MakeCall")),
            ("PHONE/CALL/MAKECALL", Some("Phone/Call/MakeCall")),
            ("Phone/MakeCall/Call", Some("Phone/Call/MakeCall")),
            ("makecall/call/phone", Some("Phone/Call/MakeCall")),
            ("Phone/Call/MakeCal", Some("Phone/Call/MakeCall")),
            ("Phone/Cal/MakeCall", Some("Phone/Call/MakeCall")),
            ("Phnoe/Call/MakeCall", Some("Phone/Call/MakeCall")),
            ("phone-3/Call/Ring", Some("phone-2/Call/Ring")),
            ("Phone/Agnet/Ring", Some("Phone/Agent/Ring")),
            ("Weather/Today/Rain", None),
            ("Phone/Call/Transfer", None),
            ("Broker/Call/MakeCall", None),
        ] {
            assert_eq!(similar(&names, sent).as_deref(), meant, "{sent}");
        }
        for pattern in patterns {
            names.remove(&pattern.parse().unwrap());
        }
        assert_eq!(names.len(), 0);
    }

    #[test]
    fn what_is_not_accepted_hides_nothing() {
        let names = names(&["Phone/Call/Ring", "Phone/Call/Rings", "phone/call/ring"]);
        let similar = |accepted: &str| names.similar(&triple("Phone/Call/rinG"), |it| it == accepted);
        assert_eq!(similar("phone/call/ring"), Some(Similar::InCase("phone/call/ring".into())));
        assert_eq!(similar("Phone/Call/Rings"), Some(Similar::Misspelt(1, "Phone/Call/Rings".into())));
    }

    #[test]
    fn a_search_looks_at_a_bounded_number_of_triples() {
        let names = Names::default();
        for number in 0..10_000 {
            names.insert(&format!("Phone/Call/Item{number:05}").parse().unwrap());
        }
        let looked_at = std::cell::Cell::new(0);
        let count = |_: &str| {
            looked_at.set(looked_at.get() + 1);
            false
        };
        names.similar(&triple("Phone/Call/Item0000x"), count);
        assert!((1..=3 * COMPARED).contains(&looked_at.get()), "{}", looked_at.get());
    }
}
