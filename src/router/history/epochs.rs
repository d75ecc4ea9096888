//! [`Epochs`]: the names of the lives of logs.
//!
//! Logs that never held anything have the epoch of the broker's start. A log that is forgotten gets another one when it is
//! made again, because its offsets begin at 1 again.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The forgotten logs whose next epoch is remembered. Beyond that, all logs that hold nothing get a new epoch.
const FORGOTTEN_MAX: usize = 65_536;

/// The epochs of logs that hold nothing.
pub(super) struct Epochs {
    base: Arc<str>,
    /// How often logs were forgotten, by the hash of their key. Two logs with the same hash only get an epoch more.
    forgotten: HashMap<u64, u32, foldhash::fast::RandomState>,
    hasher: foldhash::fast::RandomState,
    /// How often the base was replaced.
    renewed: u64,
}

impl Epochs {
    pub(super) fn new(base: Arc<str>) -> Self {
        Self { base, forgotten: HashMap::default(), hasher: foldhash::fast::RandomState::default(), renewed: 0 }
    }

    /// The epoch of a log that holds nothing.
    pub(super) fn of(&self, key: &str) -> Arc<str> {
        let epoch = match (self.renewed, self.forgotten.get(&self.hasher.hash_one(key))) {
            (0, None) => return Arc::clone(&self.base),
            (renewed, times) => format!("{}-{renewed}-{}", self.base, times.copied().unwrap_or_default()),
        };
        Arc::from(epoch)
    }

    /// A log is forgotten: what it held is lost.
    pub(super) fn forget(&mut self, key: &str) {
        if self.forgotten.len() >= FORGOTTEN_MAX {
            self.renew();
        }
        *self.forgotten.entry(self.hasher.hash_one(key)).or_default() += 1;
    }

    /// Gives all logs that hold nothing another epoch.
    pub(super) fn renew(&mut self) {
        self.renewed += 1;
        self.forgotten.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_log_that_was_forgotten_gets_an_epoch_that_it_never_had() {
        let mut epochs = Epochs::new("base".into());
        assert_eq!(&*epochs.of("Phone/alice"), "base");
        let mut had = BTreeSet::from([epochs.of("Phone/alice")]);
        for round in 0..100 {
            if round == 50 {
                epochs.renew();
                assert!(had.insert(epochs.of("Phone/alice")));
            }
            epochs.forget("Phone/alice");
            assert!(had.insert(epochs.of("Phone/alice")), "round {round}");
        }
        assert_ne!(epochs.of("Phone/alice"), epochs.of("Phone/bob"));
    }

    #[test]
    fn remembering_forgotten_logs_has_a_bound() {
        let mut epochs = Epochs::new("base".into());
        let first = epochs.of("never");
        for log in 0..FORGOTTEN_MAX + 10 {
            epochs.forget(&log.to_string());
            assert!(epochs.forgotten.len() <= FORGOTTEN_MAX);
        }
        assert_eq!(epochs.forgotten.len(), 10);
        assert_ne!(epochs.of("never"), first);
    }
}
