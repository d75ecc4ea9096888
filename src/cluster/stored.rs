//! [`StoredSealer`], which encrypts what a cluster keeps in JetStream.
//!
//! A stored text is a format byte, the fingerprint of the key, a random nonce, the ciphertext and its tag
//! (XChaCha20-Poly1305). The subject is authenticated with it as associated data, and so is the offset in a user's log: what
//! is moved to another subject, or to another place of a log, does not open.

use std::fmt;

use chacha20poly1305::aead::Generate;
use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::Keys;
use super::seal::{Cipher, FINGERPRINT_BYTES, Fingerprint, KEYS_MAX, NONCE_BYTES, TAG_BYTES};

/// The layout of a stored text. Packets of links have another one.
const FORMAT: u8 = 2;

const PURPOSE: &str = "switchboard cluster: stored";

const HEAD_BYTES: usize = 1 + FINGERPRINT_BYTES + NONCE_BYTES;

/// How much longer than its text a stored one is, in bytes.
pub const STORED_SEAL_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// Where something is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAt<'a> {
    /// The subject, with the key in a bucket.
    pub subject: &'a str,
    /// The offset in a user's log.
    pub offset: Option<u64>,
}

impl<'a> StoredAt<'a> {
    /// A place that is its subject.
    #[must_use]
    pub fn subject(subject: &'a str) -> Self {
        Self { subject, offset: None }
    }

    /// The associated data.
    fn bound(self) -> SmallVec<[u8; 128]> {
        let mut bound = SmallVec::new();
        bound.push(FORMAT);
        // An offset counts from 1.
        bound.extend_from_slice(&self.offset.unwrap_or_default().to_be_bytes());
        // Last, because it is the only part without a fixed length.
        bound.extend_from_slice(self.subject.as_bytes());
        bound
    }
}

/// Why a stored text was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// It was sealed with a key that this node does not have.
    #[error("it was sealed with a key that this node does not have")]
    UnknownKey,
    /// It was changed, or moved here from another place.
    #[error("it was changed, or belongs to another place")]
    Forged,
}

/// Encrypts and decrypts what a cluster keeps in JetStream.
pub struct StoredSealer {
    keys: SmallVec<[(Fingerprint, Cipher); KEYS_MAX]>,
}

impl fmt::Debug for StoredSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredSealer(..)")
    }
}

impl StoredSealer {
    /// Encrypts with the first key, and decrypts with all of them.
    #[must_use]
    pub fn new(keys: &Keys) -> Self {
        Self { keys: keys.ciphers(PURPOSE) }
    }

    /// Encrypts a text for one place. `None` if the system gives no random numbers.
    #[must_use]
    pub fn seal(&self, at: StoredAt<'_>, text: &[u8]) -> Option<Vec<u8>> {
        let (fingerprint, cipher) = self.keys.first()?;
        let nonce: [u8; NONCE_BYTES] = Generate::try_generate().ok()?;
        // Never grown, which would leave a copy of the text behind.
        let mut stored = Vec::with_capacity(STORED_SEAL_BYTES + text.len());
        stored.push(FORMAT);
        stored.extend_from_slice(&fingerprint.0);
        stored.extend_from_slice(&nonce);
        stored.extend_from_slice(text);
        let tag = cipher.encrypt(&nonce, &at.bound(), stored.get_mut(HEAD_BYTES..)?)?;
        stored.extend_from_slice(&tag);
        Some(stored)
    }

    /// Returns the text that was stored at this place.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(&self, at: StoredAt<'_>, stored: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let (fingerprint, nonce, sealed, tag) = split(stored).ok_or(NotOpened::Forged)?;
        let key = self.keys.iter().find(|(own, _)| *own == fingerprint);
        let (_, cipher) = key.ok_or(NotOpened::UnknownKey)?;
        let mut text = Zeroizing::new(sealed.to_vec());
        cipher.decrypt(nonce, &at.bound(), &mut text, tag).ok_or(NotOpened::Forged)?;
        Ok(text)
    }

    /// Whether a stored text was sealed with the key that seals now.
    #[must_use]
    pub fn is_current(&self, stored: &[u8]) -> bool {
        let first = self.keys.first().map(|(fingerprint, _)| *fingerprint);
        split(stored).is_some_and(|(fingerprint, ..)| Some(fingerprint) == first)
    }
}

type Parts<'a> = (Fingerprint, &'a [u8; NONCE_BYTES], &'a [u8], &'a [u8; TAG_BYTES]);

fn split(stored: &[u8]) -> Option<Parts<'_>> {
    let (&[format], rest) = stored.split_first_chunk()?;
    let (&fingerprint, rest) = rest.split_first_chunk()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (sealed, tag) = rest.split_last_chunk()?;
    (format == FORMAT).then_some((Fingerprint(fingerprint), nonce, sealed, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
    const TWO: &str = "0202020202020202020202020202020202020202020202020202020202020202";
    const AT: StoredAt<'_> = StoredAt { subject: "sb1.home.h.Calls.u.alice", offset: Some(7) };

    fn sealer(keys: &str) -> StoredSealer {
        StoredSealer::new(&Keys::parse(keys).unwrap())
    }

    #[test]
    fn a_text_opens_in_its_place_only() {
        let home = sealer(ONE);
        let stored = home.seal(AT, b"text").unwrap();
        assert_eq!(stored.len(), b"text".len() + STORED_SEAL_BYTES);
        assert_eq!(home.open(AT, &stored).unwrap().as_slice(), b"text");
        for other in [
            StoredAt { offset: Some(8), ..AT },
            StoredAt::subject(AT.subject),
            StoredAt { subject: "sb1.home.h.Calls.u.bob", ..AT },
        ] {
            assert_eq!(home.open(other, &stored), Err(NotOpened::Forged), "{other:?}");
        }
        assert_eq!(sealer(TWO).open(AT, &stored), Err(NotOpened::UnknownKey));
    }

    #[test]
    fn a_text_with_any_bit_changed_or_cut_does_not_open() {
        let home = sealer(ONE);
        let stored = home.seal(AT, b"text").unwrap();
        for at in 0..stored.len() {
            assert!(home.open(AT, &stored[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut changed = stored.clone();
                changed[at] ^= 1 << bit;
                assert!(home.open(AT, &changed).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn the_first_key_seals_and_both_open() {
        let (old, both) = (sealer(ONE), sealer(&format!("{TWO}\n{ONE}\n")));
        let before = old.seal(AT, b"text").unwrap();
        assert!(both.open(AT, &before).is_ok() && !both.is_current(&before));
        let after = both.seal(AT, b"text").unwrap();
        assert!(both.is_current(&after));
        assert_eq!(old.open(AT, &after), Err(NotOpened::UnknownKey));
    }
}
