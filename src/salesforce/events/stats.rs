//! [`Stats`]: counts of the events of one topic.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::seat::{TopicReader, TopicSeat};

/// The counters.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) received: AtomicU64,
    pub(super) routed: AtomicU64,
    pub(super) unaddressed: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) connected: AtomicBool,
    /// The right to read it, once it is wanted.
    pub(super) seat: OnceLock<Weak<dyn TopicSeat>>,
    last: Mutex<Option<Instant>>,
}

/// The counts of one topic at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSnapshot {
    /// The NAME of its table in the configuration.
    pub name: String,
    /// Its name in Salesforce.
    pub topic: String,
    /// Events received.
    pub received: u64,
    /// Events published.
    pub routed: u64,
    /// Events that named no user, so they had no receiver.
    pub unaddressed: u64,
    /// Events that could not be decoded.
    pub unreadable: u64,
    /// How many times the stream was opened again.
    pub reconnects: u64,
    /// Whether the stream is open.
    pub connected: bool,
    /// Who reads it.
    pub reader: TopicReader,
    /// The time since the last event.
    pub last_event: Option<Duration>,
}

impl Stats {
    /// Counts an event.
    pub(super) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
        *self.last.lock() = Some(Instant::now());
    }

    /// The present counts.
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
            reader: self.seat.get().and_then(Weak::upgrade).map_or(TopicReader::Nobody, |seat| seat.reader()),
            last_event: self.last.lock().map(|last| last.elapsed()),
        }
    }
}
