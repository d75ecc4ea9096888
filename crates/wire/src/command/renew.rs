//! `Application/Renew`.

use secrecy::SecretString;

use super::options::{Options, invalid, options};
use crate::Envelope;
use crate::error::Refusal;

/// `data` of Renew.
pub struct Renew {
    /// The new proof of identity.
    pub token: SecretString,
}

options!(RenewOptions {
    token = "token",
});

impl Renew {
    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        match RenewOptions::read(envelope)?.token.secret()? {
            Some(token) => Ok(Self { token }),
            None => Err(invalid("data.token is missing: it is the new proof of who this session is")),
        }
    }
}
