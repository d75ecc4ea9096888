//! The digest of a configuration: what all nodes of a cluster must have in common, as one hash for each item.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512_256};

use crate::cluster::DIGEST_BYTES_MAX;
use crate::config::{Channel, Config};

/// One item: its key in the configuration, and the hash of its value.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Item<'a> {
    key: &'a str,
    hash: u64,
}

/// The digest of a configuration, as beats carry it.
pub(super) fn of(config: &Config) -> Vec<u8> {
    let values = values(config);
    let items: Vec<_> = values.iter().map(|(key, value)| Item { key, hash: hash(value) }).collect();
    let bytes = postcard::to_allocvec(&items).unwrap_or_default();
    if bytes.len() <= DIGEST_BYTES_MAX {
        return bytes;
    }
    // Too many channels for a beat: a difference is found, but not named.
    let all = values.iter().fold(String::new(), |mut all, (key, value)| {
        // Writing to a text never fails.
        write!(all, "{key}={value};").ok();
        all
    });
    postcard::to_allocvec(&[Item { key: "channels", hash: hash(&all) }][..]).unwrap_or_default()
}

/// The first key in which two digests differ.
pub(super) fn difference(own: &[u8], other: &[u8]) -> Option<String> {
    if own == other {
        return None;
    }
    let read = |bytes| postcard::from_bytes::<Vec<Item<'_>>>(bytes).unwrap_or_default();
    let (own, other) = (read(own), read(other));
    let differs = |one: &&Item<'_>, others: &[Item<'_>]| !others.contains(one);
    let key = own.iter().find(|it| differs(it, &other)).or_else(|| other.iter().find(|it| differs(it, &own)));
    Some(key.map_or("the digest", |item| item.key).to_owned())
}

fn hash(value: &str) -> u64 {
    let digest = Sha512_256::digest(value.as_bytes());
    let first: [u8; 8] = digest.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

/// Each item and its value as text. A channel that says nothing but the defaults is as one without a table.
fn values(config: &Config) -> Vec<(String, String)> {
    let mut values = vec![
        ("cluster.seal_subjects".to_owned(), config.cluster.seal_subjects.to_string()),
        ("limits.message_bytes".to_owned(), config.limits.message_bytes.to_string()),
        ("protected.patterns".to_owned(), format!("{:?}", sorted(&config.protected))),
        ("requests.only".to_owned(), format!("{:?}", sorted(&config.requests.only))),
    ];
    let channels: BTreeMap<_, _> = config.channels.iter().collect();
    for (name, channel) in channels {
        let Channel { scope, publish, overflow, fold_case, history, durable, retain_durable } = channel;
        let default = Channel::default();
        let mut add = |key: &str, value: String, default: String| {
            if value != default {
                values.push((format!("channels.{name}.{key}"), value));
            }
        };
        add("scope", format!("{scope:?}"), format!("{:?}", default.scope));
        add("publish", format!("{publish:?}"), format!("{:?}", default.publish));
        add("overflow", format!("{overflow:?}"), format!("{:?}", default.overflow));
        add("fold_case", fold_case.to_string(), default.fold_case.to_string());
        add("history", format!("{history:?} {durable}"), format!("{:?} {}", default.history, default.durable));
        add("retain", retain_durable.to_string(), default.retain_durable.to_string());
    }
    values.sort_unstable();
    values
}

fn sorted(patterns: &[wire::Pattern]) -> Vec<String> {
    let mut texts: Vec<_> = patterns.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Scope;

    #[test]
    fn two_digests_differ_in_the_key_that_differs() {
        let own = Config::default();
        let check = |change: &dyn Fn(&mut Config), key: Option<&str>| {
            let mut other = Config::default();
            change(&mut other);
            assert_eq!(difference(&of(&own), &of(&other)).as_deref(), key);
            assert_eq!(difference(&of(&other), &of(&own)).as_deref(), key);
        };
        check(&|_| (), None);
        check(&|it| it.limits.rate = 7, None);
        check(&|it| it.limits.message_bytes = 4096, Some("limits.message_bytes"));
        check(&|it| it.protected.clear(), Some("protected.patterns"));
        check(&|it| it.channels = [("Queue".to_owned(), Channel::default())].into(), None);
        let shared = Channel { scope: Scope::Shared, ..Channel::default() };
        check(&|it| it.channels = [("Queue".to_owned(), shared)].into(), Some("channels.Queue.scope"));
    }

    #[test]
    fn a_digest_fits_a_beat_however_many_channels_there_are() {
        let with = |count: usize, fold_case: bool| {
            let mut config = Config::default();
            let channel = Channel { scope: Scope::Shared, fold_case, ..Channel::default() };
            config.channels = (0..count).map(|number| (format!("Channel{number}"), channel)).collect();
            of(&config)
        };
        assert!(with(10_000, true).len() <= DIGEST_BYTES_MAX);
        assert_eq!(difference(&with(10_000, true), &with(10_000, false)).as_deref(), Some("channels"));
    }
}
