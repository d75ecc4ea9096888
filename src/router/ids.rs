//! [`Ids`]: every name and every chance of the broker comes from one seed, so that a simulation replays.

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

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                text.strip_prefix($letter).and_then(|number| number.parse().ok()).map(Self).ok_or(())
            }
        }
    };
}

numbered! {
    /// Names a subscription on the wire; later ones are greater.
    SubscriptionId, 's'
}

numbered! {
    /// The broker-made `id` of a delivered request. It needs no secrecy: only the session it was given to may use it.
    RequestId, 'r'
}

impl RequestId {
    /// The number, to choose a shard by.
    pub(super) fn number(self) -> u64 {
        self.0
    }
}

/// Makes ids, and stamps that order what happened.
pub struct Ids {
    chance: Mutex<StdRng>,
    next: AtomicU64,
}

impl Ids {
    /// Ids that follow from a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { chance: Mutex::new(StdRng::seed_from_u64(seed)), next: AtomicU64::new(1) }
    }

    /// Ids that nobody can foresee.
    #[must_use]
    pub fn random() -> Self {
        Self { chance: Mutex::new(StdRng::from_rng(&mut rand::rng())), next: AtomicU64::new(1) }
    }

    pub(super) fn session(&self) -> SessionId {
        let bytes: [u8; 16] = self.chance.lock().random();
        SessionId(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    pub(super) fn subscription(&self) -> SubscriptionId {
        SubscriptionId(self.stamp())
    }

    pub(super) fn request(&self) -> RequestId {
        RequestId(self.stamp())
    }

    /// A number greater than all before.
    pub(super) fn stamp(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}
