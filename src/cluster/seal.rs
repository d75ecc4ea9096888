//! [`Keys`]: the keys of a cluster.

use std::fmt;

use crate::store::Key;

/// Keys in a key file.
const KEYS_MAX: usize = 2;

/// The one or two keys of a cluster: the first one seals, all of them open. They are wiped when dropped.
pub struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// A text that is not one or two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster's key file holds one or two different keys of 64 hexadecimal digits, one on a line")]
pub struct KeysError;

impl Keys {
    /// Reads the text of a key file: one or two keys of 64 hexadecimal digits, one on a line.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let keys: Option<Vec<Key>> = text.lines().take(KEYS_MAX + 1).map(|line| Key::parse(line.trim())).collect();
        keys.filter(|keys| (1..=KEYS_MAX).contains(&keys.len())).map(Self).ok_or(KeysError)
    }
}

/// Names a key without revealing anything about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 8]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
