//! [`Ids`]: every name and every random choice of the router comes from one seed, so that a simulation replays.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

/// Names a session on the wire; says nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

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

/// The length of an id on the wire: a letter, and 64 bits in hexadecimal.
const TEXT_LEN: usize = 17;

/// The text of an id, without an allocation.
pub(super) struct IdText([u8; TEXT_LEN]);

impl IdText {
    fn new(letter: u8, mut number: u64) -> Self {
        let mut text = [letter; TEXT_LEN];
        for place in text.iter_mut().skip(1).rev() {
            let digit = (number & 0xf) as u8;
            *place = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            number >>= 4;
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
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            Some(number << 4 | u64::from(value))
        })
    }
}

impl AsRef<str> for IdText {
    fn as_ref(&self) -> &str {
        // A letter and hexadecimal digits.
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

    pub(super) fn session(&self) -> SessionId {
        let bytes: [u8; 16] = self.random.lock().random();
        SessionId(uuid::Builder::from_random_bytes(bytes).into_uuid())
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
const ROUNDS: u32 = 27;

/// The block cipher Speck64/128 (Beaulieu et al., "The SIMON and SPECK families of lightweight block ciphers", 2013).
///
/// Each number has exactly one image, so ids never collide, and without the key nobody can tell which id comes next or
/// how many there are. A table or a random number per id would need a lock or a check for collisions.
struct Permutation {
    keys: [u32; ROUNDS as usize],
}

impl Permutation {
    fn new([k0, l0, l1, l2]: [u32; 4]) -> Self {
        let (mut key, mut spare) = (k0, [l0, l1, l2]);
        let mut keys = [0; ROUNDS as usize];
        for (round, place) in (0..ROUNDS).zip(&mut keys) {
            *place = key;
            let [first, second, third] = spare;
            let next = key.wrapping_add(first.rotate_right(8)) ^ round;
            key = key.rotate_left(3) ^ next;
            spare = [second, third, next];
        }
        Self { keys }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    fn apply(&self, number: u64) -> u64 {
        let (mut left, mut right) = ((number >> 32) as u32, number as u32);
        for key in self.keys {
            left = left.rotate_right(8).wrapping_add(right) ^ key;
            right = right.rotate_left(3) ^ left;
        }
        u64::from(left) << 32 | u64::from(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of the paper's appendix C.
    #[test]
    fn the_permutation_is_speck_64_128() {
        let permutation = Permutation::new([0x0302_0100, 0x0b0a_0908, 0x1312_1110, 0x1b1a_1918]);
        assert_eq!(permutation.apply(0x3b72_6574_7475_432d), 0x8c6f_a548_454e_028b);
    }

    #[test]
    fn an_id_is_read_exactly_as_it_is_written() {
        let ids = Ids::seeded(1);
        for _ in 0..1000 {
            let id = ids.request(ids.serial());
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(RequestId(0x07).to_string(), "r0000000000000007");
        for other in
            ["r7", "r+000000000000007", "r00000000000000007", "s0000000000000007", "r000000000000000A", "r", ""]
        {
            assert_eq!(other.parse::<RequestId>(), Err(()), "{other}");
        }
    }

    #[test]
    fn ids_that_follow_each_other_have_nothing_in_common() {
        let ids = Ids::seeded(1);
        let made: Vec<u64> = (0..1000).map(|_| ids.request(ids.serial()).0).collect();
        // Independent 64-bit numbers differ in 32 bits on average, and hardly ever in fewer than 10.
        let least = made.windows(2).map(|pair| (pair[0] ^ pair[1]).count_ones()).min();
        assert!(least > Some(9), "{least:?}");
        assert!(!made.is_sorted());
        assert_ne!(made, (0..1000).map(|_| Ids::seeded(2).request(Serial(1)).0).collect::<Vec<_>>());
    }
}
