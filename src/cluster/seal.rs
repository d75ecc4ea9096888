//! [`Keys`] of a cluster, and [`Sealer`], which encrypts and decrypts packets.
//!
//! A packet is a format byte, the fingerprint of the key, the sender's incarnation, a counter, a random nonce, the ciphertext
//! and its tag (XChaCha20-Poly1305). The receiver needs the first four before it can decrypt, so they are in the clear, and
//! they are authenticated as associated data together with the name of the cluster and the place: the beats of all, or the
//! incarnation that the packet is for. A packet that is moved to another place does not open.

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305};
use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::Incarnation;
use crate::store::Key;

/// The layout of a packet.
const FORMAT: u8 = 1;

pub(super) const FINGERPRINT_BYTES: usize = 8;
pub(super) const NONCE_BYTES: usize = 24;
pub(super) const TAG_BYTES: usize = 16;

/// What precedes the ciphertext: format, fingerprint, sender, counter, nonce.
pub(super) const HEAD_BYTES: usize = 1 + FINGERPRINT_BYTES + 16 + 8 + NONCE_BYTES;

/// What a packet has beside its text.
pub(super) const SEAL_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// Keys in a key file.
pub(super) const KEYS_MAX: usize = 2;

/// The one or two keys of a cluster: the first one seals, all of them open. They are wiped when dropped.
#[derive(Clone)]
pub struct Keys(Arc<Vec<Key>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// A text that is not one or two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster's key file holds one or two different keys of 64 hexadecimal digits, one per line")]
pub struct KeysError;

impl Keys {
    /// Reads the text of a key file: one or two keys of 64 hexadecimal digits, one per line.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let keys: Option<Vec<Key>> = text.lines().take(KEYS_MAX + 1).map(|line| Key::parse(line.trim())).collect();
        let keys = Self(Arc::new(keys.ok_or(KeysError)?));
        match keys.fingerprints().as_slice() {
            [_] => Ok(keys),
            [first, second] if first != second => Ok(keys),
            _ => Err(KeysError),
        }
    }

    /// Derives keys for one purpose, which no other use of these keys has, in the order of the file.
    pub(crate) fn derive(&self, purpose: &str) -> Vec<Zeroizing<[u8; 32]>> {
        self.0.iter().map(|key| key.derive(purpose)).collect()
    }

    /// Returns the names of the keys, in the order of the file.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.0.iter().map(Fingerprint::of).collect()
    }

    /// Derives a cipher for one purpose from each key.
    pub(super) fn ciphers(&self, purpose: &str) -> SmallVec<[(Fingerprint, Cipher); KEYS_MAX]> {
        self.0.iter().map(|key| (Fingerprint::of(key), Cipher::new(key, purpose))).collect()
    }
}

/// Names a key without revealing anything about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub(super) [u8; FINGERPRINT_BYTES]);

impl Fingerprint {
    fn of(key: &Key) -> Self {
        let hash = key.derive("switchboard cluster: fingerprint");
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        fingerprint.iter_mut().zip(hash.iter()).for_each(|(to, from)| *to = *from);
        Self(fingerprint)
    }
}

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

/// Where a packet is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Beats,
    /// The subject of this incarnation.
    Node(Incarnation),
}

/// What a packet says in the clear. None of it is trustworthy before the packet has been opened.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// The key that it was sealed with.
    pub(super) fingerprint: Fingerprint,
    pub(super) from: Incarnation,
    /// Greater than in every packet that this incarnation has sealed before.
    pub(super) counter: u64,
    nonce: [u8; NONCE_BYTES],
    sealed: &'a [u8],
}

impl<'a> Head<'a> {
    pub(super) fn read(packet: &'a [u8]) -> Option<Self> {
        let (&[format], rest) = packet.split_first_chunk()?;
        let (&fingerprint, rest) = rest.split_first_chunk()?;
        let (&from, rest) = rest.split_first_chunk()?;
        let (&counter, rest) = rest.split_first_chunk()?;
        let (&nonce, sealed) = rest.split_first_chunk()?;
        (format == FORMAT).then_some(Self {
            fingerprint: Fingerprint(fingerprint),
            from: Incarnation(from),
            counter: u64::from_be_bytes(counter),
            nonce,
            sealed,
        })
    }
}

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    UnknownKey,
    /// The key is known, but the packet was changed, or sealed for another place.
    Forged,
}

