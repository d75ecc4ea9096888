//! [`Bucket`]: retained values as JetStream has them. A value is sealed with its place: subjects hide names that are not
//! plain, and those of users if `cluster.seal_subjects` says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use crate::cluster::{StoredAt, part};
use crate::router::{LoggedValue, Position, Router};
use crate::server::cluster::jetstream::{JetStream, Put, RETAINED, Read, StorageError};
use crate::store::history::{Change, Place, Retained};

/// How long after an attempt that failed a value is put again.
const AGAIN: Duration = Duration::from_millis(250);

/// How long to wait at most if another node was first.
const CONFLICT_MAX_MS: u64 = 10;

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
    /// The epoch and offset of the event that left this, if its channel has history.
    #[serde(borrow)]
    position: Option<(&'a str, u64)>,
    /// `None`: it was cleared.
    #[serde(borrow)]
    value: Option<StoredValue<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredValue<'a> {
    user: Option<&'a str>,
    service: Option<&'a str>,
    text: &'a str,
}

impl<'a> Stored<'a> {
    fn new(place: &'a Place, position: Option<(&'a str, u64)>, value: Option<&'a Retained>) -> Self {
        let value = value.map(|Retained { user, service, text, .. }| StoredValue {
            user: user.as_deref(),
            service: service.as_deref(),
            text,
        });
        Self { user: place.user.as_deref(), triple: &place.triple, target: place.target.as_deref(), position, value }
    }

    fn place(&self) -> Place {
        Place { user: self.user.map(Box::from), triple: self.triple.into(), target: self.target.map(Box::from) }
    }

    fn value(&self) -> Option<Retained> {
        self.value.as_ref().map(|value| Retained {
            user: value.user.map(Box::from),
            service: value.service.map(Box::from),
            position: self.position.map(|(epoch, offset)| (epoch.into(), offset)),
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

impl Item {
    fn put(&self) -> Put<'_> {
        let put = Put::new(StoredAt::subject(&self.subject), &self.text);
        Put { id: Some(&self.id), ttl: self.is_cleared.then_some(CLEARED_TTL), ..put }
    }
}

/// The bucket of retained values.
pub(in crate::server::cluster) struct Bucket {
    storage: Arc<JetStream>,
    pub(super) router: Arc<Router>,
    in_doubt: Notify,
}

/// The subject of a place.
pub(super) fn subject(storage: &JetStream, place: &Place) -> String {
    let (_, keys) = storage.bucket(RETAINED);
    let mut subject = format!("{keys}.{}", storage.owner(place.user.as_deref()));
    for name in place.triple.split('/').chain(place.target.as_deref()) {
        subject.push('.');
        subject.push_str(&part(name));
    }
    subject
}

/// What is stored for a place, before it is sealed. `None`, which does not occur, if it cannot be written.
pub(super) fn text(
    place: &Place,
    position: Option<(&str, u64)>,
    value: Option<&Retained>,
) -> Option<Zeroizing<Vec<u8>>> {
    postcard::to_allocvec(&Stored::new(place, position, value)).map(Zeroizing::new).ok()
}

impl Bucket {
    pub(in crate::server::cluster) fn new(storage: Arc<JetStream>, router: Arc<Router>) -> Self {
        Self { storage, router, in_doubt: Notify::new() }
    }

    /// What has to be put for a change. `None`: nothing.
    pub(super) fn item(&self, change: &Change) -> Option<Item> {
        let (place, value) = match change {
            Change::Keep(place, value) => (place, Some(value)),
            Change::Clear(place) => (place, None),
            Change::Append { .. } | Change::Trim { .. } | Change::Forget(_) => return None,
        };
        let position = value.and_then(|value| value.position.as_ref());
        self.item_at(place, position.map(|(epoch, offset)| (&**epoch, *offset)), value)
    }

    fn item_at(&self, place: &Place, position: Option<(&str, u64)>, value: Option<&Retained>) -> Option<Item> {
        let text = text(place, position, value)?;
        let id = hex::encode(rand::random::<[u8; 16]>());
        Some(Item { subject: subject(&self.storage, place), text, is_cleared: value.is_none(), id })
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
        loop {
            match self.storage.put(item.put()).await {
                Ok(stored) => return Ok(stored.sequence),
                Err(StorageError::Unavailable(_)) if Instant::now() + AGAIN < until => {
                    sleep_until(Instant::now() + AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the value of an event in a log, unless the value of a later event of the log is there. Tries at least once, and
    /// until then. `is_again`: the event was sent before, so nothing is put if the value was cleared, or comes from elsewhere.
    /// Returns its revision, if it is there.
    pub(in crate::server::cluster) async fn put_logged(
        &self,
        value: &LoggedValue,
        is_again: bool,
        until: Instant,
    ) -> Result<Option<u64>, StorageError> {
        let LoggedValue { place, value, position } = value;
        let at = Some((&*position.epoch, position.offset));
        let unwritten = || StorageError::Unavailable("the value cannot be written".to_owned());
        let item = self.item_at(place, at, value.as_ref()).ok_or_else(unwritten)?;
        loop {
            let error = match self.put_if_later(&item, position, is_again).await {
                Ok(revision) => return Ok(revision),
                Err(StorageError::TooLarge) => return Err(StorageError::TooLarge),
                Err(error) => error,
            };
            let wait = match error {
                // A random time, so that two nodes do not meet again.
                StorageError::Conflict => Duration::from_millis(rand::random_range(0..=CONFLICT_MAX_MS)),
                StorageError::TooLarge | StorageError::Unavailable(_) => AGAIN,
            };
            if Instant::now() + wait >= until {
                self.in_doubt.notify_one();
                return Err(error);
            }
            sleep_until(Instant::now() + wait).await;
        }
    }

    async fn put_if_later(
        &self,
        item: &Item,
        position: &Position,
        is_again: bool,
    ) -> Result<Option<u64>, StorageError> {
        let (stream, _) = self.storage.bucket(RETAINED);
        let last = self.storage.last(&stream, &item.subject).await?;
        if let Some(last) = &last {
            match self.offset_in(last, &position.epoch) {
                // The same one was put before, or by an attempt whose answer did not arrive.
                Some(offset) if offset == position.offset => return Ok(Some(last.sequence)),
                Some(offset) if offset > position.offset => return Ok(None),
                None if is_again => return Ok(None),
                Some(_) | None => {}
            }
        }
        let expected = Some(last.map_or(0, |last| last.sequence));
        self.storage.put(Put { expected, ..item.put() }).await.map(|stored| Some(stored.sequence))
    }

    /// The offset of the event that left a value, if it is in this life of its log.
    fn offset_in(&self, read: &Read, epoch: &str) -> Option<u64> {
        if read.is_marker() {
            return None;
        }
        let text = self.storage.open_stored(StoredAt::subject(&read.subject), &read.sealed)?;
        let (own, offset) = postcard::from_bytes::<Stored<'_>>(&text).ok()?.position?;
        (own == epoch).then_some(offset)
    }

    /// Told when nobody knows whether a value was put.
    pub(super) fn in_doubt(&self) -> &Notify {
        &self.in_doubt
    }

    /// Reads what has a later revision than `last`, which is the revision up to which it has read. A value that does not open is
    /// skipped, and counted.
    pub(super) async fn read_on(self: Arc<Self>, last: Arc<AtomicU64>) -> Result<(), StorageError> {
        loop {
            if self.read_singly(&last).await? {
                return Ok(());
            }
            let read = self.read_many(&last).await;
            self.storage.counted(read)?;
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
