//! Resume tokens: what proves to the broker which session a client had.
//!
//! A token is the name of its session, the number of the token, and a code that authenticates both (HMAC-SHA256) under a key
//! of this process. So the broker keeps no token, and it knows a used one for as long as the session lives.
//!
//! In a cluster, a token also names the node that made it and the start of that node, and is sealed with a key that every
//! node derives from the cluster's (`shared`).

mod shared;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use zeroize::Zeroizing;

use crate::router::SessionId;
use shared::SharedKey;

/// The bytes of a session's name, of the token's number, and of the code.
const ID_LEN: usize = 16;
const NUMBER_LEN: usize = 8;
const CODE_LEN: usize = 32;
const TOKEN_LEN: usize = ID_LEN + NUMBER_LEN + CODE_LEN;

/// Makes and reads tokens.
pub(super) enum TokenKey {
    /// Of this process alone.
    Own(hmac::Key),
    /// Of all nodes of a cluster.
    Shared(Box<SharedKey>),
}

/// A token that this process has made, or another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) struct Token {
    pub(in crate::router) session: SessionId,
    pub(in crate::router) number: u64,
}

/// Which tokens of a session are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::router) struct Tokens {
    newest: u64,
    /// Valid until the client shows that it has the newest one, in case the reply with that was lost.
    previous: Option<u64>,
}

impl TokenKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self::Own(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The keys of a cluster, of which the first one seals and all open, for the tokens of this node. `start`: any bytes that
    /// no other start of a node has.
    pub(super) fn shared(node: &str, start: [u8; 16], keys: &[Zeroizing<[u8; 32]>]) -> Self {
        Self::Shared(Box::new(SharedKey::new(node, start, keys)))
    }

    /// The name of this node, in a cluster.
    pub(super) fn node(&self) -> Option<&Arc<str>> {
        match self {
            Self::Own(_) => None,
            Self::Shared(key) => Some(key.node()),
        }
    }

    /// The text of a token.
    pub(super) fn write(&self, token: Token) -> Zeroizing<String> {
        let key = match self {
            Self::Own(key) => key,
            Self::Shared(shared) => return shared.write(token),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(TOKEN_LEN));
        bytes.extend_from_slice(token.session.as_bytes());
        bytes.extend_from_slice(&token.number.to_be_bytes());
        let code = hmac::sign(key, &bytes);
        bytes.extend_from_slice(code.as_ref());
        Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes))
    }

    /// Reads a text. `None`: neither this process nor another node has made such a token.
    pub(super) fn read(&self, text: &str) -> Option<Token> {
        self.read_with_node(text).map(|(token, _)| token)
    }

    /// The same, with the node that made it; `None` without a cluster.
    pub(super) fn read_with_node(&self, text: &str) -> Option<(Token, Option<Box<str>>)> {
        let key = match self {
            Self::Own(key) => key,
            Self::Shared(shared) => return shared.read(text).map(|(token, node)| (token, Some(node))),
        };
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        let (signed, code) = bytes.split_at_checked(ID_LEN + NUMBER_LEN)?;
        hmac::verify(key, signed, code).ok()?;
        Token::read(signed).map(|token| (token, None))
    }
}

impl Token {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (session, number) = bytes.split_at_checked(ID_LEN)?;
        Some(Self {
            session: SessionId::from_bytes(session.try_into().ok()?),
            number: u64::from_be_bytes(number.try_into().ok()?),
        })
    }
}

impl Tokens {
    /// The tokens of a session that comes from another node.
    pub(super) fn moved(newest: u64, previous: Option<u64>) -> Self {
        Self { newest, previous }
    }

    pub(super) fn previous(self) -> Option<u64> {
        self.previous
    }

    /// The number of the newest token.
    pub(super) fn newest(self) -> u64 {
        self.newest
    }

    pub(super) fn is_valid(self, number: u64) -> bool {
        number == self.newest || Some(number) == self.previous
    }

    /// A token was used, so a new one takes its place.
    pub(super) fn replace(&mut self, used: u64) {
        self.previous = Some(used);
        self.newest += 1;
    }

    pub(super) fn forget_previous(&mut self) {
        self.previous = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64) -> Token {
        Token { session: SessionId::from_bytes([7; 16]), number }
    }

    #[test]
    fn a_token_is_read_by_the_process_that_wrote_it_and_by_no_other() {
        let (own, other) = (TokenKey::new(&[1; 32]), TokenKey::new(&[2; 32]));
        let text = own.write(token(3));
        assert_eq!(own.read(&text), Some(token(3)));
        assert_eq!(other.read(&text), None);
        assert_ne!(*own.write(token(4)), *text);
    }

    #[test]
    fn a_token_that_was_changed_anywhere_is_not_read() {
        let key = TokenKey::new(&[1; 32]);
        let text = key.write(token(3));
        for at in 0..text.len() {
            let mut changed = text.to_string().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.read(&String::from_utf8(changed).unwrap()), None, "character {at}");
            assert_eq!(key.read(&text[..at]), None, "{at} characters");
        }
        for text in ["", "x", "not a token", &format!("{}A", *text)] {
            assert_eq!(key.read(text), None, "{text}");
        }
    }

    #[test]
    fn the_token_before_the_newest_is_valid_until_the_newest_is_known_to_have_arrived() {
        let mut tokens = Tokens::default();
        assert!(tokens.is_valid(0) && !tokens.is_valid(1));
        tokens.replace(0);
        assert!(tokens.is_valid(0) && tokens.is_valid(1));
        // The reply was lost, and the client uses the same token again.
        tokens.replace(0);
        assert!(tokens.is_valid(0) && !tokens.is_valid(1) && tokens.is_valid(2));
        tokens.replace(2);
        assert!(!tokens.is_valid(0) && tokens.is_valid(2) && tokens.is_valid(3));
        tokens.forget_previous();
        assert!(!tokens.is_valid(2) && tokens.is_valid(3));
    }
}