/// Encrypts and decrypts the packets of one cluster.
pub(super) struct Sealer {
    cluster: String,
    keys: SmallVec<[(Fingerprint, Cipher); KEYS_MAX]>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Sealer {
    pub(super) fn new(cluster: &str, keys: &Keys) -> Self {
        Self { cluster: cluster.to_owned(), keys: keys.ciphers("switchboard cluster: packets") }
    }

    /// Encrypts in place. `packet` is [`HEAD_BYTES`] of anything and the text. `key`: with this key, if there is such a one, and
    /// not with the first.
    pub(super) fn seal(
        &self,
        key: Option<Fingerprint>,
        place: Place,
        from: Incarnation,
        counter: u64,
        nonce: [u8; NONCE_BYTES],
        packet: &mut Vec<u8>,
    ) -> Option<()> {
        let wanted = self.keys.iter().find(|(fingerprint, _)| Some(*fingerprint) == key);
        let (fingerprint, cipher) = wanted.or_else(|| self.keys.first())?;
        let (head, text) = packet.split_at_mut_checked(HEAD_BYTES)?;
        let tag = cipher.encrypt(&nonce, &self.bound(place, from, counter), text)?;
        let clear = [FORMAT].into_iter().chain(fingerprint.0).chain(from.0).chain(counter.to_be_bytes()).chain(nonce);
        head.iter_mut().zip(clear).for_each(|(to, from)| *to = from);
        packet.extend_from_slice(&tag);
        Some(())
    }

    /// Returns the text of a packet that was sealed for this place.
    pub(super) fn open(&self, place: Place, head: &Head<'_>) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let key = self.keys.iter().find(|(fingerprint, _)| *fingerprint == head.fingerprint);
        let (_, cipher) = key.ok_or(Unopened::UnknownKey)?;
        let (sealed, tag) = head.sealed.split_last_chunk().ok_or(Unopened::Forged)?;
        // Answers with passwords are among what nodes send.
        let mut text = Zeroizing::new(sealed.to_vec());
        let bound = self.bound(place, head.from, head.counter);
        cipher.decrypt(&head.nonce, &bound, &mut text, tag).ok_or(Unopened::Forged)?;
        Ok(text)
    }

    /// The associated data.
    fn bound(&self, place: Place, from: Incarnation, counter: u64) -> SmallVec<[u8; 128]> {
        let mut bound = SmallVec::new();
        bound.push(FORMAT);
        match place {
            Place::Beats => bound.push(b'a'),
            Place::Node(to) => {
                bound.push(b'n');
                bound.extend_from_slice(&to.0);
            }
        }
        bound.extend_from_slice(&from.0);
        bound.extend_from_slice(&counter.to_be_bytes());
        // Last, because it is the only part without a fixed length.
        bound.extend_from_slice(self.cluster.as_bytes());
        bound
    }
}

/// One key, for one purpose.
pub(super) enum Cipher {
    Sealed(Box<XChaCha20Poly1305>),
    /// Only a checksum in place of the tag. An unoptimised cipher takes a millisecond, too long for the simulation.
    #[cfg(test)]
    Checked,
}

impl Cipher {
    fn new(key: &Key, purpose: &str) -> Self {
        let key = key.derive(purpose);
        Self::Sealed(Box::new(XChaCha20Poly1305::new((&*key).into())))
    }

    pub(super) fn encrypt(&self, nonce: &[u8; NONCE_BYTES], bound: &[u8], text: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        match self {
            Self::Sealed(cipher) => {
                cipher.encrypt_inout_detached(nonce.into(), bound, text.into()).ok().map(Into::into)
            }
            #[cfg(test)]
            Self::Checked => Some(checksum(nonce, bound, text)),
        }
    }

