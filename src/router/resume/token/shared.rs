//! [`SharedKey`]: tokens that every node of a cluster reads.
//!
//! A token is sealed with XChaCha20-Poly1305. Its nonce is a code of the content (HMAC-SHA256) under a key of its own, so no
//! random numbers are needed, and the same token has always the same text.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305};
use ring::hmac;
use zeroize::Zeroizing;

use super::{ID_LEN, NUMBER_LEN, Token};

/// The bytes of a node's start, of a nonce and of a tag.
const START_LEN: usize = 16;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// What the seal is for.
const PURPOSE: &[u8] = b"switchboard resume token 1";

/// Makes the tokens of one node, and reads those of all.
pub(in crate::router) struct SharedKey {
    node: Arc<str>,
    start: [u8; START_LEN],
    keys: Vec<Key>,
}

struct Key {
    cipher: XChaCha20Poly1305,
    nonces: hmac::Key,
}

impl SharedKey {
    pub(super) fn new(node: &str, start: [u8; START_LEN], keys: &[Zeroizing<[u8; 32]>]) -> Self {
        let key = |key: &Zeroizing<[u8; 32]>| Key {
            cipher: XChaCha20Poly1305::new((&**key).into()),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, &**key),
        };
        Self { node: Arc::from(node), start, keys: keys.iter().map(key).collect() }
    }

    pub(super) fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// The text of a token of this node; empty if there is no key.
    pub(super) fn write(&self, token: Token) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(NONCE_LEN + ID_LEN + NUMBER_LEN + START_LEN + 64 + TAG_LEN));
        bytes.extend_from_slice(&[0; NONCE_LEN]);
        bytes.extend_from_slice(token.session.as_bytes());
        bytes.extend_from_slice(&token.number.to_be_bytes());
        bytes.extend_from_slice(&self.start);
        bytes.extend_from_slice(self.node.as_bytes());
        let sealed = self.keys.first().and_then(|key| key.seal(&mut bytes));
        Zeroizing::new(sealed.map_or_else(String::new, |()| URL_SAFE_NO_PAD.encode(&*bytes)))
    }

    /// Reads a text. Returns the token, and the node that made it.
    pub(super) fn read(&self, text: &str) -> Option<(Token, Box<str>)> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        let content = self.keys.iter().find_map(|key| key.open(&bytes))?;
        let (token, rest) = content.split_at_checked(ID_LEN + NUMBER_LEN)?;
        let (_start, node) = rest.split_at_checked(START_LEN)?;
        Some((Token::read(token)?, Box::from(std::str::from_utf8(node).ok()?)))
    }
}

impl Key {
    /// Seals what follows the place of the nonce, and adds the tag.
    fn seal(&self, bytes: &mut Vec<u8>) -> Option<()> {
        let (place, content) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let code = hmac::sign(&self.nonces, content);
        let nonce: [u8; NONCE_LEN] = code.as_ref().get(..NONCE_LEN)?.try_into().ok()?;
        let tag: [u8; TAG_LEN] =
            self.cipher.encrypt_inout_detached((&nonce).into(), PURPOSE, content.into()).ok()?.into();
        place.copy_from_slice(&nonce);
        bytes.extend_from_slice(&tag);
        Some(())
    }

    fn open(&self, bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let (content, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        let mut content = Zeroizing::new(content.to_vec());
        let opened =
            self.cipher.decrypt_inout_detached(nonce.into(), PURPOSE, content.as_mut_slice().into(), &Tag::from(*tag));
        opened.ok().map(|()| content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::SessionId;

    fn key(node: &str, keys: &[u8]) -> SharedKey {
        let keys: Vec<_> = keys.iter().map(|key| Zeroizing::new([*key; 32])).collect();
        SharedKey::new(node, [9; 16], &keys)
    }

    #[test]
    fn every_node_reads_a_token_and_learns_which_one_made_it() {
        let token = Token { session: SessionId::from_bytes([7; 16]), number: 3 };
        let text = key("one", &[1]).write(token);
        assert_eq!(key("two", &[1]).read(&text), Some((token, "one".into())));
        assert_eq!(key("two", &[2, 1]).read(&text), Some((token, "one".into())), "the second key opens, too");
        assert_eq!(key("two", &[2]).read(&text), None);
        assert_eq!(*key("one", &[1]).write(token), *text);
        assert_ne!(*key("one", &[1]).write(Token { number: 4, ..token }), *text);
    }

    #[test]
    fn a_token_that_was_changed_anywhere_is_not_read() {
        let key = key("one", &[1]);
        let text = key.write(Token { session: SessionId::from_bytes([7; 16]), number: 3 });
        for at in 0..text.len() {
            let mut changed = text.to_string().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.read(&String::from_utf8(changed).unwrap()), None, "character {at}");
            assert_eq!(key.read(&text[..at]), None, "{at} characters");
        }
    }
}
