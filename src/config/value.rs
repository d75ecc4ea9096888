//! [`Item`]: a value with its place, whichever layer it comes from, and how it is read.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::mistake::{Mistake, Place, Report};
use super::text;
use crate::auth::Users;
use wire::Pattern;

/// The longest duration: a year. Longer ones would run over the end of some clocks.
const DURATION_MAX: Duration = Duration::from_hours(365 * 24);

/// How deep the values of keys nest. A table (`permissions`) of a table (`deny`) of lists has 3; claims of a token may be
/// deeper.
const DEPTH_MAX: usize = 8;

/// A value and where it was written.
pub(crate) struct Item {
    /// What was written.
    pub(crate) value: Value,
    /// Where.
    pub(crate) place: Place,
}

/// What was written.
pub(crate) enum Value {
    /// A string.
    Text(String),
    /// A whole number; one that no integer type holds becomes the type's last value.
    Whole(i128),
    /// `true` or `false`.
    Switch(bool),
    /// An array.
    List(Vec<Item>),
    /// A table.
    Table(Vec<(String, Item)>),
    /// Something that no key takes: a date, a number with a fraction.
    Other,
    /// The text of an environment variable, which has no type until a key gives it one.
    Untyped(String),
}

impl Item {
    /// A value of a TOML text, whose places are found by `place`.
    pub(crate) fn from_toml(value: &Spanned<DeValue<'_>>, place: &dyn Fn(usize) -> Place) -> Self {
        Self { value: from_toml(value.get_ref(), DEPTH_MAX, place), place: place(value.span().start) }
    }

    /// The value in JSON, as it was written. One that no key takes is `null`.
    pub(crate) fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Text(text) | Value::Untyped(text) => text.as_str().into(),
            Value::Whole(number) => i64::try_from(*number).map_or(serde_json::Value::Null, Into::into),
            Value::Switch(switch) => (*switch).into(),
            Value::List(items) => items.iter().map(Self::json).collect(),
            Value::Table(entries) => entries.iter().map(|(name, item)| (name.clone(), item.json())).collect(),
            Value::Other => serde_json::Value::Null,
        }
    }

    fn whole(&self) -> Option<i128> {
        match &self.value {
            Value::Whole(number) => Some(*number),
            Value::Untyped(text) => text.trim().parse().ok(),
            Value::Text(_) | Value::Switch(_) | Value::List(_) | Value::Table(_) | Value::Other => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Untyped(text) => Some(text),
            Value::Whole(_) | Value::Switch(_) | Value::List(_) | Value::Table(_) | Value::Other => None,
        }
    }

    fn list(&self) -> Option<Vec<&str>> {
        match &self.value {
            Value::List(items) => items.iter().map(Self::text).collect(),
            Value::Untyped(text) => Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()),
            Value::Text(_) | Value::Whole(_) | Value::Switch(_) | Value::Table(_) | Value::Other => None,
        }
    }

    /// The place of an element of the list.
    fn place_of(&self, at: usize) -> &Place {
        match &self.value {
            Value::List(items) => items.get(at).map_or(&self.place, |item| &item.place),
            Value::Text(_)
            | Value::Whole(_)
            | Value::Switch(_)
            | Value::Table(_)
            | Value::Other
            | Value::Untyped(_) => &self.place,
        }
    }
}

/// Reads a value. Nothing below the depth is read, since no key takes it.
fn from_toml(value: &DeValue<'_>, depth: usize, place: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            Value::Whole(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX))
        }
        DeValue::Boolean(switch) => Value::Switch(*switch),
        DeValue::Array(items) if depth > 0 => Value::List(
            items
                .iter()
                .map(|item| Item {
                    value: from_toml(item.get_ref(), depth - 1, place),
                    place: place(item.span().start),
                })
                .collect(),
        ),
        DeValue::Table(table) if depth > 0 => Value::Table(
            table
                .iter()
                .map(|(name, item)| {
                    let value = from_toml(item.get_ref(), depth - 1, place);
                    (name.get_ref().to_string(), Item { value, place: place(name.span().start) })
                })
                .collect(),
        ),
        DeValue::Array(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Value::Other,
    }
}

impl Value {
    /// The value in JSON; `None` for what a claim is not compared with.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        match self {
            Self::Text(text) => Some(text.as_str().into()),
            Self::Whole(number) => {
                i64::try_from(*number).map(Into::into).or_else(|_| u64::try_from(*number).map(Into::into)).ok()
            }
            Self::Switch(switch) => Some((*switch).into()),
            Self::List(items) => items.iter().map(|item| item.value.json()).collect(),
            Self::Table(_) | Self::Other | Self::Untyped(_) => None,
        }
    }
}

