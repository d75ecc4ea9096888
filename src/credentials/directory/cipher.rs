//! [`Key`], its file, and [`Cipher`], which encrypts records and names rows.
//!
//! Two keys are derived from the operator's key. One encrypts (XChaCha20-Poly1305 with a new random 192-bit nonce each
//! time); the other turns a user into the key of a row, so that the file names nobody. The row's key and the version
//! are authenticated with the record as associated data: a record that is moved to another user's row cannot be
//! decrypted.

use std::fmt;
use std::io;
use std::path::Path;

use chacha20poly1305::aead::{AeadInOut, Generate, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha512_256};
use zeroize::Zeroizing;

use super::{DirectoryError, KEY_CHECK};
use crate::store::{SecretError, create_whole, read_secret};

/// The layout of an encrypted record: this byte, the nonce, the ciphertext with its tag.
const VERSION: u8 = 1;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// The length of a key in hexadecimal digits.
const KEY_DIGITS: usize = 64;

/// The operator's key of 256 bits.
pub(super) struct Key(Zeroizing<[u8; 32]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Makes a new key with the system's random generator.
    pub(super) fn generate() -> Result<Self, DirectoryError> {
        Generate::try_generate().map(|bytes| Self(Zeroizing::new(bytes))).map_err(|error| no_chance(&error))
    }

    /// Reads 64 hexadecimal digits; `None` for any other text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, &mut *key).ok()?;
        Some(Self(key))
    }

    /// Reads a key file, which others must not be able to read.
    pub(super) fn read(path: &Path) -> Result<Self, DirectoryError> {
        let key = match read_secret(path) {
            Ok(text) => Self::parse(&text),
            Err(SecretError::NotText) => None,
            Err(error) => return Err(DirectoryError::file(path, "the key cannot be read", &error)),
        };
        key.ok_or_else(|| {
            DirectoryError::new(format!(
                "{}: a key file holds {KEY_DIGITS} hexadecimal digits on one line, and this one does not; put the \
                 right file back, or remove it if there is no credential store yet",
                path.display()
            ))
        })
    }

    /// Writes a new key file, with the owner, group and mode of `model`. Never overwrites one.
    pub(super) fn write_new(&self, model: Option<&Path>, path: &Path) -> Result<(), DirectoryError> {
        let mut text = Zeroizing::new([0; KEY_DIGITS + 1]);
        let (digits, line_end) = text.split_at_mut(KEY_DIGITS);
        line_end.fill(b'\n');
        hex::encode_to_slice(self.0.as_slice(), digits)
            .map_err(io::Error::other)
            .and_then(|()| create_whole(model, path, &*text))
            .map_err(|error| DirectoryError::file(path, "the key cannot be written", &error))
    }
}

/// Encrypts, decrypts and names rows with keys that are derived from one [`Key`].
pub(super) struct Cipher {
    seal: XChaCha20Poly1305,
    name: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    pub(super) fn new(key: &Key) -> Self {
        let seal = derive(&key.0, "switchboard credentials: seal");
        Self { seal: XChaCha20Poly1305::new((&*seal).into()), name: derive(&key.0, "switchboard credentials: name") }
    }

    /// Returns whether a store with this key check was made with this key.
    pub(super) fn fits(&self, key_check: &[u8]) -> bool {
        self.open(KEY_CHECK.as_bytes(), key_check).is_some()
    }

    /// Returns the row's key of a user. It is always the same, and reveals nothing without the key.
    pub(super) fn row_of(&self, user: &str) -> [u8; 32] {
        keyed_hash(&self.name, user.as_bytes()).into()
    }

    /// Encrypts in place. The same `place` is needed for decryption.
    pub(super) fn seal(&self, place: &[u8], mut plain: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, DirectoryError> {
        let nonce = XNonce::try_generate().map_err(|error| no_chance(&error))?;
        // Capacity for the tag; without it the buffer would move and leave a copy of itself behind.
        if plain.capacity() < plain.len() + TAG_BYTES {
            let mut roomy = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
            roomy.extend_from_slice(&plain);
            plain = roomy;
        }
        self.seal
            .encrypt_in_place(&nonce, &bound(place), &mut *plain)
            .map_err(|_| DirectoryError::new("a record is too long to be sealed"))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + plain.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&plain);
        Ok(sealed)
    }

    /// Decrypts what was encrypted for this place with this key; `None` for anything else.
    pub(super) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (&version, rest) = sealed.split_first()?;
        if version != VERSION {
            return None;
        }
        let (nonce, body) = rest.split_at_checked(NONCE_BYTES)?;
        let nonce = XNonce::try_from(nonce).ok()?;
        let mut plain = Zeroizing::new(body.to_vec());
        self.seal.decrypt_in_place(&nonce, &bound(place), &mut *plain).ok()?;
        Some(plain)
    }
}

/// The associated data: changing the version or the place breaks the tag.
fn bound(place: &[u8]) -> Vec<u8> {
    [&[VERSION], place].concat()
}

fn derive(key: &[u8; 32], purpose: &str) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(keyed_hash(key, purpose.as_bytes()).into())
}

/// SHA-512/256 of key and text. The key has a fixed length, and the hash reveals only half of its state, so the text
/// cannot be extended: HMAC's second pass is not needed.
fn keyed_hash(key: &[u8; 32], text: &[u8]) -> sha2::digest::Output<Sha512_256> {
    Sha512_256::new().chain_update(key).chain_update(text).finalize()
}

fn no_chance(error: &dyn fmt::Display) -> DirectoryError {
    DirectoryError::new(format!("the system gives no random numbers: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn cipher(digit: char) -> Cipher {
        Cipher::new(&Key::parse(&digit.to_string().repeat(KEY_DIGITS)).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_in_its_place_only(
            plain in vec(any::<u8>(), 0..600), place in vec(any::<u8>(), 0..40), other in vec(any::<u8>(), 0..40),
            at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let cipher = cipher('a');
            let mut sealed = cipher.seal(&place, Zeroizing::new(plain.clone())).unwrap();
            prop_assert_eq!(&*cipher.open(&place, &sealed).unwrap(), &plain);
            prop_assert!(other == place || cipher.open(&other, &sealed).is_none(), "moved");
            prop_assert!(self::cipher('b').open(&place, &sealed).is_none(), "another key");
            prop_assert!(cipher.open(&place, &sealed[..at.index(sealed.len())]).is_none(), "cut");
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(cipher.open(&place, &sealed).is_none(), "byte {} changed", at);
        }
    }

    #[test]
    fn the_same_text_is_never_sealed_the_same_way() {
        let seal = || cipher('a').seal(b"place", Zeroizing::new(b"text".to_vec())).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_row_is_named_by_user_and_key() {
        assert_eq!(cipher('a').row_of("alice"), cipher('a').row_of("alice"));
        assert_ne!(cipher('a').row_of("alice"), cipher('a').row_of("Alice"));
        assert_ne!(cipher('a').row_of("alice"), cipher('b').row_of("alice"));
    }
}
