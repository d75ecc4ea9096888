//! What an operator sees of the router: sessions, applications, subscriptions, requests, channels, retained values, logs.
//!
//! Each list is made anew when it is asked for, one shard of a map after the other; no two items of a list have the same id.
//! Sessions, subscriptions and retained values are collected by reference, and the caller makes rows of those that it shows.
//! So a list of a hundred thousand items holds no lock for long.

mod applications;
mod channels;
mod kept;
mod requests;
mod sessions;
mod subscriptions;

pub use applications::ApplicationRow;
pub use channels::{ChannelHistory, ChannelRow};
pub use kept::{LogRow, RetainedItem, RetainedRow};
pub use requests::{RequestRow, RequestState};
pub use sessions::{QueueDepth, SessionRow, SessionSort};
pub use subscriptions::{SubscriptionItem, SubscriptionRow};

use std::sync::Arc;

use crate::router::Router;
use crate::router::session::Session;
use wire::{Pattern, Triple};

/// Which rows of a list are wanted: those that have all of this.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The source, exactly.
    pub source: Option<String>,
    /// The user, exactly.
    pub user: Option<String>,
    /// The first part of the triple or pattern, as written; `*` is a wildcard of a pattern.
    pub channel: Option<String>,
    /// The second part.
    pub topic: Option<String>,
    /// The third part.
    pub subtopic: Option<String>,
    /// The state, as the row has it.
    pub state: Option<String>,
}

/// How busy a session is, or the sessions of an application are together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages that wait.
    pub queue: u64,
    /// Thousandths of messages that it has sent a second lately.
    pub rate_millis: u64,
    /// Events that its full queue has lost.
    pub dropped: u64,
}

impl Load {
    fn of(session: &Session) -> Self {
        let outbox = session.outbox();
        Self {
            queue: u64::try_from(outbox.depth().messages).unwrap_or(u64::MAX),
            rate_millis: session.activity.rate_millis(),
            dropped: outbox.dropped(),
        }
    }

    fn add(&mut self, other: Self) {
        self.queue += other.queue;
        self.rate_millis += other.rate_millis;
        self.dropped += other.dropped;
    }
}

impl Filter {
    fn allows_source(&self, source: &str) -> bool {
        self.source.as_deref().is_none_or(|wanted| wanted == source)
    }

    fn allows_user(&self, user: Option<&str>) -> bool {
        self.user.as_deref().is_none_or(|wanted| Some(wanted) == user)
    }

    fn allows_state(&self, state: &str) -> bool {
        self.state.as_deref().is_none_or(|wanted| wanted == state)
    }

    fn allows_channel(&self, channel: &str) -> bool {
        self.channel.as_deref().is_none_or(|wanted| wanted == channel)
    }

    fn allows_triple(&self, triple: &Triple<'_>) -> bool {
        let is = |wanted: &Option<String>, part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
        is(&self.channel, &triple.channel) && is(&self.topic, &triple.topic) && is(&self.subtopic, &triple.subtopic)
    }

    /// Whether a part of a triple or pattern is given.
    fn names_subscriptions(&self) -> bool {
        self.channel.is_some() || self.topic.is_some() || self.subtopic.is_some()
    }

    /// Whether the session has a subscription with the given parts, if any is given.
    fn allows_subscriptions(&self, session: &Session) -> bool {
        !self.names_subscriptions()
            || session.holds.lock().subscriptions.iter().any(|it| self.allows_pattern(&it.pattern))
    }

    fn allows_pattern(&self, pattern: &Pattern) -> bool {
        let is = |wanted: &Option<String>, part: &Option<Box<str>>| {
            wanted.as_deref().is_none_or(|wanted| wanted == part_text(part.as_deref()))
        };
        is(&self.channel, &pattern.channel) && is(&self.topic, &pattern.topic) && is(&self.subtopic, &pattern.subtopic)
    }
}

impl Router {
    /// The registered sessions whose source and user a filter allows, in no order.
    fn sessions_of(&self, filter: &Filter) -> Vec<Arc<Session>> {
        let mut found = Vec::new();
        self.presence.each(|session| {
            if filter.allows_source(&session.source) && filter.allows_user(session.user()) {
                found.push(Arc::clone(session));
            }
        });
        found
    }
}

/// A part of a pattern as it is written on the wire.
fn part_text(part: Option<&str>) -> &str {
    part.unwrap_or("*")
}
