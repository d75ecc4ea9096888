//! The lists of what the broker keeps: retained values and logs. Never a payload.

use std::time::{Instant, SystemTime};

use super::Filter;
use crate::router::Router;
use crate::router::history::LogFacts;
use crate::router::retained::ValueFacts;

/// One retained value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedRow {
    /// The user to whom it belongs; `None` on a shared channel.
    pub user: Option<String>,
    /// `user` or `shared`.
    pub scope: &'static str,
    /// The triple, as the channel compares it.
    pub triple: [String; 3],
    /// The source that sent it.
    pub source: Option<String>,
    /// The source for which it is kept, if it was sent to one.
    pub target: Option<String>,
    /// The memory that it counts with.
    pub bytes: usize,
    /// When it was published, or read from the disk.
    pub since: SystemTime,
}

/// One log of a channel with history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// Names the row.
    pub id: String,
    /// Its channel.
    pub channel: String,
    /// The user to whom it belongs; `None` on a shared channel.
    pub user: Option<String>,
    /// The name of its present life.
    pub epoch: String,
    /// The offset of the first event that is kept, in memory or on disk; `None` if none is.
    pub first: Option<u64>,
    /// The offset of the last event that it had; 0 if it never had one.
    pub last: u64,
    /// How many events are kept.
    pub entries: usize,
    /// The memory of those that are in memory.
    pub bytes: usize,
    /// It is on disk.
    pub durable: bool,
}

/// A retained value, of which [`Router::retained_row`] makes a row.
pub struct RetainedItem(ValueFacts);

impl RetainedItem {
    /// Names the value.
    #[must_use]
    pub fn id(&self) -> String {
        self.0.id()
    }
}

impl Router {
    /// The retained values that a filter allows, in no order.
    pub fn list_retained(&self, filter: &Filter) -> Vec<RetainedItem> {
        let found = self.retained.facts(|user, triple| filter.allows_user(user) && filter.allows_triple(triple));
        let is_wanted = |it: &ValueFacts| filter.source.is_none() || filter.source == it.source();
        found.into_iter().filter(is_wanted).map(RetainedItem).collect()
    }

    /// What an operator sees of a retained value. Its source is read from its text, because nothing else needs it.
    pub fn retained_row(&self, RetainedItem(facts): &RetainedItem) -> RetainedRow {
        RetainedRow {
            scope: if facts.user.is_some() { "user" } else { "shared" },
            source: facts.source(),
            triple: facts.triple(),
            since: self.date(facts.since),
            user: facts.user.as_deref().map(str::to_owned),
            target: facts.target.as_deref().map(str::to_owned),
            bytes: facts.bytes,
        }
    }

    /// The logs that a filter allows, in the order in which they were made.
    pub fn list_logs(&self, now: Instant, filter: &Filter) -> Vec<LogRow> {
        let found = self.log_facts(now);
        let is_wanted = |it: &LogFacts| filter.allows_channel(&it.channel) && filter.allows_user(it.user.as_deref());
        let row = |it: LogFacts| LogRow {
            id: it.key,
            durable: self.policy.is_durable(&it.channel),
            channel: it.channel,
            user: it.user,
            epoch: it.epoch.to_string(),
            first: (it.entries > 0).then_some(it.first),
            last: it.last,
            entries: it.entries,
            bytes: it.bytes,
        };
        found.into_iter().filter(is_wanted).map(row).collect()
    }
}
