//! [`LogAdopter`]: appends the logs that one broker kept to those in JetStream.
//!
//! The id and the record of an adopted event follow from its log, epoch and offset. A second run therefore recognises what an
//! earlier one has appended, and goes on behind it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::AGAIN;
use super::append::once_id;
use super::logs::{Logs, Place, epoch_of};
use super::read::{Reader, Unread};
use super::record::{EPOCH, OFFSET, Record};
use crate::config::{self, Config};
use crate::router::Once;
use crate::server::cluster::jetstream::{JetStream, Put, Read, StorageError, Stored};
use crate::store::history::{Entry, Known, LogName, ReadRange};

/// Adopts logs.
pub(in crate::server::cluster) struct LogAdopter {
    logs: Arc<Logs>,
    reader: Reader,
    /// Whether nodes of the cluster run.
    has_nodes: bool,
    /// The channels with history, and whether each has one log for all users.
    shared: HashMap<String, bool>,
    /// The message ids of events that were sent with `once`, by log, epoch and offset.
    once: HashMap<(LogName, Box<str>, u64), String>,
}

/// A log on its way.
pub(in crate::server::cluster) struct Adopting {
    pub(in crate::server::cluster) log: LogName,
    epoch: Box<str>,
    /// The last offset that it used.
    last: u64,
    /// The events that are appended next. The first ones of all are the oldest.
    pub(in crate::server::cluster) entries: Vec<(u64, Entry)>,
    state: State,
    /// The events that were appended now.
    pub(in crate::server::cluster) appended: u64,
    /// What is subtracted from its offsets, because it has a new epoch in the cluster.
    shift: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// No event of it was seen.
    New,
    /// Up to this offset, all its events are in the cluster. The last message of its subject has this sequence.
    At {
        offset: u64,
        sequence: u64,
    },
    /// It was adopted before, and nodes have appended more since.
    WentOn,
    Refused(&'static str),
}

/// What became of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::cluster) enum Outcome {
    /// All its events are in the cluster.
    Adopted,
    /// It has no events.
    Empty,
    /// Why it was not adopted, or not all of it.
    Refused(&'static str),
}

const OTHER_EVENTS: &str = "the log in the cluster has other events";
const MIXED: &str =
    "a part was adopted before, and nodes have appended events to it since: the rest does not fit behind them";
const TOO_LARGE: &str = "an event is larger than the cluster's NATS servers take (max_payload)";
const RUNNING: &str =
    "nodes of the cluster run, which would not notice; a log of a shared channel is adopted while none does";

impl Adopting {
    pub(in crate::server::cluster) fn new(log: LogName, epoch: Box<str>, last: u64) -> Self {
        Self { log, epoch, last, entries: Vec::new(), state: State::New, appended: 0, shift: 0 }
    }

    /// What became of it, when all its events were handed over.
    pub(in crate::server::cluster) fn outcome(&self) -> Outcome {
        match self.state {
            State::New => Outcome::Empty,
            State::At { .. } | State::WentOn => Outcome::Adopted,
            State::Refused(why) => Outcome::Refused(why),
        }
    }

    /// Its epoch in the file, and what is subtracted from its offsets if that is not 0.
    pub(in crate::server::cluster) fn moved(&self) -> Option<(&str, u64)> {
        (self.shift > 0).then_some((&self.epoch, self.shift))
    }
}

impl LogAdopter {
    /// `known`: the events with `once` of which a repetition is recognised.
    pub(in crate::server::cluster) fn new(
        storage: &Arc<JetStream>,
        config: &Config,
        has_nodes: bool,
        known: Vec<Known>,
    ) -> Self {
        let logs = Arc::new(Logs { storage: Arc::clone(storage) });
        let once = known.into_iter().map(|it| {
            let Known { log, source, user, id, offset, epoch, .. } = it;
            let id = once_id(storage, &log, &Once { source, user, id });
            ((log, epoch, offset), id)
        });
        let channels = config.channels.iter().filter(|(_, channel)| channel.history.is_some());
        let shared = channels.map(|(name, channel)| (name.clone(), channel.scope == config::Scope::Shared));
        Self { reader: Reader::new(Arc::clone(&logs)), logs, has_nodes, shared: shared.collect(), once: once.collect() }
    }

    /// Reads the epoch that the log of a shared channel has.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]
    pub(in crate::server::cluster) async fn shared_epoch(&self, log: &LogName) -> Result<Arc<str>, StorageError> {
        Ok(self.logs.stream(&self.logs.place(log).stream).await?.0)
    }

    /// Appends the events of a log that were handed over.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]: JetStream does not answer.
    pub(in crate::server::cluster) async fn advance(&self, it: &mut Adopting) -> Result<(), StorageError> {
        let entries = std::mem::take(&mut it.entries);
        let Some((first, _)) = entries.first() else { return Ok(()) };
        let place = self.logs.place(&it.log);
        if it.state == State::New {
            it.state = self.again(async || self.begin(it, &place, *first).await).await?;
            it.shift = if place.has_headers { 0 } else { first - 1 };
        }
        for (offset, entry) in &entries {
            let State::At { offset: before, sequence } = it.state else { break };
            if *offset <= before {
                continue;
            }
            it.state = match self.append(it, &place, (*offset, entry), sequence).await? {
                Ok(sequence) => State::At { offset: *offset, sequence },
                Err(why) => State::Refused(why),
            };
            it.appended += u64::from(matches!(it.state, State::At { .. }));
        }
        Ok(())
    }

