//! [`Bucket`]: retained values as JetStream has them. A value is sealed with its place: subjects hide names that are not
//! plain, and those of users if `cluster.seal_subjects` says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use crate::cluster::{StoredAt, part};
use crate::router::Router;
use crate::server::cluster::jetstream::{JetStream, Put, RETAINED, StorageError};
use crate::store::history::{Change, Place, Retained};

/// How long after an attempt that failed a value is put again.
const AGAIN: Duration = Duration::from_millis(250);

/// How long JetStream remembers that a value was cleared, for nodes that read on.
const CLEARED_TTL: Duration = Duration::from_hours(24);

/// How many values are read one by one before a consumer reads the rest: it costs two more requests.
const SINGLY_MAX: usize = 16;

/// How many values a consumer brings at once, and how long it may take.
const BATCH: usize = 256;
const BATCH_TIME: Duration = Duration::from_secs(5);

/// How long JetStream keeps a consumer that is not used.
const CONSUMER_TIME: Duration = Duration::from_secs(30);

/// What is stored of a place.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    user: Option<&'a str>,
    triple: &'a str,
    target: Option<&'a str>,
    /// `None`: it was cleared.
    #[serde(borrow)]
    value: Option<StoredValue<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredValue<'a> {
    user: Option<&'a str>,
    service: Option<&'a str>,
    /// Its epoch and offset, if its channel has history.
    #[serde(borrow)]
    position: Option<(&'a str, u64)>,
    text: &'a str,
}

impl<'a> Stored<'a> {
    fn new(place: &'a Place, value: Option<&'a Retained>) -> Self {
        let value = value.map(|Retained { user, service, position, text }| StoredValue {
            user: user.as_deref(),
            service: service.as_deref(),
            position: position.as_ref().map(|(epoch, offset)| (&**epoch, *offset)),
            text,
        });
        Self { user: place.user.as_deref(), triple: &place.triple, target: place.target.as_deref(), value }
    }

    fn place(&self) -> Place {
        Place { user: self.user.map(Box::from), triple: self.triple.into(), target: self.target.map(Box::from) }
    }

    fn value(&self) -> Option<Retained> {
        self.value.as_ref().map(|value| Retained {
            user: value.user.map(Box::from),
            service: value.service.map(Box::from),
            position: value.position.map(|(epoch, offset)| (epoch.into(), offset)),
            text: value.text.into(),
        })
    }
}

/// Something to be put.
pub(super) struct Item {
    pub(super) subject: String,
    text: Zeroizing<Vec<u8>>,
    is_cleared: bool,
    /// What makes a repetition a duplicate.
    id: String,
}

/// The bucket of retained values.
pub(super) struct Bucket {
    storage: Arc<JetStream>,
    pub(super) router: Arc<Router>,
}

impl Bucket {
    pub(super) fn new(storage: Arc<JetStream>, router: Arc<Router>) -> Self {
        Self { storage, router }
    }

    /// What has to be put for a change. `None`: nothing.
    pub(super) fn item(&self, change: &Change) -> Option<Item> {
        let (place, value) = match change {
            Change::Keep(place, value) => (place, Some(value)),
            Change::Clear(place) => (place, None),
            Change::Append { .. } | Change::Trim { .. } | Change::Forget(_) => return None,
        };
        let text = postcard::to_allocvec(&Stored::new(place, value)).map(Zeroizing::new).ok()?;
        let id = hex::encode(rand::random::<[u8; 16]>());
        Some(Item { subject: self.subject(place), text, is_cleared: value.is_none(), id })
    }

    fn subject(&self, place: &Place) -> String {
        let (_, keys) = self.storage.bucket(RETAINED);
        let mut subject = format!("{keys}.{}", self.storage.owner(place.user.as_deref()));
        for name in place.triple.split('/').chain(place.target.as_deref()) {
            subject.push('.');
            subject.push_str(&part(name));
        }
        subject
    }

