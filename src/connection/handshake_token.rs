//! [`HandshakeToken`]: the token that a client sent with its handshake. It serves every Register on the connection.

use secrecy::{ExposeSecret, SecretString};

/// The token of a handshake. It does not print.
pub enum HandshakeToken {
    /// All places that were used have this one.
    One(SecretString),
    /// Two places have different tokens, so that no Register is accepted.
    Conflicting,
}

/// Two places of a connection have different tokens.
#[derive(Debug)]
pub(super) struct TokensDiffer;

impl HandshakeToken {
    /// The tokens of two places.
    #[must_use]
    pub fn of_two(one: SecretString, other: &SecretString) -> Self {
        if one.expose_secret() == other.expose_secret() { Self::One(one) } else { Self::Conflicting }
    }

    /// Returns the token of a Register, which has to be that of the handshake if both have one.
    pub(super) fn agreed(
        handshake: Option<&Self>,
        register: Option<SecretString>,
    ) -> Result<Option<SecretString>, TokensDiffer> {
        match (handshake, register) {
            (None, register) => Ok(register),
            (Some(Self::One(token)), None) => Ok(Some(token.clone())),
            (Some(Self::One(token)), Some(register)) if token.expose_secret() == register.expose_secret() => {
                Ok(Some(register))
            }
            (Some(Self::One(_)), Some(_)) | (Some(Self::Conflicting), _) => Err(TokensDiffer),
        }
    }
}
