//! [`Logs`]: where the logs of channels with history are in JetStream, and where each begins and ends.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{StoredAt, history_stream, history_subjects, part};
use crate::router::Ends;
use crate::server::cluster::jetstream::{JetStream, LEASES, Put, Read, StorageError};
use crate::store::history::LogName;

use super::record::{EPOCH, OFFSET};

/// How long the epoch of a log is kept that never held anything.
const UNUSED_EPOCH: Duration = Duration::from_hours(7 * 24);

/// How long an epoch is kept from when a node puts the first event into the log: other nodes that find the log empty at the same
/// time have to use it, too. A log keeps its first event for an hour at least, so it is gone long before the log can be empty
/// again: no other life of the log has it.
const USED_EPOCH: Duration = Duration::from_mins(10);

/// How long the marker of one that was removed is kept.
const MARKER: Duration = Duration::from_mins(1);

/// The metadata of a stream with the epoch of its log, if that was adopted from one broker. Else the epoch is the creation of the
/// stream.
const ADOPTED_EPOCH: &str = "sb-epoch";

/// How often an epoch is read or made: each time another node was first.
const ATTEMPTS: usize = 8;

/// The logs in JetStream.
pub(super) struct Logs {
    pub(super) storage: Arc<JetStream>,
}

/// The last event of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) epoch: Arc<str>,
    /// 0: there is none.
    pub(super) offset: u64,
    /// Its sequence in the stream.
    pub(super) sequence: u64,
    /// This node has appended it.
    pub(super) is_own: bool,
}

/// A log in its stream.
pub(super) struct Place {
    pub(super) stream: String,
    pub(super) subject: String,
    /// Offset and epoch are headers, because the stream has the logs of all users.
    pub(super) has_headers: bool,
}

impl Place {
    /// The position of a message that was read. `epoch`: that of the stream.
    pub(super) fn offset(&self, read: &Read) -> u64 {
        if self.has_headers { read.number(OFFSET).unwrap_or_default() } else { read.sequence }
    }

    /// What the seal of the event with this offset is bound to.
    pub(super) fn at(&self, offset: u64) -> StoredAt<'_> {
        StoredAt { subject: &self.subject, offset: self.has_headers.then_some(offset) }
    }
}

/// The epoch of a user's log that a message names.
pub(super) fn epoch_of(read: &Read) -> Arc<str> {
    read.headers.get(EPOCH).map_or("", |epoch| epoch.as_str()).into()
}

impl Logs {
    pub(super) fn place(&self, log: &LogName) -> Place {
        let name = self.storage.name();
        let owner = self.storage.owner(log.user.as_deref());
        Place {
            stream: history_stream(name, &log.channel),
            subject: format!("{}.{owner}", history_subjects(name, &log.channel)),
            has_headers: log.user.is_some(),
        }
    }

    /// Reads where a log begins and ends. For a user's log that never held anything, an epoch is made.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]
    pub(super) async fn ends(&self, log: &LogName) -> Result<Ends, StorageError> {
        let place = self.place(log);
        if !place.has_headers {
            let (epoch, first, last) = self.stream(&place.stream).await?;
            return Ok(Ends { epoch, first, last });
        }
        let Some(last) = self.storage.last(&place.stream, &place.subject).await? else {
            return Ok(Ends { epoch: self.first_epoch(log, None).await?, first: 1, last: 0 });
        };
        // It can have become another one, but not an earlier one.
        let first = self.storage.first_from(&place.stream, &place.subject, 1).await?;
        let first = first.as_ref().map_or_else(|| place.offset(&last), |first| place.offset(first));
        Ok(Ends { epoch: epoch_of(&last), first, last: place.offset(&last) })
    }

    /// Reads the last event of a user's log, before another one is put into it.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]
    pub(super) async fn last(&self, log: &LogName, place: &Place) -> Result<Last, StorageError> {
        match self.storage.last(&place.stream, &place.subject).await? {
            Some(last) => {
                let (offset, epoch) = (place.offset(&last), epoch_of(&last));
                Ok(Last { epoch, offset, sequence: last.sequence, is_own: false })
            }
            None => {
                let epoch = self.first_epoch(log, Some(USED_EPOCH)).await?;
                Ok(Last { epoch, offset: 0, sequence: 0, is_own: false })
            }
        }
    }

