//! [`Appender`]: appends events to their logs in JetStream, again and again until that is acknowledged or the time is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use wire::{ErrorCode, Refusal};

use super::logs::{Last, Logs, Place, epoch_of};
use super::record::{EPOCH, OFFSET, Record};
use crate::router::{Append, Appended, Once, Position, not_kept};
use crate::server::cluster::jetstream::{JetStream, Put, Read, StorageError, Stored};
use crate::store::history::LogName;

/// How long to wait before an attempt is repeated.
const AGAIN: Duration = Duration::from_millis(250);

/// How long to wait at most if another node was first.
const CONFLICT_MAX_MS: u64 = 10;

/// The logs whose last events are remembered. Beyond that, all are forgotten, and read when they are needed.
const REMEMBERED_MAX: usize = 65_536;

/// The copies of one event that are appended at once.
const COPIES_AT_ONCE: usize = 32;

/// Appends events.
pub(super) struct Appender {
    pub(super) logs: Arc<Logs>,
    /// The last event of each log, as far as this node knows.
    last: Mutex<HashMap<LogName, Last>>,
}

/// One event on its way into one log.
struct Attempt<'a> {
    log: &'a LogName,
    place: Place,
    named: [u8; 16],
    text: &'a [u8],
    id: String,
    until: Instant,
}

impl Appender {
    pub(super) fn new(logs: Arc<Logs>) -> Self {
        Self { logs, last: Mutex::default() }
    }

    /// Appends an event to its logs.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE` if that was not acknowledged in time, `TOO_LARGE` if NATS does not take it. It may be in some logs.
    pub(super) async fn append(&self, append: &Append) -> Result<Vec<Appended>, Refusal> {
        let Some((entry, attempt, once)) = append.stored() else { return Ok(Vec::new()) };
        let until = Instant::from_std(append.at()) + self.logs.storage.wait();
        let text = Record::new(attempt, entry).write();
        let mut attempts = Vec::with_capacity(append.logs().len());
        for (copy, log) in append.logs().iter().enumerate() {
            let id = match once {
                Some(once) => once_id(&self.logs.storage, log, once),
                // JetStream compares ids in the whole stream, which has the logs of all users.
                None => format!("{}.{copy}", hex::encode(attempt)),
            };
            let place = self.logs.place(log);
            attempts.push(self.append_to(Attempt { log, place, named: attempt, text: &text, id, until }));
        }
        stream::iter(attempts).buffered(COPIES_AT_ONCE).try_collect().await
    }

    async fn append_to(&self, attempt: Attempt<'_>) -> Result<Appended, Refusal> {
        if attempt.log.user.is_some() { self.to_user(&attempt).await } else { self.to_shared(&attempt).await }
    }

    /// Appends to a user's log, in which the last event decides the next position.
    async fn to_user(&self, it: &Attempt<'_>) -> Result<Appended, Refusal> {
        let mut known = self.last.lock().get(it.log).cloned();
        loop {
            let last = match known.take() {
                Some(last) => last,
                None => match self.logs.last(it.log, &it.place).await {
                    Ok(last) => last,
                    Err(error) => {
                        it.wait(&error).await?;
                        continue;
                    }
                },
            };
            let position = Position { offset: last.offset + 1, epoch: Arc::clone(&last.epoch) };
            let headers = [(OFFSET, position.offset.to_string()), (EPOCH, position.epoch.to_string())];
            let put = Put {
                expected: Some(last.sequence),
                id: Some(&it.id),
                headers: &headers,
                ..Put::new(it.place.at(position.offset), it.text)
            };
            match self.logs.storage.put(put).await {
                Ok(Stored { sequence, is_duplicate: false }) => {
                    self.remember(it.log, &position, sequence);
                    return Ok(Appended { position, follows: last.is_own, is_duplicate: false });
                }
                Ok(Stored { sequence, is_duplicate: true }) => match self.first(it, sequence).await {
                    Ok(appended) => return Ok(appended),
                    Err(error) => it.wait(&error).await?,
                },
                // Another node was first: its event is read, and the next place tried.
                Err(StorageError::Conflict) => it.wait(&StorageError::Conflict).await?,
                Err(error) => {
                    it.wait(&error).await?;
                    // It may be there: the same place and the same id.
                    known = Some(last);
                }
            }
        }
    }

