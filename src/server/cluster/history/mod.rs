//! [`History`]: the logs of channels with history, which a cluster keeps in JetStream (docs/cluster.md).
//!
//! One thread takes the events that wait to be stored, another one the reads that wait. The work is done by tasks on the
//! runtime of the storage: `lanes` says which events may be stored at once, `append` stores one, `read` reads. `logs` is where
//! a log is in JetStream, `record` what is stored of an event. `adopt` is for logs that one broker kept.

mod adopt;
mod append;
mod lanes;
mod logs;
mod read;
mod record;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;
use wire::{ErrorCode, Refusal};

use super::jetstream::{JetStream, StorageError};
use super::retained::Bucket;
use crate::router::{
    Append, Appended, CommitQueue, DiskRead, LoggedValue, Position, ReadKind, ReadQueue, Router, Uncommitted,
    ValueOutcome,
};
use crate::store::StoreError;
use crate::store::history::{self as stored, LogName};
pub(super) use adopt::{Adopting, LogAdopter, Outcome};
use append::Appender;
use lanes::{Lanes, Ready};
use logs::Logs;
use read::{Reader, Unread};

/// How often a thread looks whether the broker ends.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The reads that are done at once. Others wait.
const READS_AT_ONCE: usize = 64;

/// How long to wait before a read is repeated.
const AGAIN: Duration = Duration::from_millis(250);

/// How long the end of the broker waits for the last events.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Where an event waits for others.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Lane {
    Sender(u64),
    Log(LogName),
}

/// What waits for its turn.
enum Turn {
    /// An event for logs.
    Append(Box<Append>),
    /// An event for none, which has a retained value or waits for others of its sender only. What takes these keeps their
    /// order, so those of a sender go on together.
    Value(Box<Uncommitted>),
}

/// The logs of a cluster.
pub(super) struct History {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    router: Arc<Router>,
    storage: Arc<JetStream>,
    appender: Appender,
    reader: Reader,
    /// What is for no log goes here.
    values: CommitQueue,
    bucket: Arc<Bucket>,
    lanes: Mutex<Lanes<Lane, Turn>>,
    reads: Semaphore,
    tasks: TaskTracker,
}

impl History {
    /// Starts the threads. `values`: for the events that are for no log, and where retained values are.
    ///
    /// # Errors
    /// The system started no thread.
    pub(super) fn start(
        router: &Arc<Router>,
        storage: &Arc<JetStream>,
        (events, reads): (CommitQueue, ReadQueue),
        (values, bucket): (CommitQueue, Arc<Bucket>),
    ) -> io::Result<Self> {
        let logs = Arc::new(Logs { storage: Arc::clone(storage) });
        let shared = Arc::new(Shared {
            router: Arc::clone(router),
            storage: Arc::clone(storage),
            appender: Appender::new(Arc::clone(&logs)),
            reader: Reader::new(logs),
            values,
            bucket,
            lanes: Mutex::default(),
            reads: Semaphore::new(READS_AT_ONCE),
            tasks: TaskTracker::new(),
        });
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.to_owned()).spawn(run);
        let (appending, reading) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            spawn("history appender", Box::new(move || appending.take_events(&events)))?,
            spawn("history reader", Box::new(move || reading.take_reads(&reads)))?,
        ];
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    /// Ends the threads when everything that waits is stored. Blocks, but not for long.
    pub(super) fn stop(&self) {
        self.shared.router.end_commits();
        self.shared.router.end_disk_reads();
        let until = Instant::now() + LAST_EVENTS;
        self.shared.tasks.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let is_over = || threads.iter().all(JoinHandle::is_finished) && self.shared.tasks.is_empty();
        while !is_over() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        for thread in threads.into_iter().filter(JoinHandle::is_finished) {
            if thread.join().is_err() {
                tracing::error!("a thread of the history has failed");
            }
        }
    }
}

