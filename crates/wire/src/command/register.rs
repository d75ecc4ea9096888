//! `Application/Register`.

use secrecy::SecretString;

use super::options::{Options, Raw, invalid, options};
use crate::Envelope;
use crate::error::Refusal;

/// `data` of Register.
pub struct Register {
    /// The proof of identity.
    pub token: Option<SecretString>,
    /// The user. It counts in open mode only.
    pub user: Option<String>,
    /// Whether the session receives its own events, if that is said.
    pub echo: Option<bool>,
    /// Whether the session is to be resumable, or which one is to continue.
    pub resume: Resume,
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

/// `data.resume` of Register.
#[derive(Clone, Debug, Default)]
pub enum Resume {
    /// The session ends with its connection.
    #[default]
    No,
    /// A resumable session begins.
    Begin,
    /// A resumable session continues.
    Continue {
        /// What the reply to its last Register gave it.
        token: SecretString,
        /// How many of its messages the client has received and handled.
        received: u64,
    },
}

options!(RegisterOptions {
    token = "token",
    user = "user",
    echo = "echo",
    resume = "resume",
    will = "will",
});

options!(ResumeOptions {
    token = "token",
    received = "received",
});

impl Register {
    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let options = RegisterOptions::read(envelope)?;
        Ok(Self {
            token: options.token.secret()?,
            user: options.user.checked_name()?,
            echo: options.echo.flag()?,
            resume: Resume::read(options.resume)?,
            will: match options.will.json() {
                None => WillOption::Absent,
                Some("false") => WillOption::None,
                Some(json) if json.starts_with('{') => WillOption::Given(json.into()),
                Some(json) => return Err(options.will.wrong("an object or false", json)),
            },
        })
    }
}

impl Resume {
    fn read(option: Raw<'_>) -> Result<Self, Refusal> {
        match option.json() {
            None | Some("false") => Ok(Self::No),
            Some("true") => Ok(Self::Begin),
            Some(json) if json.starts_with('{') => {
                let ResumeOptions { token, received } = ResumeOptions::members(json, "data.resume")?;
                let Some(token) = token.secret().ok().flatten() else {
                    return Err(invalid("data.resume.token must be a string: the ResumeToken of the session"));
                };
                let Some(received) = received.count().ok().flatten() else {
                    return Err(invalid(
                        "data.resume.received must be a whole number, at least 0: how many messages of the session you have \
                         received",
                    ));
                };
                Ok(Self::Continue { token, received })
            }
            Some(json) => Err(option.wrong("true, false or an object", json)),
        }
    }
}
