//! [`Slot`]: what a key takes, and where it puts it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::mistake::{Report, nearest, printable};
use super::network::Network;
use super::value::{
    Fault, Item, Value, read_list, read_observed, read_path, read_patterns, read_span, read_switch, read_text,
    read_users, read_whole,
};
use super::{ListenAddress, text};
use crate::auth::Users;
use wire::{Pattern, check_name};

/// What a key takes, and where in a `T` it puts it.
pub(crate) enum Slot<T: 'static> {
    /// Addresses `HOST:PORT` and Unix sockets.
    Addresses(fn(&mut T) -> &mut Vec<ListenAddress>),
    /// Addresses `HOST:PORT`.
    TcpAddresses(fn(&mut T) -> &mut Vec<SocketAddr>),
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
    /// A table that a function reads, described in a few words. The function gets the key, and returns whether all of it
    /// could be read.
    Table(&'static str, fn(&mut T, &str, &Item, &mut Report) -> bool),
    /// The same, and how to remove what it has put.
    Removable(&'static str, fn(&mut T, &str, &Item, &mut Report) -> bool, fn(&mut T)),
    /// `true` (everybody), `false` (nobody), or a list of users and endings of their names.
    Observed(fn(&mut T, Users)),
    /// A list of users and endings of their names.
    Users(fn(&mut T, Users)),
    /// A SHA-256.
    Hash(fn(&str) -> Result<[u8; 32], Fault>, fn(&mut T, [u8; 32])),
    /// `true` or `false`.
    Switch(fn(&mut T) -> &mut bool),
    /// `true` or `false`, where the default depends on other keys.
    Choice(fn(&mut T, bool)),
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
                read_list(item, expected, text::listen_address).map(|addresses| *slot(target) = addresses)
            }
            Self::TcpAddresses(slot) => {
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
            Self::Patterns(put) => read_patterns(item).map(|patterns| put(target, patterns)),
            Self::Table(_, read) | Self::Removable(_, read, _) => return read(target, key, item, report),
            Self::Observed(put) => read_observed(item).map(|users| put(target, users)),
            Self::Users(put) => read_users(item, "must be an array of users").map(|users| put(target, users)),
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
            Self::Choice(put) => read_switch(item).map(|switch| put(target, switch)),
            Self::Size(min, slot) => read_whole(item, *min).map(|number| *slot(target) = number),
            Self::Count(min, slot) => read_whole(item, *min).map(|number| *slot(target) = number),
            Self::Span(min, slot) => read_span(item, *min).map(|span| *slot(target) = span),
            Self::Addresses(_)
            | Self::TcpAddresses(_)
            | Self::Networks(_)
            | Self::Texts(..)
            | Self::Patterns(_)
            | Self::Names(..)
            | Self::Table(..)
            | Self::Removable(..)
            | Self::Observed(_)
            | Self::Users(_) => Err("must be an array".into()),
        }
    }

    /// What a user writes for it, in words.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Addresses(_) => "list of `HOST:PORT` or `unix:PATH`".to_owned(),
            Self::TcpAddresses(_) => "list of `HOST:PORT`".to_owned(),
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
            Self::Table(kind, _) | Self::Removable(kind, ..) => (*kind).to_owned(),
            Self::Observed(_) => "`true`, `false`, or list of users".to_owned(),
            Self::Users(_) => "list of users".to_owned(),
            Self::Hash(..) => "64 hex digits".to_owned(),
            Self::Switch(_) | Self::Choice(_) => "`true` or `false`".to_owned(),
            Self::Size(..) | Self::Count(..) => "whole number".to_owned(),
            Self::Span(..) => "duration".to_owned(),
        }
    }

    /// Puts a value that is the same for every configuration, so that the key no longer tells two of them apart.
    pub(crate) fn blank(&self, target: &mut T) {
        match self {
            Self::Addresses(slot) => slot(target).clear(),
            Self::Path(put) => put(target, PathBuf::new()),
            Self::Word(words) => words.iter().take(1).for_each(|word| (word.put)(target)),
            Self::Text(_, put) => put(target, String::new()),
            Self::Texts(_, slot) => slot(target).clear(),
            Self::Names(_, slot) => slot(target).clear(),
            Self::Patterns(put) => put(target, Vec::new()),
            // Only tables that are compared whole have such keys.
            Self::Table(..) => {}
            Self::Removable(_, _, remove) => remove(target),
            Self::Observed(put) | Self::Users(put) => put(target, Users::nobody()),
            Self::TcpAddresses(slot) => slot(target).clear(),
            Self::Networks(slot) => slot(target).clear(),
            Self::Choice(put) => put(target, false),
            Self::Hash(_, put) => put(target, [0; 32]),
            Self::Switch(slot) => *slot(target) = false,
            Self::Size(_, slot) => *slot(target) = 0,
            Self::Count(_, slot) => *slot(target) = 0,
            Self::Span(_, slot) => *slot(target) = Duration::ZERO,
        }
    }

    /// A value that was put, as the settings of a running broker show it.
    pub(crate) fn shown(&self, item: &Item) -> Json {
        match self {
            Self::Hash(..) => "set".into(),
            _ => item.json(),
        }
    }

    /// The value in force; `None` if the slot can only put one.
    pub(crate) fn read(&self, target: &mut T) -> Option<Json> {
        Some(match self {
            Self::Addresses(slot) => slot(target).iter().map(ToString::to_string).collect(),
            Self::TcpAddresses(slot) => slot(target).iter().map(ToString::to_string).collect(),
            Self::Networks(slot) => slot(target).iter().map(ToString::to_string).collect(),
            Self::Texts(_, slot) => slot(target).iter().cloned().collect(),
            Self::Names(_, slot) => slot(target).iter().map(|(name, text)| (name.clone(), text.as_str())).collect(),
            Self::Switch(slot) => (*slot(target)).into(),
            Self::Size(_, slot) => (*slot(target)).into(),
            Self::Count(_, slot) => (*slot(target)).into(),
            Self::Span(_, slot) => humantime::format_duration(*slot(target)).to_string().into(),
            Self::Path(_)
            | Self::Word(_)
            | Self::Text(..)
            | Self::Patterns(_)
            | Self::Table(..)
            | Self::Removable(..)
            | Self::Observed(_)
            | Self::Users(_)
            | Self::Hash(..)
            | Self::Choice(_) => return None,
        })
    }

    /// A number or a duration, as text; `None` for what a summary has its own words for.
    pub(crate) fn show(&self, target: &mut T) -> Option<String> {
        if !matches!(self, Self::Size(..) | Self::Count(..) | Self::Span(..)) {
            return None;
        }
        let value = self.read(target)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }
}

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

fn read_word<'a, T>(words: &'a [Word<T>], item: &Item) -> Result<&'a Word<T>, Fault> {
    let known = || words.iter().map(|word| word.word);
    let expected = || known().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
    let text = item.text().ok_or_else(|| format!("must be {}", expected()))?;
    words.iter().find(|word| word.word == text).ok_or_else(|| {
        Fault::near(format!("must be {}", expected()), nearest(text, known()).map(|word| format!("\"{word}\"")))
    })
}
