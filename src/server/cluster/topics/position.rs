//! [`Position`]: how far a topic has been published, as the node that has its turn knows it, and as the bucket has it.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::cluster::StoredAt;
use crate::server::cluster::jetstream::{JetStream, LEASES, Put, StorageError};
use crate::server::cluster::leases::bucket::AGAIN;
use crate::server::cluster::leases::pause;

/// The time between two writes.
const EVERY: Duration = Duration::from_secs(1);

/// Replay ids, by org.
type Orgs = BTreeMap<String, Vec<u8>>;

/// What is stored of a topic.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The incarnation with which the node that wrote it started.
    writer: [u8; 16],
    orgs: Orgs,
}

/// How far a topic has been published.
pub(super) struct Position {
    subject: String,
    writer: [u8; 16],
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    orgs: Orgs,
    /// How often they have changed.
    changes: u64,
    /// The changes that are in the bucket.
    kept: u64,
    /// That of the value in the bucket.
    revision: u64,
}

/// Another node has had its turn since.
#[derive(Debug)]
pub(super) struct Overtaken;

/// What the bucket has.
struct Last {
    revision: u64,
    /// `None`: nothing that can be read.
    stored: Option<Stored>,
}

impl Position {
    pub(super) fn new(subject: String, writer: [u8; 16]) -> Self {
        Self { subject, writer, state: Mutex::default(), changed: Notify::new() }
    }

    /// The replay id to continue after.
    pub(super) fn find(&self, org: &str) -> Option<Vec<u8>> {
        self.state.lock().orgs.get(org).filter(|id| !id.is_empty()).cloned()
    }

    /// Records that the topic has been published up to this replay id.
    pub(super) fn advance(&self, org: &str, replay_id: &[u8]) {
        let mut state = self.state.lock();
        if state.orgs.get(org).is_some_and(|known| known == replay_id) {
            return;
        }
        state.orgs.insert(org.to_owned(), replay_id.to_vec());
        state.changes += 1;
        drop(state);
        self.changed.notify_one();
    }

    /// Forgets the replay id of an org.
    pub(super) fn forget(&self, org: &str) {
        let mut state = self.state.lock();
        state.changes += u64::from(state.orgs.remove(org).is_some());
        drop(state);
        self.changed.notify_one();
    }

    /// Reads what the bucket has, and puts it there again under a new revision: what an earlier holder of the turn has sent and
    /// is still on its way is refused from then on. Makes one attempt.
    ///
    /// # Errors
    /// [`StorageError`]; after a conflict, the next attempt may succeed.
    pub(super) async fn take_over(&self, storage: &JetStream) -> Result<(), StorageError> {
        let Last { revision, stored } = self.last(storage).await?;
        let orgs = stored.map(|stored| stored.orgs).unwrap_or_default();
        let revision = self.put(storage, &orgs, revision).await?;
        *self.state.lock() = State { orgs, changes: 0, kept: 0, revision };
        Ok(())
    }

    /// Writes what changes, at most once a second, until another node has overtaken this one.
    pub(super) async fn keep(&self, storage: &JetStream) -> Overtaken {
        let mut is_told = false;
        loop {
            self.changed.notified().await;
            loop {
                match self.write(storage).await {
                    Ok(Ok(())) => {
                        is_told = false;
                        break;
                    }
                    Ok(Err(overtaken)) => return overtaken,
                    Err(error) => {
                        if !std::mem::replace(&mut is_told, true) {
                            tracing::warn!(%error, "the position of a topic of Salesforce cannot be kept for now");
                        }
                        pause(AGAIN).await;
                    }
                }
            }
            pause(EVERY).await;
        }
    }

    /// Writes what has changed, in one attempt. May be dropped at any time.
    ///
    /// # Errors
    /// [`StorageError`]; or, within, another node has overtaken this one.
    pub(super) async fn write(&self, storage: &JetStream) -> Result<Result<(), Overtaken>, StorageError> {
        let (orgs, changes, revision) = {
            let state = self.state.lock();
            if state.changes == state.kept {
                return Ok(Ok(()));
            }
            (state.orgs.clone(), state.changes, state.revision)
        };
        let error = match self.put(storage, &orgs, revision).await {
            Ok(revision) => {
                let mut state = self.state.lock();
                (state.kept, state.revision) = (changes, revision);
                return Ok(Ok(()));
            }
            Err(error) => error,
        };
        if !matches!(error, StorageError::Conflict) {
            return Err(error);
        }
        // It may be an earlier write of this node whose acknowledgement did not arrive.
        let Last { revision, stored } = self.last(storage).await?;
        if stored.is_some_and(|stored| stored.writer != self.writer) {
            return Ok(Err(Overtaken));
        }
        self.state.lock().revision = revision;
        Err(error)
    }

    async fn put(&self, storage: &JetStream, orgs: &Orgs, expected: u64) -> Result<u64, StorageError> {
        let stored = Stored { writer: self.writer, orgs: orgs.clone() };
        let text = postcard::to_allocvec(&stored).map_err(|error| StorageError::Unavailable(error.to_string()))?;
        let put = Put { expected: Some(expected), ..Put::new(StoredAt::subject(&self.subject), &text) };
        storage.put(put).await.map(|stored| stored.sequence)
    }

    async fn last(&self, storage: &JetStream) -> Result<Last, StorageError> {
        let (stream, _) = storage.bucket(LEASES);
        let Some(read) = storage.last(&stream, &self.subject).await? else {
            return Ok(Last { revision: 0, stored: None });
        };
        let revision = read.sequence;
        if read.is_marker() {
            return Ok(Last { revision, stored: None });
        }
        let text = storage.open_stored(StoredAt::subject(&self.subject), &read.sealed);
        let stored = text.and_then(|text| postcard::from_bytes(&text).ok());
        Ok(Last { revision, stored })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn many_threads_that_advance_are_all_counted_and_found() {
        const THREADS: usize = 8;
        const IDS: u64 = 2000;
        let position = Position::new("$KV.test.p.topic".to_owned(), [7; 16]);
        let run = &|thread: usize| {
            let own = format!("00D{thread}");
            for id in 1..=IDS {
                position.advance(&own, &id.to_be_bytes());
                position.advance(&own, &id.to_be_bytes());
                assert_eq!(position.find(&own), Some(id.to_be_bytes().to_vec()));
                position.advance("shared", &[u8::try_from(thread).unwrap(); 8]);
                assert!(position.find("shared").is_some_and(|id| id.iter().all(|byte| *byte == id[0])));
            }
            if thread.is_multiple_of(2) {
                position.forget(&own);
            }
        };
        thread::scope(|scope| (0..THREADS).for_each(|thread| drop(scope.spawn(move || run(thread)))));
        for thread in 0..THREADS {
            let left = (!thread.is_multiple_of(2)).then(|| IDS.to_be_bytes().to_vec());
            assert_eq!(position.find(&format!("00D{thread}")), left);
        }
        let state = position.state.lock();
        // What was the same as before does not count.
        let own = THREADS as u64 * IDS + THREADS as u64 / 2;
        assert!((own + 1..=own + THREADS as u64 * IDS).contains(&state.changes), "{}", state.changes);
        assert_eq!((state.kept, state.revision), (0, 0));
    }
}