    /// Appends to the log of a shared channel, whose positions are those of its stream.
    async fn to_shared(&self, it: &Attempt<'_>) -> Result<Appended, Refusal> {
        loop {
            let last = self.last.lock().get(it.log).cloned();
            let last = match last {
                Some(last) => last,
                None => match self.logs.stream(&it.place.stream).await {
                    Ok((epoch, _, offset)) => Last { epoch, offset, sequence: offset, is_own: false },
                    Err(error) => {
                        it.wait(&error).await?;
                        continue;
                    }
                },
            };
            let put = Put { id: Some(&it.id), ..Put::new(it.place.at(0), it.text) };
            match self.logs.storage.put(put).await {
                Ok(Stored { sequence, is_duplicate: false }) if sequence > last.offset => {
                    let position = Position { offset: sequence, epoch: last.epoch };
                    self.remember(it.log, &position, sequence);
                    let follows = last.is_own && last.offset + 1 == sequence;
                    return Ok(Appended { position, follows, is_duplicate: false });
                }
                // The stream was made anew, so its epoch is another one. The event is there.
                Ok(Stored { is_duplicate: false, .. }) => drop(self.last.lock().remove(it.log)),
                Ok(Stored { sequence, is_duplicate: true }) => match self.first(it, sequence).await {
                    Ok(appended) => return Ok(appended),
                    Err(error) => it.wait(&error).await?,
                },
                Err(error) => it.wait(&error).await?,
            }
        }
    }

    fn remember(&self, log: &LogName, position: &Position, sequence: u64) {
        let mut all = self.last.lock();
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        let (epoch, offset) = (Arc::clone(&position.epoch), position.offset);
        all.insert(log.clone(), Last { epoch, offset, sequence, is_own: true });
    }

    /// Reads the event that is there in place of this one: an earlier attempt to append it, or an earlier event with its id.
    async fn first(&self, it: &Attempt<'_>, sequence: u64) -> Result<Appended, StorageError> {
        let Place { stream, subject, .. } = &it.place;
        let read = self.logs.storage.first_from(stream, subject, sequence).await?;
        let read = match read {
            Some(read) => read,
            // The log has lost it since, and all that followed.
            None => self.logs.storage.last(stream, subject).await?.ok_or(StorageError::Conflict)?,
        };
        let epoch = match it.place.has_headers {
            true => epoch_of(&read),
            false => self.logs.stream(stream).await?.0,
        };
        let (offset, is_it) = (it.place.offset(&read), read.sequence == sequence);
        let is_own = is_it && self.is_own(it, offset, &read);
        // If the first one is no longer kept, it was before the first that is.
        let position = Position { offset: if is_it { offset } else { offset.saturating_sub(1) }, epoch };
        if is_own {
            self.last.lock().remove(it.log);
        }
        Ok(Appended { position, follows: false, is_duplicate: !is_own })
    }

    /// Whether what is there was stored by an earlier attempt for the same event.
    fn is_own(&self, it: &Attempt<'_>, offset: u64, read: &Read) -> bool {
        let text = self.logs.storage.open_stored(it.place.at(offset), &read.sealed);
        text.is_some_and(|text| Record::read(&text).is_some_and(|record| record.attempt == it.named))
    }
}

/// What makes events with `once` the same, the same on every node.
pub(super) fn once_id(storage: &JetStream, log: &LogName, once: &Once) -> String {
    let text = |text: &Option<Box<str>>| text.as_deref().map_or_else(String::new, |text| format!("={text}"));
    let (owner, user) = (text(&log.user), text(&once.user));
    hex::encode(storage.hash("once", &[&log.channel, &owner, &user, &once.source, &once.id]))
}

impl Attempt<'_> {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The time is over, or no attempt would help.
    async fn wait(&self, error: &StorageError) -> Result<(), Refusal> {
        let wait = match error {
            StorageError::TooLarge => {
                let words = "the event is larger than the cluster's NATS servers take (max_payload)";
                return Err(Refusal::new(ErrorCode::TooLarge, words));
            }
            // A random time, so that two nodes do not meet again.
            StorageError::Conflict => Duration::from_millis(rand::random_range(0..=CONFLICT_MAX_MS)),
            StorageError::Unavailable(why) => {
                tracing::debug!(log = %self.log, why, "JetStream has not taken an event yet");
                AGAIN
            }
        };
        let next = Instant::now() + wait;
        if next >= self.until {
            return Err(not_kept());
        }
        sleep_until(next).await;
        Ok(())
    }
}
