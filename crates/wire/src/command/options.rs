//! [`Options`]: the members of a command's `data`, still raw JSON.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::Envelope;
use crate::decode::{kind, string};
use crate::error::{ErrorCode, Refusal};
use crate::scan::{Member, Scanner, Token};
use crate::triple::check_name;

/// The longest unknown option that a message quotes, in bytes. Longer ones are no typing errors, and the search for the
/// nearest known option has to be short.
const QUOTED_BYTES_MAX: usize = 32;

/// The options of one command. An option that is `null` is absent.
pub(super) struct Options<'a> {
    known: &'static [&'static str],
    /// As many as `known`, in the same order.
    values: SmallVec<[Option<Token<'a>>; 12]>,
}

impl<'a> Options<'a> {
    /// Reads `data` of a command that has these options.
    pub(super) fn read(envelope: &Envelope<'a>, known: &'static [&'static str]) -> Result<Self, Refusal> {
        let mut options = Self { known, values: SmallVec::from_elem(None, known.len()) };
        let data = envelope.payload().unwrap_or("null");
        if data == "null" {
            return Ok(options);
        }
        if !data.starts_with('{') {
            return Err(invalid(format!("the field 'data' of a command must be an object, not {}", kind(data))));
        }
        // The text was checked when the envelope was read, depth included.
        let broken = |_| invalid("the field 'data' of a command must be an object");
        let mut scanner = Scanner::new(data, usize::MAX);
        scanner.open().map_err(broken)?;
        while let Some(Member { key, value }) = scanner.next_member().map_err(broken)? {
            options.set(key, value)?;
        }
        for value in &mut options.values {
            *value = value.filter(|token| token.raw != "null");
        }
        Ok(options)
    }

    fn set(&mut self, key: Token<'a>, value: Token<'a>) -> Result<(), Refusal> {
        let name = string(key);
        let mut options = self.known.iter().zip(&mut self.values);
        match options.find(|(known, _)| name.as_deref() == Some(**known)) {
            Some((_, place @ None)) => *place = Some(value),
            Some((known, Some(_))) => return Err(invalid(format!("the option '{known}' occurs twice in 'data'"))),
            None => return Err(unknown_option(name.as_deref(), self.known)),
        }
        Ok(())
    }

    fn token(&self, option: &str) -> Option<Token<'a>> {
        let place = self.known.iter().position(|known| *known == option)?;
        self.values.get(place).copied().flatten()
    }

    pub(super) fn is_set(&self, option: &str) -> bool {
        self.token(option).is_some()
    }

    /// Reads a string.
    pub(super) fn text(&self, option: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(token) = self.token(option) else { return Ok(None) };
        match string(token) {
            Some(text) => Ok(Some(text)),
            None if token.raw.starts_with('"') => {
                Err(invalid(format!("data.{option} has a lone surrogate, which is not a character")))
            }
            None => Err(invalid(format!("data.{option} must be a string, not {}", kind(token.raw)))),
        }
    }

    /// Reads a name: 1..=128 bytes, no control characters.
    pub(super) fn name(&self, option: &str) -> Result<Option<String>, Refusal> {
        let Some(text) = self.text(option)? else { return Ok(None) };
        check_name(&text).map_err(|fault| invalid(format!("data.{option} {fault}")))?;
        Ok(Some(text.into_owned()))
    }

    /// Reads a boolean.
    pub(super) fn flag(&self, option: &str) -> Result<Option<bool>, Refusal> {
        match self.raw(option) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(raw) => Err(invalid(format!("data.{option} must be true or false, not {}", kind(raw)))),
        }
    }

    /// Returns whether an object is given.
    pub(super) fn object(&self, option: &str) -> Result<bool, Refusal> {
        match self.raw(option) {
            None => Ok(false),
            Some(raw) if raw.starts_with('{') => Ok(true),
            Some(raw) => Err(invalid(format!("data.{option} must be an object, not {}", kind(raw)))),
        }
    }

    /// Returns the JSON text of an option.
    pub(super) fn raw(&self, option: &str) -> Option<&'a str> {
        self.token(option).map(|token| token.raw)
    }
}

pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::InvalidEnvelope, message)
}

/// Names an unknown option and the nearest known one. `None` is a name with a lone surrogate.
#[cold]
fn unknown_option(name: Option<&str>, known: &[&str]) -> Refusal {
    let quoted = name.filter(|name| name.len() <= QUOTED_BYTES_MAX && !name.contains(char::is_control));
    let what = match (quoted, name) {
        (Some(name), _) => format!("unknown option '{name}'"),
        (None, Some(name)) => format!("unknown option with a name of {} bytes", name.len()),
        (None, None) => "unknown option with a lone surrogate in its name".to_owned(),
    };
    match quoted.and_then(|name| nearest(name, known)) {
        Some(nearest) => invalid(format!("{what}; did you mean '{nearest}'?")),
        None if known.is_empty() => invalid(format!("{what}; this command has no options")),
        None => invalid(format!("{what}; this command has {}", known.join(", "))),
    }
}

/// Returns the known option that a typing error turns into this name.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.trim().to_ascii_lowercase();
    let distance = |known: &str| strsim::osa_distance(&name, &known.to_ascii_lowercase());
    let (distance, nearest) =
        known.iter().map(|known| (distance(known), *known)).min_by_key(|(distance, _)| *distance)?;
    (distance <= nearest.len().div_ceil(3)).then_some(nearest)
}
