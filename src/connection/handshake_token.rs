//! [`HandshakeToken`]: the token that a client sent with its handshake. It serves every Register on the connection.

use secrecy::{ExposeSecret, SecretString};

/// The token of a handshake. It does not print.
pub enum HandshakeToken {
    /// All places that were used have this one.
    One(SecretString),
    /// Two places have different tokens, so that no Register is accepted.
    Conflicting,
}

impl HandshakeToken {
    /// The tokens of two places.
    #[must_use]
    pub fn of_two(one: SecretString, other: &SecretString) -> Self {
        if one.expose_secret() == other.expose_secret() { Self::One(one) } else { Self::Conflicting }
    }

    /// Returns the token of a Register, which has to be that of the handshake if both have one; `None` if they differ.
    pub(super) fn agreed(handshake: Option<&Self>, register: Option<SecretString>) -> Option<Option<SecretString>> {
        match (handshake, register) {
            (None, register) => Some(register),
            (Some(Self::Conflicting), _) => None,
            (Some(Self::One(token)), None) => Some(Some(token.clone())),
            (Some(Self::One(token)), Some(register)) => {
                (token.expose_secret() == register.expose_secret()).then_some(Some(register))
            }
        }
    }
}