/// Why a value does not fit its key.
pub(crate) struct Fault {
    /// Which element of a list.
    element: Option<usize>,
    message: String,
    nearest: Option<String>,
}

impl Fault {
    /// With the word or text that was probably meant.
    pub(crate) fn near(message: impl Into<String>, nearest: Option<String>) -> Self {
        Self { element: None, message: message.into(), nearest }
    }

    /// What is wrong, as the predicate of a sentence about the value.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Notes it against a key.
    pub(crate) fn tell(self, key: &str, item: &Item, report: &mut Report) {
        let (key, place) = match self.element {
            Some(at) => (format!("{key}[{at}]"), item.place_of(at)),
            None => (key.to_owned(), &item.place),
        };
        report.push(Mistake { place: place.clone(), key: Some(key), message: self.message, nearest: self.nearest });
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Self::near(message, None)
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::near(message, None)
    }
}

/// Reads every element; else says of each one that does not fit why.
pub(super) fn read_list<V>(
    item: &Item,
    expected: &str,
    read: impl Fn(&str) -> Result<V, Fault>,
) -> Result<Vec<V>, Vec<Fault>> {
    let texts = item.list().ok_or_else(|| vec![Fault::from(expected)])?;
    let mut values = Vec::with_capacity(texts.len());
    let mut faults = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        match read(text) {
            Ok(value) => values.push(value),
            Err(fault) => faults.push(Fault { element: Some(at), ..fault }),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

/// Reads a list of patterns.
pub(crate) fn read_patterns(item: &Item) -> Result<Vec<Pattern>, Vec<Fault>> {
    read_list(item, "must be an array of patterns \"channel/topic/subtopic\"", text::pattern)
}

pub(super) fn read_observed(item: &Item) -> Result<Users, Vec<Fault>> {
    match read_switch(item) {
        Ok(true) => Ok(Users::All),
        Ok(false) => Ok(Users::nobody()),
        Err(_) => read_users(item, "must be true, false, or an array of users"),
    }
}

pub(super) fn read_users(item: &Item, expected: &str) -> Result<Users, Vec<Fault>> {
    let entries = read_list(item, expected, text::users_entry)?;
    Ok(Users::of(entries.iter().map(String::as_str)))
}

/// Puts every name of a table, or says of each one that does not fit why. Says whether all were put.
pub(super) fn read_path(item: &Item) -> Result<PathBuf, Fault> {
    let path = item.text().ok_or("must be a path in quotes")?;
    text::path(path)?;
    Ok(PathBuf::from(path))
}

pub(super) fn read_switch(item: &Item) -> Result<bool, Fault> {
    match &item.value {
        Value::Switch(switch) => Ok(*switch),
        Value::Untyped(text) => text.trim().parse().map_err(|_| Fault::from("must be true or false")),
        Value::Text(_) | Value::Whole(_) | Value::List(_) | Value::Table(_) | Value::Other => {
            Err("must be true or false".into())
        }
    }
}

pub(super) fn read_text<V>(item: &Item, check: fn(&str) -> Result<V, Fault>) -> Result<V, Fault> {
    check(item.text().ok_or("must be a text in quotes")?)
}

pub(super) fn read_whole<N: TryFrom<i128> + Into<Limit> + Copy + PartialOrd>(item: &Item, min: N) -> Result<N, Fault> {
    let number = item.whole().ok_or("must be a whole number")?;
    match N::try_from(number) {
        Ok(number) if number >= min => Ok(number),
        Err(_) if number > 0 => Err("is too large a number".into()),
        Ok(_) | Err(_) => Err(format!("must be at least {}", min.into().0).into()),
    }
}

/// The smallest number a key takes, to be written in a message.
pub(super) struct Limit(u64);

impl From<usize> for Limit {
    fn from(number: usize) -> Self {
        Self(number as u64)
    }
}

impl From<u32> for Limit {
    fn from(number: u32) -> Self {
        Self(number.into())
    }
}

pub(super) fn read_span(item: &Item, min: Duration) -> Result<Duration, Fault> {
    let expected = "must be a duration with a unit in quotes, such as \"250ms\" or \"10s\"";
    // The bound on the length keeps the parser's sums small.
    let text = item.text().map(str::trim).filter(|text| text.len() <= 64).ok_or(expected)?;
    match humantime::parse_duration(text) {
        Ok(span) if span < min => Err(format!("must be at least {}", humantime::format_duration(min)).into()),
        Ok(span) if span > DURATION_MAX => Err("must be at most 365days".into()),
        Ok(span) => Ok(span),
        Err(_) => Err(expected.into()),
    }
}
