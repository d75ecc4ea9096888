//! [`Item`]: a value with its place, whichever layer it comes from; [`Slot`]: what a key takes, and where it puts it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::mistake::{Mistake, Place, Report, nearest, printable};
use super::network::Network;
use super::text;
use wire::{Pattern, check_name};

/// The longest duration: a year. Longer ones would run over the end of some clocks.
const DURATION_MAX: Duration = Duration::from_hours(365 * 24);

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
        Self { value: from_toml(value.get_ref(), 1, place), place: place(value.span().start) }
    }

    fn whole(&self) -> Option<i128> {
        match &self.value {
            Value::Whole(number) => Some(*number),
            Value::Untyped(text) => text.trim().parse().ok(),
            Value::Text(_) | Value::Switch(_) | Value::List(_) | Value::Table(_) | Value::Other => None,
        }
    }

    fn text(&self) -> Option<&str> {
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

/// No key takes a list of lists or a table of tables, so what lies deeper is not looked at.
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

/// What a key takes, and where in a `T` it puts it.
pub(crate) enum Slot<T: 'static> {
    /// Addresses `HOST:PORT`, at least one.
    Addresses(fn(&mut T) -> &mut Vec<SocketAddr>),
    /// Addresses and networks.
    Networks(fn(&mut T) -> &mut Vec<Network>),
    /// The path of a file or a folder.
    Path(fn(&mut T, PathBuf)),
    /// One of a few words.
    Word(&'static [Word<T>]),
    /// A text that a function checks and may rewrite.
    Text(text::Check, fn(&mut T, String)),
    /// Texts that a function checks and may rewrite.
    Texts(text::Check, fn(&mut T) -> &mut Vec<String>),
    /// A table of names, each with a text that a function checks and may rewrite.
    Names(text::Check, fn(&mut T) -> &mut BTreeMap<String, String>),
    /// Patterns `channel/topic/subtopic`.
    Patterns(fn(&mut T, Vec<Pattern>)),
    /// A SHA-256.
    Hash(fn(&str) -> Result<[u8; 32], Fault>, fn(&mut T, [u8; 32])),
    /// `true` or `false`.
    Switch(fn(&mut T) -> &mut bool),
    /// A whole number, at least the first.
    Size(usize, fn(&mut T) -> &mut usize),
    /// A whole number of 32 bits, at least the first.
    Count(u32, fn(&mut T) -> &mut u32),
    /// A duration, at least the first.
    Span(Duration, fn(&mut T) -> &mut Duration),
}

/// A word that a key takes, and what it does.
pub(crate) struct Word<T: 'static> {
    /// The word.
    pub(crate) word: &'static str,
    /// What it does.
    pub(crate) put: fn(&mut T),
}

impl<T> Slot<T> {
    /// Puts the value where it belongs, or says why not. Says whether it was put.
    pub(crate) fn put(&self, target: &mut T, key: &str, item: &Item, report: &mut Report) -> bool {
        let outcome = match self {
            Self::Addresses(slot) => {
                let expected = "must be an array of addresses \"HOST:PORT\"";
                read_list(item, expected, text::address).map(|addresses| *slot(target) = addresses)
            }
            Self::Networks(slot) => {
                let expected = "must be an array of addresses or networks, such as \"10.0.0.0/8\"";
                read_list(item, expected, Network::parse).map(|networks| *slot(target) = networks)
            }
            Self::Texts(check, slot) => {
                read_list(item, "must be an array of strings", check).map(|texts| *slot(target) = texts)
            }
            Self::Patterns(put) => {
                let expected = "must be an array of patterns \"channel/topic/subtopic\"";
                read_list(item, expected, text::pattern).map(|patterns| put(target, patterns))
            }
            Self::Names(check, slot) => return put_names(slot(target), *check, key, item, report),
            single => single.put_single(target, item).map_err(|fault| vec![fault]),
        };
        outcome.map_err(|faults| faults.into_iter().for_each(|fault| fault.tell(key, item, report))).is_ok()
    }

    fn put_single(&self, target: &mut T, item: &Item) -> Result<(), Fault> {
        match self {
            Self::Path(put) => read_path(item).map(|path| put(target, path)),
            Self::Word(words) => read_word(words, item).map(|word| (word.put)(target)),
            Self::Text(check, put) => read_text(item, *check).map(|text| put(target, text)),
            Self::Hash(check, put) => read_text(item, *check).map(|hash| put(target, hash)),
            Self::Switch(slot) => read_switch(item).map(|switch| *slot(target) = switch),
            Self::Size(min, slot) => read_whole(item, *min).map(|number| *slot(target) = number),
            Self::Count(min, slot) => read_whole(item, *min).map(|number| *slot(target) = number),
            Self::Span(min, slot) => read_span(item, *min).map(|span| *slot(target) = span),
            Self::Addresses(_) | Self::Networks(_) | Self::Texts(..) | Self::Patterns(_) | Self::Names(..) => {
                Err("must be an array".into())
            }
        }
    }

