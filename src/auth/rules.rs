//! [`Rules`]: the patterns of a right, of which most are told from a triple without a look at their text.

use std::ops::Deref;
use std::sync::Arc;

use wire::{Pattern, Triple};

use super::Rule;

/// The rules that allow, or those that deny. They do not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Arc<[Rule]>,
    /// Those of `rules`, in the same order.
    outlines: Arc<[Four]>,
}

impl Rules {
    /// The first rule whose pattern matches the triple without regard to ASCII case.
    #[must_use]
    pub fn first_match(&self, triple: &Triple<'_>) -> Option<&Rule> {
        if self.outlines.is_empty() {
            return None;
        }
        let outline = outline_of(triple);
        let candidates = self.outlines.iter().map(|four| four.candidates(outline));
        let (number, candidates) = candidates.enumerate().find(|(_, candidates)| *candidates != 0)?;
        self.first_match_from(number, candidates, outline, triple)
    }

    /// The same from the four with this number on, of which these are candidates. Apart, so that the search for the first four
    /// needs no registers for it.
    #[inline(never)]
    fn first_match_from(
        &self,
        mut number: usize,
        mut candidates: u32,
        outline: u32,
        triple: &Triple<'_>,
    ) -> Option<&Rule> {
        loop {
            while candidates != 0 {
                let rule = self.rules.get(number * FOUR + candidates.trailing_zeros() as usize)?;
                if fits(&rule.pattern, triple) {
                    return Some(rule);
                }
                candidates &= candidates - 1;
            }
            number += 1;
            candidates = self.outlines.get(number)?.candidates(outline);
        }
    }
}

/// Whether a pattern matches a triple. Apart, because a loop around it would prepare for more rounds than there are: nearly
/// always one.
#[inline(never)]
fn fits(pattern: &Pattern, triple: &Triple<'_>) -> bool {
    names(pattern, triple) || pattern.matches_any_case(triple)
}

/// Whether a pattern names the channel of a triple, and matches it in the case in which it is written. Most texts are in the
/// same case, and short.
fn names(Pattern { channel, topic, subtopic }: &Pattern, triple: &Triple<'_>) -> bool {
    channel.as_deref().is_some_and(|own| is_same(own, &triple.channel))
        && topic.as_deref().is_none_or(|own| is_same(own, &triple.topic))
        && subtopic.as_deref().is_none_or(|own| is_same(own, &triple.subtopic))
}

/// Whether two texts are the same. Those of 4 to 16 bytes are compared here by their two ends, without a call.
#[inline]
fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    match one.len() {
        len if len != other.len() => false,
        4..=7 => ends::<4>(one) == ends::<4>(other),
        8..=16 => ends::<8>(one) == ends::<8>(other),
        _ => one == other,
    }
}

#[inline]
fn ends<const N: usize>(text: &[u8]) -> (Option<&[u8; N]>, Option<&[u8; N]>) {
    (text.first_chunk(), text.last_chunk())
}

impl FromIterator<Rule> for Rules {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        let rules: Arc<[Rule]> = rules.into_iter().collect();
        let outlines = rules.chunks(FOUR).map(Four::of).collect();
        Self { rules, outlines }
    }
}

impl Deref for Rules {
    type Target = [Rule];

    fn deref(&self) -> &[Rule] {
        &self.rules
    }
}

/// How many patterns are compared at once, which is what the registers of every processor hold.
const FOUR: usize = 4;

/// The outlines of four patterns. An outline is a few bits of each part: of its length, and of its last letter without
/// regard to ASCII case. Places without a pattern match nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Four {
    outlines: [u32; FOUR],
    /// The bits that count: those of a wildcard do not.
    masks: [u32; FOUR],
}

impl Four {
    fn of(rules: &[Rule]) -> Self {
        let mut four = Self { outlines: [u32::MAX; FOUR], masks: [u32::MAX; FOUR] };
        for ((rule, outline), mask) in rules.iter().zip(&mut four.outlines).zip(&mut four.masks) {
            let Pattern { channel, topic, subtopic } = &rule.pattern;
            let parts = [channel, topic, subtopic].map(Option::as_deref);
            *outline = join(parts.map(|part| part.map_or(0, outline_of_part)));
            *mask = join(parts.map(|part| part.map_or(0, |_| PART)));
        }
        four
    }

