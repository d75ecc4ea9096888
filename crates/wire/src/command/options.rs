//! The members of a command's `data`, still raw JSON.

use std::borrow::Cow;
use std::fmt;

use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroize;

use crate::Envelope;
use crate::decode::kind;
use crate::error::{ErrorCode, Refusal};
use crate::triple::check_name;

/// The longest unknown option that a message quotes, in bytes. Longer ones are not typing errors, and the search for the
/// nearest known option has to be short.
const QUOTED_BYTES_MAX: usize = 32;

/// The options of one command. `options!` makes them.
pub(super) trait Options<'a>: Sized {
    /// The names of all options.
    const KNOWN: &'static [&'static str];

    /// Returns the options of a command without `data`.
    fn absent() -> Self;

    /// Returns the option with this name.
    fn option(&mut self, name: &str) -> Option<&mut Raw<'a>>;

    /// Reads `data` of a command.
    fn read(envelope: &Envelope<'a>) -> Result<Self, Refusal> {
        match envelope.payload() {
            None | Some("null") => Ok(Self::absent()),
            Some(data) if data.starts_with('{') => Self::members(data, "data"),
            Some(data) => Err(invalid(format!("the field 'data' of a command must be an object, not {}", kind(data)))),
        }
    }

    /// Reads the members of an object, which is `place` in the envelope.
    fn members(object: &'a str, place: &str) -> Result<Self, Refusal> {
        let mut options = Self::absent();
        // The text was checked when the envelope was read, so this cannot fail.
        let Members(members) =
            serde_json::from_str(object).map_err(|_| invalid(format!("'{place}' must be an object")))?;
        for (key, value) in members {
            let name = string(key.get());
            match name.as_deref().and_then(|name| options.option(name)) {
                Some(Raw { json: place @ None, .. }) => *place = Some(value.get()),
                Some(Raw { name, .. }) => {
                    return Err(invalid(format!("the option '{name}' occurs twice in '{place}'")));
                }
                None => return Err(unknown_option(name.as_deref(), Self::KNOWN)),
            }
        }
        Ok(options)
    }
}

/// No options.
impl<'a> Options<'a> for () {
    const KNOWN: &'static [&'static str] = &[];

    fn absent() -> Self {}

    fn option(&mut self, _: &str) -> Option<&mut Raw<'a>> {
        None
    }
}

/// Defines a struct with a [`Raw`] for each option.
macro_rules! options {
    ($type:ident { $($field:ident = $name:literal,)+ }) => {
        struct $type<'a> { $($field: $crate::command::options::Raw<'a>,)+ }

        impl<'a> $crate::command::options::Options<'a> for $type<'a> {
            const KNOWN: &'static [&'static str] = &[$($name,)+];

            fn absent() -> Self {
                Self { $($field: $crate::command::options::Raw::absent($name),)+ }
            }

            fn option(&mut self, name: &str) -> Option<&mut $crate::command::options::Raw<'a>> {
                match name { $($name => Some(&mut self.$field),)+ _ => None }
            }
        }
    };
}

pub(super) use options;

/// An option as it was sent. `null` counts as absent, but a key with `null` still occurs once.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a> {
    name: &'static str,
    json: Option<&'a str>,
}

impl<'a> Raw<'a> {
    pub(super) const fn absent(name: &'static str) -> Self {
        Self { name, json: None }
    }

    /// Returns the JSON text.
    pub(super) fn json(self) -> Option<&'a str> {
        self.json.filter(|json| *json != "null")
    }

    /// Reads a string.
    pub(super) fn text(self) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(json) = self.json() else { return Ok(None) };
        match string(json) {
            Some(text) => Ok(Some(text)),
            None if json.starts_with('"') => {
                Err(invalid(format!("data.{} has a lone surrogate, which is not a character", self.name)))
            }
            None => Err(self.wrong("a string", json)),
        }
    }

    /// Reads a secret into memory of its exact size, and erases a text that was made to resolve escapes.
    pub(super) fn secret(self) -> Result<Option<SecretString>, Refusal> {
        let Some(text) = self.text()? else { return Ok(None) };
        let secret = SecretString::from(&*text);
        if let Cow::Owned(mut text) = text {
            text.zeroize();
        }
        Ok(Some(secret))
    }

    /// Reads a name: 1..=128 bytes, no control characters.
    pub(super) fn checked_name(self) -> Result<Option<String>, Refusal> {
        let Some(text) = self.text()? else { return Ok(None) };
        check_name(&text).map_err(|fault| invalid(format!("data.{} {fault}", self.name)))?;
        Ok(Some(text.into_owned()))
    }

    /// Reads a boolean.
    pub(super) fn flag(self) -> Result<Option<bool>, Refusal> {
        match self.json() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(json) => Err(self.wrong("true or false", json)),
        }
    }

    /// Reads a whole number, which is at least 0. One that is too large is taken for the largest.
    pub(super) fn count(self) -> Result<Option<u64>, Refusal> {
        let Some(json) = self.json() else { return Ok(None) };
        if json.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Some(json.parse().unwrap_or(u64::MAX)));
        }
        Err(self.wrong("a whole number, at least 0", json))
    }

    /// Returns the refusal of a value of the wrong type.
    pub(super) fn wrong(self, expected: &str, json: &str) -> Refusal {
        invalid(format!("data.{} must be {expected}, not {}", self.name, kind(json)))
    }
}

/// Returns the text of a JSON string, borrowed unless it has escapes. `None` if it is not a string of characters.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
    match inside.contains('\\') {
        false => Some(Cow::Borrowed(inside)),
        true => serde_json::from_str(raw).ok().map(Cow::Owned),
    }
}

/// The members of an object in their order. Envelopes have a faster reader, whose one caller the compiler tunes it for.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
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

/// Returns the known name that a typing error turns into this one.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.trim().to_ascii_lowercase();
    let distance = |known: &str| strsim::osa_distance(&name, &known.to_ascii_lowercase());
    let (distance, nearest) =
        known.iter().map(|known| (distance(known), *known)).min_by_key(|(distance, _)| *distance)?;
    (distance <= nearest.len().div_ceil(3)).then_some(nearest)
}
