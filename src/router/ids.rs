//! [`Ids`]: every name and every random choice of the router comes from one seed, so that a simulation replays.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Names a session on the wire; says nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

impl SessionId {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }

    pub(super) fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Uuid> for SessionId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

/// The length of an id on the wire: a letter, and 48 bits in six each.
const TEXT_LEN: usize = 9;

/// The length of an epoch on the wire: 96 bits in six each, because epochs of different brokers must not be the same.
const EPOCH_LEN: usize = 16;

/// The digits of an id, those of base64url (RFC 4648, section 5).
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The text of an id, without an allocation.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdText([u8; TEXT_LEN]);

impl IdText {
    fn new(letter: u8, mut number: u64) -> Self {
        let mut text = [letter; TEXT_LEN];
        for place in text.iter_mut().skip(1).rev() {
            if let Some(digit) = DIGITS.get((number & 63) as usize) {
                *place = *digit;
            }
            number >>= 6;
        }
        Self(text)
    }

    /// Reads exactly what [`IdText::new`] writes.
    fn read(letter: u8, text: &str) -> Option<u64> {
        let (first, digits) = text.as_bytes().split_first()?;
        if *first != letter || digits.len() + 1 != TEXT_LEN {
            return None;
        }
        digits.iter().try_fold(0, |number, digit| {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            Some(number << 6 | u64::from(value))
        })
    }
}

impl IdText {
    pub(super) fn as_bytes(&self) -> &[u8; TEXT_LEN] {
        &self.0
    }
}

impl AsRef<str> for IdText {
    fn as_ref(&self) -> &str {
        // ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(u64);

        impl $name {
            pub(super) fn text(self) -> IdText {
                IdText::new($letter, self.0)
            }

            /// The number that other nodes of a cluster know it by.
            pub(super) fn number(self) -> u64 {
                self.0
            }

            /// The id with this number.
            pub(super) fn from_number(number: u64) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text().as_ref())
            }
        }

        impl FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                IdText::read($letter, text).map(Self).ok_or(())
            }
        }
    };
}

opaque! {
    /// Names a subscription on the wire. It has no order: [`Serial`] has.
    SubscriptionId, b's'
}

opaque! {
    /// The broker-made `id` of a delivered request. It has no order: [`Serial`] has. It needs no secrecy, because only
    /// the session to which the request was given can use it.
    RequestId, b'r'
}

/// The place of something in the order in which the router made it. Never leaves the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Serial(u64);

impl Serial {
    /// The number, to choose a shard by.
    pub(super) fn number(self) -> u64 {
        self.0
    }
}

/// Makes ids and serials.
pub struct Ids {
    random: Mutex<StdRng>,
    next: AtomicU64,
    permutation: Permutation,
}

