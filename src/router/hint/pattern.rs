//! The pattern, or the source, that was probably meant.

use wire::{Pattern, Triple};

use super::distance::slips;

/// In what a name differs from the one that was meant, the most similar one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::router) enum Likeness {
    /// In letter case.
    InCase,
    /// Two or three parts are swapped.
    Swapped,
    /// In this number of slips.
    Misspelt(usize),
}

/// The order of the parts of a triple after two or three were swapped.
const SWAPPED: [[usize; 3]; 5] = [[0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]];

/// How similar a pattern that does not match a triple is to one that does.
pub(in crate::router) fn likeness(pattern: &Pattern, triple: &Triple<'_>) -> Option<Likeness> {
    if pattern.matches_any_case(triple) {
        return Some(Likeness::InCase);
    }
    let own = [pattern.channel.as_deref(), pattern.topic.as_deref(), pattern.subtopic.as_deref()];
    let parts = [&*triple.channel, &*triple.topic, &*triple.subtopic];
    let same = |own: Option<&str>, part: &str| own.is_none_or(|own| own.eq_ignore_ascii_case(part));
    let fits =
        |order: &[usize; 3]| own.iter().zip(order).all(|(own, at)| parts.get(*at).is_some_and(|part| same(*own, part)));
    if SWAPPED.iter().any(fits) {
        return Some(Likeness::Swapped);
    }
    let mut different = own.iter().zip(parts).filter(|(own, part)| !same(**own, part));
    let (own, part) = different.next()?;
    if different.next().is_some() {
        return None;
    }
    slips(&own.as_deref()?.to_ascii_lowercase(), &part.to_ascii_lowercase()).map(Likeness::Misspelt)
}

/// How similar two names are that differ.
pub(in crate::router) fn likeness_of_names(own: &str, other: &str) -> Option<Likeness> {
    if own.eq_ignore_ascii_case(other) {
        return Some(Likeness::InCase);
    }
    slips(&other.to_ascii_lowercase(), &own.to_ascii_lowercase()).map(Likeness::Misspelt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_similar_by_case_order_and_spelling() {
        let triple = Triple::new("Phone", "Call", "Ringing");
        for (pattern, expected) in [
            ("Phone/call/*", Some(Likeness::InCase)),
            ("*/*/RINGING", Some(Likeness::InCase)),
            ("Call/Phone/*", Some(Likeness::Swapped)),
            ("ringing/call/phone", Some(Likeness::Swapped)),
            ("Phone/Call/Rinnging", Some(Likeness::Misspelt(1))),
            ("Phoen/*/*", Some(Likeness::Misspelt(1))),
            ("Phoen/Cal/*", None),
            ("Mail/*/*", None),
            ("Broker/*/*", None),
        ] {
            assert_eq!(likeness(&pattern.parse().unwrap(), &triple), expected, "{pattern}");
        }
    }

    #[test]
    fn a_source_is_similar_by_case_and_spelling() {
        for (own, expected) in
            [("screenpop", Some(Likeness::Misspelt(1))), ("SCRENPOP", Some(Likeness::InCase)), ("softphone", None)]
        {
            assert_eq!(likeness_of_names(own, "screnpop"), expected, "{own}");
        }
    }
}
