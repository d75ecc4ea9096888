//! [`Options`]: the members of a command's `data`, still raw JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::Envelope;
use crate::decode::kind;
use crate::error::{ErrorCode, Refusal};
use crate::triple::check_name;

/// The longest unknown option that a message quotes, in bytes. Longer ones are no typing errors, and the search for the
/// nearest known option has to be short.
const QUOTED_BYTES_MAX: usize = 32;

/// The options of one command. An option that is `null` is absent.
pub(super) struct Options<'a> {
    known: &'static [&'static str],
    /// The JSON texts, as many as `known`, in the same order.
    values: SmallVec<[Option<&'a str>; 12]>,
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
        // The text was checked when the envelope was read, so this cannot fail.
        let Members(members) =
            serde_json::from_str(data).map_err(|_| invalid("the field 'data' of a command must be an object"))?;
        for (key, value) in members {
            options.set(string(key.get()).as_deref(), value.get())?;
        }
        for value in &mut options.values {
            *value = value.filter(|raw| *raw != "null");
        }
        Ok(options)
    }

    fn set(&mut self, name: Option<&str>, value: &'a str) -> Result<(), Refusal> {
        let mut options = self.known.iter().zip(&mut self.values);
        match options.find(|(known, _)| name == Some(**known)) {
            Some((_, place @ None)) => *place = Some(value),
            Some((known, Some(_))) => return Err(invalid(format!("the option '{known}' occurs twice in 'data'"))),
            None => return Err(unknown_option(name, self.known)),
        }
        Ok(())
    }

    /// Returns the JSON text of an option.
    pub(super) fn raw(&self, option: &str) -> Option<&'a str> {
        let place = self.known.iter().position(|known| *known == option)?;
        self.values.get(place).copied().flatten()
    }

    pub(super) fn is_set(&self, option: &str) -> bool {
        self.raw(option).is_some()
    }

    /// Reads a string.
    pub(super) fn text(&self, option: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(raw) = self.raw(option) else { return Ok(None) };
        match string(raw) {
            Some(text) => Ok(Some(text)),
            None if raw.starts_with('"') => {
                Err(invalid(format!("data.{option} has a lone surrogate, which is not a character")))
            }
            None => Err(invalid(format!("data.{option} must be a string, not {}", kind(raw)))),
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

/// Returns the known option that a typing error turns into this name.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.trim().to_ascii_lowercase();
    let distance = |known: &str| strsim::osa_distance(&name, &known.to_ascii_lowercase());
    let (distance, nearest) =
        known.iter().map(|known| (distance(known), *known)).min_by_key(|(distance, _)| *distance)?;
    (distance <= nearest.len().div_ceil(3)).then_some(nearest)
}
