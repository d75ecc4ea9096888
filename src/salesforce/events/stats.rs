//! [`Stats`]: counts of one topic's events, for whoever shows them. Never waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The counts, as they grow.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) received: AtomicU64,
    pub(super) routed: AtomicU64,
    pub(super) unaddressed: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) connected: AtomicBool,
    last: Mutex<Option<Instant>>,
}

/// The counts of one topic at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSnapshot {
    /// As it is named in the configuration.
    pub name: String,
    /// As Salesforce names it.
    pub topic: String,
    /// Events that came.
    pub received: u64,
    /// How many of them were given to the router.
    pub routed: u64,
    /// How many named no user, and went to nobody.
    pub unaddressed: u64,
    /// How many could not be read.
    pub unreadable: u64,
    /// How often the stream was opened again.
    pub reconnects: u64,
    /// Whether the stream stands.
    pub connected: bool,
    /// How long ago the last event came.
    pub last_event: Option<Duration>,
}

impl Stats {
    /// Notes an event.
    pub(super) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
        *self.last.lock() = Some(Instant::now());
    }

    /// All of it.
    pub(super) fn snapshot(&self, name: &str, topic: &str) -> TopicSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TopicSnapshot {
            name: name.to_owned(),
            topic: topic.to_owned(),
            received: read(&self.received),
            routed: read(&self.routed),
            unaddressed: read(&self.unaddressed),
            unreadable: read(&self.unreadable),
            reconnects: read(&self.reconnects),
            connected: self.connected.load(Ordering::Relaxed),
            last_event: self.last.lock().map(|last| last.elapsed()),
        }
    }
}