    /// Reads the epoch of a stream, and the first and last sequence.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]
    pub(super) async fn stream(&self, stream: &str) -> Result<(Arc<str>, u64, u64), StorageError> {
        let stream = self.storage.context().get_stream(stream).await;
        let stream = self.storage.counted(stream.map_err(|error| StorageError::Unavailable(error.to_string())))?;
        let info = stream.cached_info();
        let made = || format!("{:x}", info.created.unix_timestamp_nanos());
        let epoch = info.config.metadata.get(ADOPTED_EPOCH).cloned().unwrap_or_else(made);
        Ok((epoch.into(), info.state.first_sequence.max(1), info.state.last_sequence))
    }

    /// Gives an empty stream the epoch of the log that is adopted into it, whose offsets are those of the stream.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]
    pub(super) async fn set_epoch(&self, stream: &str, epoch: &str) -> Result<(), StorageError> {
        let unavailable = |error: &dyn std::fmt::Display| StorageError::Unavailable(error.to_string());
        let context = self.storage.context();
        let stream = context.get_stream(stream).await.map_err(|error| unavailable(&error))?;
        let mut config = stream.cached_info().config.clone();
        config.metadata.insert(ADOPTED_EPOCH.to_owned(), epoch.to_owned());
        context.update_stream(config).await.map(drop).map_err(|error| unavailable(&error))
    }

    /// The subject of the epoch of a log that never held anything.
    fn epoch_subject(&self, log: &LogName) -> (String, String) {
        let (stream, keys) = self.storage.bucket(LEASES);
        let owner = self.storage.owner(log.user.as_deref());
        (stream, format!("{keys}.epoch.{}.{owner}", part(&log.channel)))
    }

    /// Reads or makes the epoch that the first event of a log will have, so that all nodes have the same one. `ttl`: how long it
    /// is kept from now on; `None`: as long as one that was not used.
    ///
    /// # Errors
    /// [`StorageError`]
    async fn first_epoch(&self, log: &LogName, ttl: Option<Duration>) -> Result<Arc<str>, StorageError> {
        let (stream, subject) = self.epoch_subject(log);
        let at = StoredAt::subject(&subject);
        for _ in 0..ATTEMPTS {
            let read = self.storage.last(&stream, &subject).await?;
            let known = read.as_ref().and_then(|read| self.open_epoch(at, read));
            if let (Some(epoch), None) = (&known, ttl) {
                return Ok(Arc::clone(epoch));
            }
            let epoch = known.unwrap_or_else(new_epoch);
            let expected = Some(read.map_or(0, |read| read.sequence));
            let ttl = Some(ttl.unwrap_or(UNUSED_EPOCH));
            match self.storage.put(Put { expected, ttl, ..Put::new(at, epoch.as_bytes()) }).await {
                Ok(_) => return Ok(epoch),
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Conflict)
    }

    /// Removes the epoch that was made for the first event of a log, because that has another one.
    ///
    /// # Errors
    /// [`StorageError`]
    pub(super) async fn remove_epoch(&self, log: &LogName) -> Result<(), StorageError> {
        let (stream, subject) = self.epoch_subject(log);
        for _ in 0..ATTEMPTS {
            let Some(read) = self.storage.last(&stream, &subject).await?.filter(|read| !read.is_marker()) else {
                return Ok(());
            };
            match self.storage.remove(&subject, read.sequence, MARKER).await {
                Ok(_) => return Ok(()),
                Err(StorageError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Conflict)
    }

    fn open_epoch(&self, at: StoredAt<'_>, read: &Read) -> Option<Arc<str>> {
        if read.is_marker() {
            return None;
        }
        let text = self.storage.open_stored(at, &read.sealed)?;
        std::str::from_utf8(&text).ok().map(Arc::from)
    }
}

fn new_epoch() -> Arc<str> {
    hex::encode(rand::random::<[u8; 8]>()).into()
}
