//! [`Chance`]: every random choice of a bus.

use chacha20poly1305::aead::Generate;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Incarnation, Seed};

/// Every random choice of a bus. From one number, the choices are always the same.
#[derive(Debug)]
pub(super) struct Chance {
    random: StdRng,
    seed: Seed,
}

impl Chance {
    pub(super) fn new(seed: Seed) -> Self {
        let random = match seed {
            Seed::System => StdRng::from_rng(&mut rand::rng()),
            Seed::Fixed(number) => StdRng::seed_from_u64(number),
        };
        Self { random, seed }
    }

    pub(super) fn incarnation(&mut self) -> Incarnation {
        Incarnation(self.random.random())
    }

    pub(super) fn challenge(&mut self) -> [u8; 16] {
        self.random.random()
    }

    /// Returns a nonce of the system itself: a copy of this process, as a snapshot of a virtual machine makes one, must not
    /// seal two texts with one nonce. `None` if the system gives no random numbers.
    pub(super) fn nonce(&mut self) -> Option<[u8; 24]> {
        match self.seed {
            Seed::System => Generate::try_generate().ok(),
            Seed::Fixed(_) => Some(self.random.random()),
        }
    }
}
