//! The key and what is done with it: [`Key`], its file, and [`Cipher`], which seals records and names rows.
//!
//! Two keys are derived from the one that the operator keeps: one seals (XChaCha20-Poly1305, a fresh random 192-bit
//! nonce each time), the other turns a user's name into the row's key, so that the file names nobody. The row's key is
//! bound to the record as associated data, with the version: a record moved to another user's row does not open.

use std::fmt;
use std::io;
use std::path::Path;

use chacha20poly1305::aead::{AeadInOut, Generate, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha512_256};
use zeroize::Zeroizing;

use super::DirectoryError;
use crate::store::{SecretError, create_new, read_secret};

/// The layout of a sealed record: this byte, the nonce, the ciphertext with its tag.
const VERSION: u8 = 1;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Hexadecimal digits of a key.
const KEY_DIGITS: usize = 64;

/// The 256 bits that the operator keeps.
pub(super) struct Key(Zeroizing<[u8; 32]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A new key from the system's generator.
    pub(super) fn generate() -> Result<Self, DirectoryError> {
        Generate::try_generate().map(|bytes| Self(Zeroizing::new(bytes))).map_err(|error| no_chance(&error))
    }

    /// Reads 64 hexadecimal digits; `None` where the text is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, &mut *key).ok()?;
        Some(Self(key))
    }

    /// Reads a key file, which others must not be able to read.
    pub(super) fn read(path: &Path) -> Result<Self, DirectoryError> {
        let key = match read_secret(path) {
            Ok(text) => Self::parse(text.trim_end_matches(['\r', '\n'])),
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

    /// Writes a new key file. Never over an old one.
    pub(super) fn write_new(&self, path: &Path) -> Result<(), DirectoryError> {
        let mut text = Zeroizing::new([0; KEY_DIGITS + 1]);
        let (digits, line_end) = text.split_at_mut(KEY_DIGITS);
        line_end.fill(b'\n');
        hex::encode_to_slice(self.0.as_slice(), digits)
            .map_err(io::Error::other)
            .and_then(|()| create_new(path, &*text))
            .map_err(|error| DirectoryError::file(path, "the key cannot be written", &error))
    }
}

/// Seals, opens and names with keys derived from one [`Key`].
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

    /// The row's key of a user: always the same, and nothing can be read from it without the key.
    pub(super) fn row_of(&self, user: &str) -> [u8; 32] {
        keyed_hash(&self.name, user.as_bytes()).into()
    }

    /// Seals in the buffer's own place; `place` has to be said again to open.
    pub(super) fn seal(&self, place: &[u8], mut plain: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, DirectoryError> {
        let nonce = XNonce::try_generate().map_err(|error| no_chance(&error))?;
        // Room for the tag, or the buffer would move and leave a copy of itself behind.
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

    /// Opens what was sealed for this place with this key; `None` for anything else.
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

/// The associated data: a version and a place cannot be exchanged without breaking the tag.
fn bound(place: &[u8]) -> Vec<u8> {
    [&[VERSION], place].concat()
}

fn derive(key: &[u8; 32], purpose: &str) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(keyed_hash(key, purpose.as_bytes()).into())
}

/// SHA-512/256 over key and text. The key has a fixed length, and the hash gives away only half of its state, so that
/// nobody can lengthen the text: HMAC's second pass is not needed.
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