    /// The patterns that may match a triple with this outline, a bit for each. The others do not.
    #[inline]
    fn candidates(&self, triple: u32) -> u32 {
        // Without a branch for each, so that the compiler compares them all at once.
        let mut differs = self.outlines;
        for (bits, mask) in differs.iter_mut().zip(self.masks) {
            *bits = (*bits ^ triple) & mask;
        }
        let [first, second, third, fourth] = differs.map(|bits| u32::from(bits == 0));
        first | second << 1 | third << 2 | fourth << 3
    }
}

/// All bits of a part.
const PART: u32 = 0x3FF;

#[inline]
fn outline_of(triple: &Triple<'_>) -> u32 {
    join([&triple.channel, &triple.topic, &triple.subtopic].map(|part| outline_of_part(part)))
}

/// ASCII letters have the same lowest five bits in both cases.
#[inline]
fn outline_of_part(part: &str) -> u32 {
    let len = u32::try_from(part.len() & 0x1F).unwrap_or_default();
    let last = part.as_bytes().last().copied().map_or(0, u32::from) & 0x1F;
    len << 5 | last
}

#[inline]
fn join([channel, topic, subtopic]: [u32; 3]) -> u32 {
    channel << 20 | topic << 10 | subtopic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_is_the_one_that_a_look_at_every_pattern_finds() {
        let long = "n".repeat(128);
        let names = ["Call", "call", "CALL", "Cell", "C", "Queue", "@", "`", "é", "[", "{", long.as_str()];
        let mut triples = Vec::new();
        for channel in names {
            for topic in names {
                triples.extend(names.map(|subtopic| Triple::new(channel, topic, subtopic)));
            }
        }
        let patterns = [
            "Queue/*/C",
            "call/Cell/C",
            "*/Call/CELL",
            "@/é/[",
            "C/`/*",
            "*/{/*",
            &format!("*/{long}/Call"),
            "Queue/queue/*",
            "*/*/Queue",
        ];
        for count in 0..=patterns.len() {
            let rule = |it: &&str| Rule { pattern: it.parse().unwrap(), from: "role 'agent'".into() };
            let rules: Rules = patterns[..count].iter().map(rule).collect();
            let found = triples.iter().map(|triple| rules.first_match(triple));
            let expected = triples.iter().map(|triple| rules.iter().find(|it| it.pattern.matches_any_case(triple)));
            assert!(found.eq(expected), "{count} patterns");
            let matched = triples.iter().filter(|triple| rules.first_match(triple).is_some()).count();
            assert!(matched < triples.len() && (matched > 0 || count == 0), "{matched} of {} match", triples.len());
        }
    }

    #[test]
    fn texts_are_the_same_if_all_of_their_bytes_are() {
        for len in 0..40 {
            let text = "n".repeat(len);
            assert!(is_same(&text, &text.clone()) && !is_same(&text, &"n".repeat(len + 1)));
            for at in 0..len {
                let other = ["n".repeat(at), "m".to_owned(), "n".repeat(len - at - 1)].concat();
                assert!(!is_same(&text, &other), "{len} bytes, the one at {at} differs");
            }
        }
    }

    #[test]
    fn most_patterns_of_a_role_are_told_from_a_triple_by_their_outlines() {
        let rule = |it: &str| Rule { pattern: it.parse().unwrap(), from: "role 'agent'".into() };
        let rules = ["Phone/Call/Held", "Phone/Call/Missed", "Desk/*/*", "Salesforce/Agent/*"].map(rule);
        let four = Four::of(&rules);
        let candidates = |triple: &Triple<'_>| four.candidates(outline_of(triple));
        assert_eq!(candidates(&Triple::new("Phone", "Call", "Ringing")), 0);
        assert_eq!(candidates(&Triple::new("desk", "Lamp", "On")), 0b100);
    }
}
