//! `Application/Register`.

use secrecy::SecretString;

use super::options::{Options, options};
use crate::Envelope;
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
    /// The session's last message.
    pub will: WillOption,
}

/// `data.will` of Register: an event that the broker publishes when the session ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WillOption {
    /// Absent.
    #[default]
    Absent,
    /// `false`: none.
    None,
    /// The JSON text of an object, as it was written.
    Given(Box<str>),
}

options!(RegisterOptions {
    token = "token",
    user = "user",
    echo = "echo",
    resume = "resume",
    will = "will",
});

impl Register {
    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let options = RegisterOptions::read(envelope)?;
        let resume = match options.resume.json() {
            None | Some("false") => false,
            Some("true") => true,
            Some(json) if json.starts_with('{') => true,
            Some(json) => return Err(options.resume.wrong("true or an object", json)),
        };
        Ok(Self {
            token: options.token.secret()?,
            user: options.user.checked_name()?,
            echo: options.echo.flag()?.unwrap_or(false),
            resume,
            will: match options.will.json() {
                None => WillOption::Absent,
                Some("false") => WillOption::None,
                Some(json) if json.starts_with('{') => WillOption::Given(json.into()),
                Some(json) => return Err(options.will.wrong("an object or false", json)),
            },
        })
    }
}