impl Shared {
    fn take_events(self: Arc<Self>, events: &CommitQueue) {
        loop {
            match events.receive(LOOK_EVERY) {
                Ok(event) => self.admit(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Lets an event go on when those before it have: of its sender, and in its logs.
    fn admit(self: &Arc<Self>, event: Uncommitted) {
        let sender = Lane::Sender(event.sender());
        if self.router.is_for_log(&event) {
            let append = Box::new(self.router.plan_append(event));
            self.enter(&lanes_of(&append), false, Turn::Append(append));
        } else {
            self.enter(&[sender], true, Turn::Value(Box::new(event)));
        }
    }

    fn enter(self: &Arc<Self>, keys: &[Lane], shares: bool, turn: Turn) {
        let mut lanes = self.lanes.lock();
        let ready = lanes.push(keys, shares, turn);
        self.go_on(lanes, ready);
    }

    /// An event leaves one of its lanes, so others may go on.
    fn leave(self: &Arc<Self>, number: u64, lane: &Lane) {
        let mut lanes = self.lanes.lock();
        let ready = lanes.leave(number, lane);
        self.go_on(lanes, ready);
    }

    /// Lets events go on. The lanes are locked until all have, so that those of one sender are passed on in their order.
    fn go_on(self: &Arc<Self>, lanes: MutexGuard<'_, Lanes<Lane, Turn>>, ready: impl IntoIterator<Item = Ready<Turn>>) {
        let mut refused = Vec::new();
        for (number, turn) in ready {
            let shared = Arc::clone(self);
            match turn {
                Turn::Append(append) => {
                    self.tasks.spawn_on(async move { shared.store(number, *append).await }, self.storage.handle());
                }
                Turn::Value(mut event) => {
                    let (sender, delivered) = (Lane::Sender(event.sender()), event.delivered());
                    refused.extend(self.values.pass_on(*event).err());
                    let leave = async move {
                        // An error means that it was, or was refused.
                        delivered.await.ok();
                        shared.leave(number, &sender);
                    };
                    self.tasks.spawn_on(leave, self.storage.handle());
                }
            }
        }
        drop(lanes);
        for event in refused {
            self.router.refuse_waiting(now(), *event);
        }
    }

    /// Stores an event, and lets those go on that waited for it.
    async fn store(self: Arc<Self>, number: u64, mut append: Append) {
        let (sender, lanes) = (Lane::Sender(append.sender()), lanes_of(&append));
        let delivered = append.delivered();
        let outcome = self.appender.append(&append).await;
        let value = match outcome.as_deref() {
            Ok([place, ..]) if append.has_value() => self.put_value(&append, place).await,
            Ok(_) | Err(_) => ValueOutcome::Nothing,
        };
        self.router.appended(now(), append, outcome, value);
        for lane in lanes.iter().filter(|lane| **lane != sender) {
            self.leave(number, lane);
        }
        // The sender's next event, in another log, must not be delivered before this one. An error means that it was.
        delivered.await.ok();
        self.leave(number, &sender);
    }

    /// Puts the value of an event that is in its log. Until then, none of this node follows it in the log.
    async fn put_value(&self, append: &Append, place: &Appended) -> ValueOutcome {
        let until = Instant::from_std(append.at()) + self.storage.wait();
        let value = match place.is_duplicate {
            true => self.value_of_first(append, &place.position, until).await,
            false => Ok(append.value(&place.position)),
        };
        let outcome = match &value {
            Ok(Some(value)) => self.bucket.put_logged(value, place.is_duplicate, until).await,
            Ok(None) => return ValueOutcome::Nothing,
            Err(_) => Err(StorageError::Unavailable("the first event with its id cannot be read".to_owned())),
        };
        match (outcome, value) {
            (Ok(Some(revision)), Ok(Some(first))) if place.is_duplicate => {
                ValueOutcome::Again(Box::new(first), revision)
            }
            (Ok(Some(revision)), _) => ValueOutcome::Put(revision),
            (Ok(None), _) => ValueOutcome::Superseded,
            (Err(error), _) => {
                tracing::debug!(%error, "the retained value of an event in a log cannot be put into JetStream");
                ValueOutcome::Failed(unkept(&error))
            }
        }
    }

    /// The value of an earlier event with the id of this one. It is put again, because the node that has put the event into the
    /// log may have been lost before it could put the value.
    async fn value_of_first(
        &self,
        append: &Append,
        position: &Position,
        until: Instant,
    ) -> Result<Option<LoggedValue>, stored::Unread> {
        let Some(log) = append.logs().first() else { return Ok(None) };
        let (offsets, epoch) = (position.offset..=position.offset, Arc::clone(&position.epoch));
        let range = stored::ReadRange { log: log.clone(), epoch, offsets, backwards: false };
        match self.entries(&range, until).await {
            Ok(found) => Ok(found.first().and_then(|it| self.router.value_of_first(append, position, &it.entry))),
            // It is no longer kept.
            Err(stored::Unread::Gone) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn take_reads(self: Arc<Self>, reads: &ReadQueue) {
        loop {
            match reads.receive(LOOK_EVERY) {
                Ok(read) => {
                    let shared = Arc::clone(&self);
                    self.tasks.spawn_on(async move { shared.read(read).await }, self.storage.handle());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Reads, and everything that follows for the same purpose.
    async fn read(&self, read: DiskRead) {
        let until = Instant::now() + self.storage.wait();
        // It is never closed.
        let Ok(_turn) = self.reads.acquire().await else { return };
        let mut next = Some(read);
        while let Some(read) = next.take().filter(|read| !read.is_abandoned()) {
            next = match read.kind() {
                ReadKind::Ends => {
                    let ends = self.ends(&read.range().log, until).await;
                    self.router.take_ends(now(), read, ends.map_err(|error| fault(&error)));
                    None
                }
                ReadKind::Missing => {
                    let found = self.entries(read.range(), until).await;
                    self.router.take_missing(now(), read, found)
                }
                ReadKind::Entries => {
                    let found = self.entries(read.range(), until).await;
                    let found = found.map(|all| all.into_iter().map(|it| (it.offset, it.entry)).collect());
                    self.router.take_read(read, found)
                }
            };
        }
    }

    async fn ends(&self, log: &LogName, until: Instant) -> Result<crate::router::Ends, StorageError> {
        loop {
            match self.reader.logs.ends(log).await {
                Err(error) if Instant::now() + AGAIN < until => {
                    tracing::debug!(%log, %error, "where a log is cannot be read yet");
                    sleep_until(Instant::now() + AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn entries(
        &self,
        range: &stored::ReadRange,
        until: Instant,
    ) -> Result<Vec<crate::router::MissingEntry>, stored::Unread> {
        loop {
            match self.reader.read(range).await {
                Ok(entries) => return Ok(entries),
                Err(Unread::Gone) => return Err(stored::Unread::Gone),
                Err(Unread::Storage(error)) if Instant::now() + AGAIN < until => {
                    tracing::debug!(log = %range.log, %error, "events cannot be read yet");
                    sleep_until(Instant::now() + AGAIN).await;
                }
                Err(Unread::Storage(error)) => return Err(fault(&error)),
            }
        }
    }
}

/// An event waits behind those of its sender, and of its logs.
fn lanes_of(append: &Append) -> Vec<Lane> {
    let logs = append.logs().iter().cloned().map(Lane::Log);
    std::iter::once(Lane::Sender(append.sender())).chain(logs).collect()
}

/// What the sender of an event is told that is in its log, and whose value the bucket may not have.
fn unkept(error: &StorageError) -> Refusal {
    match error {
        StorageError::TooLarge => Refusal::new(
            ErrorCode::TooLarge,
            "the event was delivered, and is not kept as a retained value: that has to fit max_payload of the NATS servers",
        ),
        StorageError::Conflict | StorageError::Unavailable(_) => Refusal::new(
            ErrorCode::StorageUnavailable,
            "the event was delivered, but the storage of the cluster has not confirmed in time that it is kept as the retained \
             value; send it again later",
        ),
    }
}

fn fault(error: &StorageError) -> stored::Unread {
    stored::Unread::Fault(StoreError::Unusable(error.to_string()))
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
