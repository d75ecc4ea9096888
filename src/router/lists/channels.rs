//! The list of channels: those that are configured, and those that a subscription names.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Filter;
use crate::config::{Channel, Overflow, Publish, Scope};
use crate::router::Router;

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRow {
    /// Its name.
    pub name: String,
    /// Whether the configuration has a table of it.
    pub configured: bool,
    /// `user` or `shared`.
    pub scope: &'static str,
    /// `all` or `services`.
    pub publish: &'static str,
    /// `close` or `drop-oldest`.
    pub overflow: &'static str,
    /// Topics and subtopics are compared without regard to case.
    pub fold_case: bool,
    /// Its retained values are on disk.
    pub retain_durable: bool,
    /// What its logs keep.
    pub history: Option<ChannelHistory>,
    /// Subscriptions that name it and receive events.
    pub subscriptions: usize,
    /// Subscriptions that name it and handle requests.
    pub handlers: usize,
}

/// What the logs of a channel keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelHistory {
    /// The most events of a log.
    pub size: usize,
    /// For how long.
    pub ttl: Duration,
    /// They are on disk.
    pub durable: bool,
}

impl Router {
    /// The channels that a filter allows, by name. Its source and user say whose subscriptions are counted. Patterns for all
    /// channels count for none.
    pub fn list_channels(&self, filter: &Filter) -> Vec<ChannelRow> {
        let mut counts: BTreeMap<String, (Option<Channel>, usize, usize)> = BTreeMap::new();
        for (name, channel) in self.policy.channels() {
            counts.entry(name).or_default().0 = Some(channel);
        }
        for session in self.sessions_of(filter) {
            for subscription in &session.holds.lock().subscriptions {
                let Some(channel) = subscription.pattern.channel.as_deref() else { continue };
                if !counts.contains_key(channel) {
                    counts.insert(channel.to_owned(), Default::default());
                }
                if let Some((_, subscriptions, handlers)) = counts.get_mut(channel) {
                    *(if subscription.is_handler() { handlers } else { subscriptions }) += 1;
                }
            }
        }
        counts.retain(|name, _| filter.allows_channel(name));
        let row = |(name, (configured, subscriptions, handlers))| row(name, configured, subscriptions, handlers);
        counts.into_iter().map(row).collect()
    }
}

fn row(name: String, configured: Option<Channel>, subscriptions: usize, handlers: usize) -> ChannelRow {
    let channel = configured.unwrap_or_default();
    ChannelRow {
        name,
        configured: configured.is_some(),
        scope: match channel.scope {
            Scope::User => "user",
            Scope::Shared => "shared",
        },
        publish: match channel.publish {
            Publish::All => "all",
            Publish::Services => "services",
        },
        overflow: match channel.overflow {
            Overflow::Close => "close",
            Overflow::DropOldest => "drop-oldest",
        },
        fold_case: channel.fold_case,
        retain_durable: channel.retain_durable,
        history: channel.history.map(|bounds| ChannelHistory {
            size: bounds.size,
            ttl: bounds.ttl,
            durable: channel.durable,
        }),
        subscriptions,
        handlers,
    }
}