    pub(super) fn decrypt(
        &self,
        nonce: &[u8; NONCE_BYTES],
        bound: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Option<()> {
        match self {
            Self::Sealed(cipher) => {
                cipher.decrypt_inout_detached(nonce.into(), bound, text.into(), &Tag::from(*tag)).ok()
            }
            #[cfg(test)]
            Self::Checked => (checksum(nonce, bound, text) == *tag).then_some(()),
        }
    }
}

#[cfg(test)]
impl Sealer {
    /// Replaces the ciphers by checksums. What opens and what does not stays the same.
    pub(super) fn without_ciphers(&mut self) {
        self.keys.iter_mut().for_each(|(_, cipher)| *cipher = Cipher::Checked);
    }
}

#[cfg(test)]
fn checksum(nonce: &[u8], bound: &[u8], text: &[u8]) -> [u8; TAG_BYTES] {
    use std::hash::Hasher;
    let mut hasher = std::hash::DefaultHasher::new();
    for bytes in [nonce, bound, text] {
        hasher.write(bytes);
    }
    u128::from(hasher.finish()).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
    const TWO: &str = "0202020202020202020202020202020202020202020202020202020202020202";

    fn sealer(cluster: &str, keys: &str) -> Sealer {
        Sealer::new(cluster, &Keys::parse(keys).unwrap())
    }

    fn sealed(sealer: &Sealer, place: Place) -> Vec<u8> {
        let mut packet = vec![0; HEAD_BYTES];
        packet.extend_from_slice(b"text");
        sealer.seal(None, place, Incarnation([1; 16]), 7, [9; NONCE_BYTES], &mut packet).unwrap();
        packet
    }

    fn opened(sealer: &Sealer, place: Place, packet: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        sealer.open(place, &Head::read(packet).ok_or(Unopened::Forged)?)
    }

    #[test]
    fn a_packet_opens_in_its_place_only() {
        let home = sealer("home", ONE);
        let places = [Place::Beats, Place::Node(Incarnation([2; 16])), Place::Node(Incarnation([3; 16]))];
        for place in places {
            let packet = sealed(&home, place);
            for other in places {
                let expected = if other == place { Ok(b"text".to_vec()) } else { Err(Unopened::Forged) };
                assert_eq!(opened(&home, other, &packet).map(|text| text.to_vec()), expected);
            }
            assert_eq!(opened(&sealer("away", ONE), place, &packet), Err(Unopened::Forged));
            assert_eq!(opened(&sealer("home", TWO), place, &packet), Err(Unopened::UnknownKey));
        }
    }

    #[test]
    fn a_packet_with_any_bit_changed_or_cut_does_not_open() {
        let home = sealer("home", ONE);
        let packet = sealed(&home, Place::Beats);
        for at in 0..packet.len() {
            assert!(opened(&home, Place::Beats, &packet[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut changed = packet.clone();
                changed[at] ^= 1 << bit;
                assert!(opened(&home, Place::Beats, &changed).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn the_first_key_seals_and_both_open() {
        let both = sealer("home", &format!("{ONE}\n{TWO}\n"));
        assert!(opened(&sealer("home", ONE), Place::Beats, &sealed(&both, Place::Beats)).is_ok());
        assert!(opened(&both, Place::Beats, &sealed(&sealer("home", TWO), Place::Beats)).is_ok());
    }

    #[test]
    fn a_key_file_holds_one_or_two_different_keys() {
        let text = |lines: &[&str]| lines.join("\n");
        assert!(Keys::parse(&text(&[ONE])).is_ok());
        assert!(Keys::parse(&text(&[ONE, TWO, ""])).is_ok());
        let long = format!("{ONE}0");
        for lines in [&[][..], &["", ONE], &[ONE, ONE], &[ONE, TWO, ONE], &[&ONE[1..]], &[&long], &["password"]] {
            assert_eq!(Keys::parse(&text(lines)).unwrap_err(), KeysError, "{lines:?}");
        }
        let keys = Keys::parse(&text(&[ONE, TWO])).unwrap();
        assert_ne!(keys.fingerprints()[0], keys.fingerprints()[1]);
        assert_eq!(format!("{keys:?}"), "Keys(..)");
    }
}
