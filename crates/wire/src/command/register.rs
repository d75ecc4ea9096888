//! `Application/Register`.

use std::borrow::Cow;

use secrecy::SecretString;
use zeroize::Zeroize;

use super::options::{Options, invalid};
use crate::Envelope;
use crate::decode::kind;
use crate::error::Refusal;

/// `data` of Register.
pub struct Register {
    /// The proof of identity.
    pub token: Option<SecretString>,
    /// The user. It counts in open mode only.
    pub user: Option<String>,
    /// Whether the session receives its own events.
    pub echo: bool,
    /// Whether the session wants to resume or to be resumable.
    pub resume: bool,
    /// Whether the session leaves a will.
    pub will: bool,
}

impl Register {
    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let options = Options::read(envelope, &["token", "user", "echo", "resume", "will"])?;
        let resume = match options.raw("resume") {
            None | Some("false") => false,
            Some("true") => true,
            Some(raw) if raw.starts_with('{') => true,
            Some(raw) => return Err(invalid(format!("data.resume must be true or an object, not {}", kind(raw)))),
        };
        Ok(Self {
            token: options.text("token")?.map(secret),
            user: options.name("user")?,
            echo: options.flag("echo")?.unwrap_or(false),
            resume,
            will: options.object("will")?,
        })
    }
}

/// Copies a token into memory of its exact size, and erases a text that was made to resolve escapes.
fn secret(token: Cow<'_, str>) -> SecretString {
    let secret = SecretString::from(&*token);
    if let Cow::Owned(mut text) = token {
        text.zeroize();
    }
    secret
}