    /// Does something again while JetStream does not answer, for `cluster.storage_wait`.
    async fn again<T>(&self, work: impl AsyncFn() -> Result<T, StorageError>) -> Result<T, StorageError> {
        let until = Instant::now() + self.logs.storage.wait();
        loop {
            match work().await {
                Err(StorageError::Unavailable(_)) if Instant::now() + AGAIN < until => {
                    sleep_until(Instant::now() + AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Looks at what the cluster has of a log, whose first event has this offset.
    async fn begin(&self, it: &Adopting, place: &Place, first: u64) -> Result<State, StorageError> {
        match self.shared.get(&*it.log.channel) {
            None => return Ok(State::Refused("its channel has no history in this configuration")),
            Some(true) if place.has_headers => {
                return Ok(State::Refused("its channel has one log for all users in this configuration"));
            }
            Some(false) if !place.has_headers => {
                return Ok(State::Refused("its channel has a log for each user in this configuration"));
            }
            Some(_) => {}
        }
        match place.has_headers {
            true => self.begin_user(it, place, first).await,
            false => self.begin_shared(it, place, first).await,
        }
    }

    async fn begin_user(&self, it: &Adopting, place: &Place, first: u64) -> Result<State, StorageError> {
        let Some(last) = self.logs.storage.last(&place.stream, &place.subject).await? else {
            // A later life of the log must not have the epoch that was made for it.
            self.logs.remove_epoch(&it.log).await?;
            return Ok(State::At { offset: first - 1, sequence: 0 });
        };
        let offset = place.offset(&last);
        if *epoch_of(&last) != *it.epoch {
            return Ok(State::Refused(OTHER_EVENTS));
        }
        if offset <= it.last {
            return Ok(match self.is_own(it, place, &last, 0) {
                true => State::At { offset, sequence: last.sequence },
                false => State::Refused(MIXED),
            });
        }
        let (log, epoch, offsets) = (it.log.clone(), Arc::from(&*it.epoch), it.last..=it.last);
        match self.reader.read(&ReadRange { log, epoch, offsets, backwards: false }).await {
            Ok(read) => Ok(match read.first() {
                Some(found) if found.attempt == self.named(it, it.last) => State::WentOn,
                Some(_) | None => State::Refused(MIXED),
            }),
            // So much was appended since that the cluster no longer has it.
            Err(Unread::Gone) => Ok(State::WentOn),
            Err(Unread::Storage(error)) => Err(error),
        }
    }

    async fn begin_shared(&self, it: &Adopting, place: &Place, first: u64) -> Result<State, StorageError> {
        let (_, _, last) = self.logs.stream(&place.stream).await?;
        let shift = first - 1;
        if last == 0 {
            if self.has_nodes {
                return Ok(State::Refused(RUNNING));
            }
            if shift == 0 {
                self.logs.set_epoch(&place.stream, &it.epoch).await?;
            }
            return Ok(State::At { offset: shift, sequence: 0 });
        }
        // The last event that can have been adopted.
        let sequence = last.min(it.last.saturating_sub(shift));
        let read = self.logs.storage.first_from(&place.stream, &place.subject, sequence).await?;
        let is_own = read.is_some_and(|read| read.sequence == sequence && self.is_own(it, place, &read, shift));
        let offset = sequence + shift;
        Ok(match (is_own, offset == it.last) {
            (false, _) => State::Refused(OTHER_EVENTS),
            (true, true) if last > sequence => State::WentOn,
            (true, false) if self.has_nodes => State::Refused(RUNNING),
            (true, _) => State::At { offset, sequence },
        })
    }

    /// Whether a message is an event of the log that an earlier run has appended.
    fn is_own(&self, it: &Adopting, place: &Place, read: &Read, shift: u64) -> bool {
        let offset = place.offset(read);
        let text = self.logs.storage.open_stored(place.at(offset), &read.sealed);
        let named = self.named(it, offset + shift);
        text.is_some_and(|text| Record::read(&text).is_some_and(|record| record.attempt == named))
    }

    /// Names an event of a log as it was kept.
    fn named(&self, it: &Adopting, offset: u64) -> [u8; 16] {
        let owner = it.log.user.as_deref().map_or_else(String::new, |user| format!("={user}"));
        let parts = [&*it.log.channel, &owner, &it.epoch, &offset.to_string()];
        let hash = self.logs.storage.hash("adopt", &parts);
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// Appends an event behind the message with this sequence. Returns its own, or why it cannot be.
    async fn append(
        &self,
        it: &Adopting,
        place: &Place,
        (offset, entry): (u64, &Entry),
        before: u64,
    ) -> Result<Result<u64, &'static str>, StorageError> {
        let named = self.named(it, offset);
        let id = self.once.get(&(it.log.clone(), it.epoch.clone(), offset)).cloned();
        let id = id.unwrap_or_else(|| hex::encode(named));
        let text = Record::new(named, entry).write();
        let headers = [(OFFSET, offset.to_string()), (EPOCH, it.epoch.to_string())];
        let put = Put {
            expected: Some(before),
            id: Some(&id),
            headers: if place.has_headers { &headers } else { &[] },
            ..Put::new(place.at(offset), &text)
        };
        match self.again(async || self.logs.storage.put(put).await).await {
            // A duplicate is this event, put by an attempt that was not acknowledged.
            Ok(Stored { sequence, .. }) if sequence > before => Ok(Ok(sequence)),
            Ok(_) => Ok(Err(OTHER_EVENTS)),
            Err(StorageError::Conflict) => Ok(Err("a node has appended an event to it meanwhile")),
            Err(StorageError::TooLarge) => Ok(Err(TOO_LARGE)),
            Err(error @ StorageError::Unavailable(_)) => Err(error),
        }
    }
}
