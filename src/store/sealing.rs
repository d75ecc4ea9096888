//! [`Key`], its file, and [`Cipher`], which encrypts records and names rows.
//!
//! Two keys are derived from the operator's key for each store. One encrypts (XChaCha20-Poly1305 with a new random 192-bit
//! nonce each time); the other turns a name into the key of a row, so that the file names nobody. The record's place and the
//! version are authenticated with the record as associated data: a record that is moved to another place cannot be decrypted.

use std::fmt;
use std::io;
use std::path::Path;

use chacha20poly1305::aead::{AeadInOut, Generate, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha512_256};
use zeroize::Zeroizing;

use super::{SecretError, StoreError, create_whole, read_secret};

/// The layout of an encrypted record: this byte, the nonce, the ciphertext with its tag.
const VERSION: u8 = 1;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// The place and the text of a key check.
pub(crate) const KEY_CHECK: &str = "key check";

/// The length of a key in hexadecimal digits.
const KEY_DIGITS: usize = 64;

/// The operator's key of 256 bits.
pub(crate) struct Key(Zeroizing<[u8; 32]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Makes a new key with the system's random generator.
    pub(crate) fn generate() -> Result<Self, StoreError> {
        Generate::try_generate().map(|bytes| Self(Zeroizing::new(bytes))).map_err(|error| no_chance(&error))
    }

    /// Reads 64 hexadecimal digits; `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, &mut *key).ok()?;
        Some(Self(key))
    }

    /// Derives a key for one purpose, which no other use of this key has.
    pub(crate) fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(keyed_hash(&self.0, purpose.as_bytes()).into())
    }

    /// Reads a key file, which others must not be able to read.
    pub(crate) fn read(path: &Path) -> Result<Self, StoreError> {
        let key = match read_secret(path) {
            Ok(text) => Self::parse(&text),
            Err(SecretError::NotText) => None,
            Err(error) => return Err(StoreError::file(path, "the key cannot be read", &error)),
        };
        key.ok_or_else(|| {
            StoreError::unusable(format!(
                "{}: a key file holds {KEY_DIGITS} hexadecimal digits on one line, and this one does not; put the \
                 right file back, or remove it if nothing is sealed with it yet",
                path.display()
            ))
        })
    }

    /// Writes a new key file, with the owner, group and mode of `model`. Never overwrites one.
    pub(crate) fn write_new(&self, model: Option<&Path>, path: &Path) -> Result<(), StoreError> {
        let mut text = Zeroizing::new([0; KEY_DIGITS + 1]);
        let (digits, line_end) = text.split_at_mut(KEY_DIGITS);
        line_end.fill(b'\n');
        hex::encode_to_slice(self.0.as_slice(), digits)
            .map_err(io::Error::other)
            .and_then(|()| create_whole(model, path, &*text))
            .map_err(|error| StoreError::file(path, "the key cannot be written", &error))
    }
}

/// Encrypts, decrypts and names rows with keys that are derived from one [`Key`].
pub(crate) struct Cipher {
    seal: XChaCha20Poly1305,
    name: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// Derives the keys of a store. `store` is its name, which no other store has.
    pub(crate) fn new(key: &Key, store: &str) -> Self {
        let seal = key.derive(&format!("switchboard {store}: seal"));
        let name = key.derive(&format!("switchboard {store}: name"));
        Self { seal: XChaCha20Poly1305::new((&*seal).into()), name }
    }

    /// Returns a new record that only this key decrypts, for [`Cipher::fits`].
    pub(crate) fn key_check(&self) -> Result<Vec<u8>, StoreError> {
        self.seal(KEY_CHECK.as_bytes(), Zeroizing::new(KEY_CHECK.as_bytes().to_vec()))
    }

    /// Returns whether a store with this key check was made with this key.
    pub(crate) fn fits(&self, key_check: &[u8]) -> bool {
        self.open(KEY_CHECK.as_bytes(), key_check).is_some()
    }

    /// Returns the row's key of a name. It is always the same, and reveals nothing without the key.
    pub(crate) fn row_of(&self, name: &str) -> [u8; 32] {
        keyed_hash(&self.name, name.as_bytes()).into()
    }

    /// Encrypts in place. The same `place` is needed for decryption.
    pub(crate) fn seal(&self, place: &[u8], mut plain: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, StoreError> {
        let nonce = XNonce::try_generate().map_err(|error| no_chance(&error))?;
        // Capacity for the tag; without it the buffer would move and leave a copy of itself behind.
        if plain.capacity() < plain.len() + TAG_BYTES {
            let mut roomy = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
            roomy.extend_from_slice(&plain);
            plain = roomy;
        }
        self.seal
            .encrypt_in_place(&nonce, &bound(place), &mut *plain)
            .map_err(|_| StoreError::unusable("a record is too long to be sealed"))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + plain.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&plain);
        Ok(sealed)
    }

    /// Decrypts what was encrypted for this place with this key; `None` for anything else.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
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

/// SHA-512/256 of key and text. The key has a fixed length, and the hash reveals only half of its state, so the text
/// cannot be extended: HMAC's second pass is not needed.
fn keyed_hash(key: &[u8; 32], text: &[u8]) -> sha2::digest::Output<Sha512_256> {
    Sha512_256::new().chain_update(key).chain_update(text).finalize()
}

fn no_chance(error: &dyn fmt::Display) -> StoreError {
    StoreError::unusable(format!("the system gives no random numbers: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn cipher(digit: char) -> Cipher {
        Cipher::new(&Key::parse(&digit.to_string().repeat(KEY_DIGITS)).unwrap(), "credentials")
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
    fn one_store_cannot_open_what_another_one_sealed() {
        let key = Key::parse(&"a".repeat(KEY_DIGITS)).unwrap();
        let [one, other] = ["credentials", "history"].map(|store| Cipher::new(&key, store));
        assert!(one.fits(&one.key_check().unwrap()) && !one.fits(&other.key_check().unwrap()));
    }

    #[test]
    fn a_row_is_named_by_user_and_key() {
        assert_eq!(cipher('a').row_of("alice"), cipher('a').row_of("alice"));
        assert_ne!(cipher('a').row_of("alice"), cipher('a').row_of("Alice"));
        assert_ne!(cipher('a').row_of("alice"), cipher('b').row_of("alice"));
    }
}