    /// Puts values, and returns their revisions. Tries for `cluster.storage_wait`.
    pub(super) async fn put_all(&self, items: &[Item]) -> Result<Vec<u64>, StorageError> {
        let until = Instant::now() + self.storage.wait();
        let mut revisions = Vec::with_capacity(items.len());
        for item in items {
            revisions.push(self.put(item, until).await?);
        }
        Ok(revisions)
    }

    async fn put(&self, item: &Item, until: Instant) -> Result<u64, StorageError> {
        let put = Put::new(StoredAt::subject(&item.subject), &item.text);
        let put = Put { id: Some(&item.id), ttl: item.is_cleared.then_some(CLEARED_TTL), ..put };
        loop {
            match self.storage.put(put).await {
                Ok(stored) => return Ok(stored.sequence),
                Err(StorageError::Unavailable(_)) if Instant::now() + AGAIN < until => {
                    sleep_until(Instant::now() + AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what has a later revision than `last`, which is the revision up to which it has read. A value that does not open is
    /// skipped, and counted.
    pub(super) async fn read_on(self: Arc<Self>, last: Arc<AtomicU64>) -> Result<(), StorageError> {
        loop {
            if self.read_singly(&last).await? {
                return Ok(());
            }
            self.read_many(&last).await?;
        }
    }

    /// Reads some values from the leader, which has everything that was acknowledged. Returns whether it has read all.
    async fn read_singly(&self, last: &AtomicU64) -> Result<bool, StorageError> {
        let (stream, keys) = self.storage.bucket(RETAINED);
        let all = format!("{keys}.>");
        for _ in 0..SINGLY_MAX {
            let Some(read) = self.storage.first_from(&stream, &all, last.load(Ordering::Relaxed) + 1).await? else {
                return Ok(true);
            };
            if !read.is_marker() {
                self.take_over(&read.subject, &read.sealed, read.sequence);
            }
            last.store(read.sequence, Ordering::Relaxed);
        }
        Ok(false)
    }

    /// Reads by a consumer what the server has on which it runs.
    async fn read_many(&self, last: &AtomicU64) -> Result<(), StorageError> {
        let (stream, keys) = self.storage.bucket(RETAINED);
        let unavailable = |error: String| StorageError::Unavailable(error);
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: last.load(Ordering::Relaxed) + 1 },
            ack_policy: AckPolicy::None,
            filter_subject: format!("{keys}.>"),
            inactive_threshold: CONSUMER_TIME,
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer = self.storage.context().create_consumer_on_stream(config, stream).await;
        let consumer = consumer.map_err(|error| unavailable(error.to_string()))?;
        let mut left = consumer.cached_info().num_pending;
        while left > 0 {
            let fetch = consumer.fetch().max_messages(BATCH).expires(BATCH_TIME).messages();
            let mut messages = fetch.await.map_err(|error| unavailable(error.to_string()))?;
            let before = last.load(Ordering::Relaxed);
            while let Ok(Some(message)) = timeout(BATCH_TIME, messages.next()).await {
                let message = message.map_err(|error| unavailable(error.to_string()))?;
                let info = message.info().map_err(|error| unavailable(error.to_string()))?;
                let is_marker = message.headers.as_ref().is_some_and(|headers| {
                    ["KV-Operation", "Nats-Marker-Reason"].into_iter().any(|name| headers.get(name).is_some())
                });
                if !is_marker {
                    self.take_over(&message.subject, &message.payload, info.stream_sequence);
                }
                last.store(info.stream_sequence, Ordering::Relaxed);
                left = info.pending;
            }
            if last.load(Ordering::Relaxed) == before {
                return Err(unavailable("no answer".to_owned()));
            }
        }
        Ok(())
    }

    fn take_over(&self, subject: &str, sealed: &[u8], revision: u64) {
        let Some(text) = self.storage.open_stored(StoredAt::subject(subject), sealed) else { return };
        let Ok(stored) = postcard::from_bytes::<Stored<'_>>(&text) else {
            return tracing::warn!(revision, "a retained value in JetStream cannot be read, and is skipped");
        };
        let now = Instant::now().into_std();
        self.router.take_over_value(now, &stored.place(), stored.value().as_ref(), revision);
    }
}
