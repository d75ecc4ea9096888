//! `Message/Explain`.

use super::options::{Options, Raw, invalid, options};
use crate::Envelope;
use crate::error::Refusal;

/// `data` of Explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// The JSON text of the envelope, an object.
    pub envelope: Box<str>,
    /// Whom the question is about.
    pub to: Option<ExplainTo>,
}

/// `data.to` of Explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainTo {
    /// The source.
    pub source: String,
    /// The user.
    pub user: Option<String>,
}

options!(ExplainOptions {
    envelope = "envelope",
    to = "to",
});

options!(ToOptions {
    source = "source",
    user = "user",
});

impl Explain {
    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, Refusal> {
        let options = ExplainOptions::read(envelope)?;
        let envelope = match options.envelope.json() {
            Some(json) if json.starts_with('{') => json.into(),
            Some(json) => return Err(options.envelope.wrong("an object", json)),
            None => return Err(invalid("data.envelope is missing: it is the envelope to explain, without a payload")),
        };
        Ok(Self { envelope, to: ExplainTo::read(options.to)? })
    }
}

impl ExplainTo {
    fn read(option: Raw<'_>) -> Result<Option<Self>, Refusal> {
        let Some(json) = option.json() else { return Ok(None) };
        if !json.starts_with('{') {
            return Err(option.wrong("an object", json));
        }
        let ToOptions { source, user } = ToOptions::members(json, "data.to")?;
        let named = |name: Result<Option<String>, Refusal>, place| {
            name.map_err(|_| invalid(format!("{place} must be a name: 1 to 128 bytes, no control characters")))
        };
        let Some(source) = named(source.checked_name(), "data.to.source")? else {
            return Err(invalid("data.to.source is missing: it is the source that the question is about"));
        };
        Ok(Some(Self { source, user: named(user.checked_name(), "data.to.user")? }))
    }
}
