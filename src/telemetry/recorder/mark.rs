//! [`Mark`]: a number by which a triple is recognised, so that its name is kept once for many entries.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;
use std::sync::LazyLock;

use wire::Triple;

/// A number of a triple. Two triples have the same one with a chance of about 1 in 2^63. Random numbers go into it, so that
/// nobody can construct two such triples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(NonZeroU64);

/// What goes into the marks of this process.
struct Random {
    numbers: [u64; 4],
    names: RandomState,
}

static RANDOM: LazyLock<Random> = LazyLock::new(|| {
    let names = RandomState::new();
    Random { numbers: [0_u8, 1, 2, 3].map(|number| names.hash_one(number)), names }
});

impl Mark {
    /// The mark of a triple.
    #[inline(never)]
    pub fn of(triple: &Triple<'_>) -> Self {
        Self::of_parts([&triple.channel, &triple.topic, &triple.subtopic])
    }

    /// The mark of the triple with these parts.
    pub fn of_parts(parts: [&str; 3]) -> Self {
        let Random { numbers: [first, second, third, fourth], names } = &*RANDOM;
        let [channel, topic, subtopic] = parts.map(|part| words(names, part));
        let lens = parts.into_iter().fold(0, |lens, part| lens << 8 | part.len() as u64);
        let number = folded(channel.0 ^ first, channel.1 ^ second)
            ^ folded(topic.0 ^ second, topic.1 ^ third).rotate_left(21)
            ^ folded(subtopic.0 ^ third, subtopic.1 ^ lens ^ fourth).rotate_left(42);
        // The lowest bit says nothing, so that a mark is never 0.
        Self(NonZeroU64::MIN | number)
    }

    /// Its place among the 256 names at hand.
    #[inline]
    pub(super) fn at_hand(self) -> usize {
        let [_, byte, ..] = self.0.get().to_le_bytes();
        usize::from(byte)
    }
}

/// All bytes of a name of 4 to 16 bytes, which its length completes; of another one, its hash.
#[inline]
fn words(names: &RandomState, name: &str) -> (u64, u64) {
    let bytes = name.as_bytes();
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let half = |bytes: Option<&[u8; 4]>| bytes.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    match bytes.len() {
        4..8 => (half(bytes.first_chunk()), half(bytes.last_chunk())),
        8..=16 => (word(bytes.first_chunk()), word(bytes.last_chunk())),
        _ => (names.hash_one(name), 0),
    }
}

/// The product of two numbers, its halves combined.
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
#[inline]
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn triples_that_differ_in_one_place_have_marks_that_differ() {
        let names =
            ["", "a", "ab", "Call", "Calls", "Ringing", "RingingX", "Ringing-and-more", "Ringing-and-more-of-it"];
        let mut marks = HashSet::new();
        for channel in names {
            for topic in names {
                for subtopic in names {
                    marks.insert(Mark::of_parts([channel, topic, subtopic]).0);
                }
            }
        }
        assert_eq!(marks.len(), names.len().pow(3));
        // Bytes that move from one part to the next.
        assert_ne!(Mark::of_parts(["abcd", "efgh", "ijkl"]), Mark::of_parts(["abcde", "fgh", "ijkl"]));
    }

    #[test]
    fn a_triple_has_one_mark_however_it_is_read() {
        let triple = Triple { channel: "Phone".into(), topic: "Call".into(), subtopic: "Ringing".into() };
        assert_eq!(Mark::of(&triple), Mark::of_parts(["Phone", "Call", "Ringing"]));
        assert_eq!(Mark::of(&triple.to_owned()), Mark::of(&triple));
    }
}