impl Ids {
    /// Ids that follow from a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::from_rng(StdRng::seed_from_u64(seed))
    }

    /// Ids that nobody can foresee.
    #[must_use]
    pub fn random() -> Self {
        Self::from_rng(StdRng::from_rng(&mut rand::rng()))
    }

    fn from_rng(mut random: StdRng) -> Self {
        let permutation = Permutation::new(random.random());
        Self { random: Mutex::new(random), next: AtomicU64::new(1), permutation }
    }

    /// A key that nobody can foresee, if the seed was random.
    pub(super) fn key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.random.lock().random())
    }

    /// A name for this start of a node, which no other start has.
    pub(super) fn start(&self) -> [u8; 16] {
        self.random.lock().random()
    }

    pub(super) fn session(&self) -> SessionId {
        let bytes: [u8; 16] = self.random.lock().random();
        SessionId(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Names an attempt to store something.
    pub(super) fn attempt(&self) -> [u8; 16] {
        self.random.lock().random()
    }

    /// The name of the life of a log.
    pub(super) fn epoch(&self) -> Arc<str> {
        let bytes: [u8; EPOCH_LEN] = self.random.lock().random();
        let digit = |byte: &u8| DIGITS.get(usize::from(byte & 63)).map_or('_', |digit| char::from(*digit));
        bytes.iter().map(digit).collect::<String>().into()
    }

    /// The id of the subscription with this serial.
    pub(super) fn subscription(&self, serial: Serial) -> SubscriptionId {
        SubscriptionId(self.permutation.apply(serial.0))
    }

    /// The id of the request with this serial.
    pub(super) fn request(&self, serial: Serial) -> RequestId {
        RequestId(self.permutation.apply(serial.0))
    }

    /// A serial greater than all before.
    pub(super) fn serial(&self) -> Serial {
        Serial(self.stamp())
    }

    /// A number greater than all before.
    pub(super) fn stamp(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Rounds of the cipher.
const ROUNDS: u32 = 23;

/// The bits of one of its words.
const WORD: u32 = 24;
const WORD_MASK: u32 = (1 << WORD) - 1;

/// The block cipher Speck48/96 (Beaulieu et al., "The SIMON and SPECK families of lightweight block ciphers", 2013).
///
/// Each number has exactly one image, so ids never collide, and without the key nobody can tell which id comes next or
/// how many there are. A table or a random number for each id would need a lock or a check for collisions. With 48 bits,
/// an id returns after 281 million million others.
struct Permutation {
    keys: [u32; ROUNDS as usize],
}

impl Permutation {
    fn new(key: [u32; 4]) -> Self {
        let [mut key, mut first, mut second, mut third] = key.map(|word| word & WORD_MASK);
        let mut keys = [0; ROUNDS as usize];
        for (round, place) in (0..ROUNDS).zip(&mut keys) {
            *place = key;
            let next = (key + rotate_right(first)) & WORD_MASK ^ round;
            key = rotate_left(key) ^ next;
            (first, second, third) = (second, third, next);
        }
        Self { keys }
    }

    /// The image of a number's low 48 bits.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    fn apply(&self, number: u64) -> u64 {
        let (mut left, mut right) = ((number >> WORD) as u32 & WORD_MASK, number as u32 & WORD_MASK);
        for key in self.keys {
            left = (rotate_right(left) + right) & WORD_MASK ^ key;
            right = rotate_left(right) ^ left;
        }
        u64::from(left) << WORD | u64::from(right)
    }
}

/// Rotates a word by 8 bits.
fn rotate_right(word: u32) -> u32 {
    (word >> 8 | word << (WORD - 8)) & WORD_MASK
}

/// Rotates a word by 3 bits.
fn rotate_left(word: u32) -> u32 {
    (word << 3 | word >> (WORD - 3)) & WORD_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of the paper's appendix C.
    #[test]
    fn the_permutation_is_speck_48_96() {
        let permutation = Permutation::new([0x02_0100, 0x0a_0908, 0x12_1110, 0x1a_1918]);
        assert_eq!(permutation.apply(0x6d20_7369_6874), 0x735e_10b6_445d);
    }

    #[test]
    fn an_id_is_read_exactly_as_it_is_written() {
        let ids = Ids::seeded(1);
        for _ in 0..1000 {
            let id = ids.request(ids.serial());
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(RequestId(7).to_string(), "rAAAAAAAH");
        assert_eq!(RequestId((1 << 48) - 1).to_string(), "r________");
        for other in ["r7", "r+AAAAAAH", "rAAAAAAAAH", "sAAAAAAAH", "rAAAAAA/H", "rAAAAAAé", "r", ""] {
            assert_eq!(other.parse::<RequestId>(), Err(()), "{other}");
        }
    }

    #[test]
    fn ids_that_follow_each_other_have_nothing_in_common() {
        let ids = Ids::seeded(1);
        let made: Vec<u64> = (0..1000).map(|_| ids.request(ids.serial()).0).collect();
        // Independent 48-bit numbers differ in 24 bits on average, and hardly ever in fewer than 7.
        let least = made.windows(2).map(|pair| (pair[0] ^ pair[1]).count_ones()).min();
        assert!(least > Some(6), "{least:?}");
        assert!(!made.is_sorted());
        assert_ne!(made, (0..1000).map(|_| Ids::seeded(2).request(Serial(1)).0).collect::<Vec<_>>());
    }
}