    /// What a user writes for it, in words.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Addresses(_) => "list of `HOST:PORT`".to_owned(),
            Self::Networks(_) => "list of addresses and networks".to_owned(),
            Self::Path(_) => "path".to_owned(),
            Self::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`\"{}\"`", word.word)).collect();
                words.join(" or ")
            }
            Self::Text(..) => "text".to_owned(),
            Self::Texts(..) => "list of texts".to_owned(),
            Self::Names(..) => "table of names and texts".to_owned(),
            Self::Patterns(_) => "list of patterns".to_owned(),
            Self::Hash(..) => "64 hex digits".to_owned(),
            Self::Switch(_) => "`true` or `false`".to_owned(),
            Self::Size(..) | Self::Count(..) => "whole number".to_owned(),
            Self::Span(..) => "duration".to_owned(),
        }
    }

    /// The value as TOML writes it; `None` for what a summary has its own words for.
    pub(crate) fn show(&self, target: &mut T) -> Option<String> {
        match self {
            Self::Size(_, slot) => Some(slot(target).to_string()),
            Self::Count(_, slot) => Some(slot(target).to_string()),
            Self::Span(_, slot) => Some(humantime::format_duration(*slot(target)).to_string()),
            Self::Addresses(_)
            | Self::Networks(_)
            | Self::Path(_)
            | Self::Word(_)
            | Self::Text(..)
            | Self::Texts(..)
            | Self::Names(..)
            | Self::Patterns(_)
            | Self::Hash(..)
            | Self::Switch(_) => None,
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
    fn tell(self, key: &str, item: &Item, report: &mut Report) {
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
fn read_list<V>(item: &Item, expected: &str, read: impl Fn(&str) -> Result<V, Fault>) -> Result<Vec<V>, Vec<Fault>> {
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

/// Puts every name of a table, or says of each one that does not fit why. Says whether all were put.
fn put_names(
    names: &mut BTreeMap<String, String>,
    check: text::Check,
    key: &str,
    item: &Item,
    report: &mut Report,
) -> bool {
    let Value::Table(entries) = &item.value else {
        report.add(&item.place, key, "must be a table of names and texts: { name = \"text\" }");
        return false;
    };
    let mut read = BTreeMap::new();
    for (name, item) in entries {
        let own = format!("{key}.{}", printable(name));
        match check_name(name)
            .map_err(|fault| Fault::from(format!("the name {fault}")))
            .and_then(|()| read_text(item, check))
        {
            Ok(text) => drop(read.insert(name.clone(), text)),
            Err(fault) => fault.tell(&own, item, report),
        }
    }
    let whole = read.len() == entries.len();
    *names = read;
    whole
}

fn read_path(item: &Item) -> Result<PathBuf, Fault> {
    let path = item.text().ok_or("must be a path in quotes")?;
    text::path(path)?;
    Ok(PathBuf::from(path))
}

fn read_switch(item: &Item) -> Result<bool, Fault> {
    match &item.value {
        Value::Switch(switch) => Ok(*switch),
        Value::Untyped(text) => text.trim().parse().map_err(|_| Fault::from("must be true or false")),
        Value::Text(_) | Value::Whole(_) | Value::List(_) | Value::Table(_) | Value::Other => {
            Err("must be true or false".into())
        }
    }
}

fn read_text<V>(item: &Item, check: fn(&str) -> Result<V, Fault>) -> Result<V, Fault> {
    check(item.text().ok_or("must be a text in quotes")?)
}

fn read_word<'a, T>(words: &'a [Word<T>], item: &Item) -> Result<&'a Word<T>, Fault> {
    let known = || words.iter().map(|word| word.word);
    let expected = || known().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
    let text = item.text().ok_or_else(|| format!("must be {}", expected()))?;
    words.iter().find(|word| word.word == text).ok_or_else(|| {
        Fault::near(format!("must be {}", expected()), nearest(text, known()).map(|word| format!("\"{word}\"")))
    })
}

fn read_whole<N: TryFrom<i128> + Into<Limit> + Copy + PartialOrd>(item: &Item, min: N) -> Result<N, Fault> {
    let number = item.whole().ok_or("must be a whole number")?;
    match N::try_from(number) {
        Ok(number) if number >= min => Ok(number),
        Err(_) if number > 0 => Err("is too large a number".into()),
        Ok(_) | Err(_) => Err(format!("must be at least {}", min.into().0).into()),
    }
}

/// The smallest number a key takes, to be written in a message.
struct Limit(u64);

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

fn read_span(item: &Item, min: Duration) -> Result<Duration, Fault> {
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
