//! [`HistoryFile`]: the logs of durable channels, the ids of their events with `once`, and durable retained values, in one
//! redb file.
//!
//! Every record is sealed whole. A log's record, with its name, epoch, and first and last offset, is written in the same
//! transaction as its entries. A batch of changes is one transaction, which is on disk when [`HistoryFile::apply`] returns.
//! Everything here may block.
//!
//! Start at [`HistoryFile::open`] in `start`. `check` looks at the whole file before redb may write to it, `tables` says what it
//! has, `change` is what can be done to it, `draft` makes a batch of a transaction, `expired` finds what is too old, `open` is
//! the file while it is open, which `read` reads beside the thread that writes, `reopen` continues after a fault of the disk,
//! `probe` shows that it is over, `repair` saves what is sound, and `reseal` gives the file another key.

mod change;
mod check;
mod disk;
mod draft;
mod expired;
#[cfg(test)]
mod faulty;
mod header;
mod look;
mod open;
mod probe;
mod read;
mod record;
mod reopen;
mod repair;
mod reseal;
mod set_aside;
mod start;
mod tables;
#[cfg(test)]
mod tests;

pub use change::{Applied, Change};
pub(crate) use expired::REMEMBERED;
#[cfg(test)]
pub(crate) use faulty::FaultyDisk;
pub use look::{LogLine, Look};
pub use open::Pin;
pub use read::{HistoryReader, ReadRange, Unread};
pub use record::{Entry, Known, LogName, Place, Retained};
pub(crate) use record::{millis, time_of};
pub use repair::{Repaired, repair};
pub(crate) use reseal::{reseal, take_back};
pub use set_aside::{Kept, set_aside};
pub use start::{HistorySettings, Loaded};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StoreError;
use super::database::Name;
use disk::Disk;
use draft::Draft;
use open::OpenFile;
use tables::{LogKey, PlaceKey, Seal};

/// What the file is called in errors.
const WHAT: &str = "the history";

/// The file in the data folder.
const FILE: &str = "history.redb";

/// How long after a fault the file is opened again at the earliest.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// What an entry uses of the disk besides its sealed record, in bytes: its place in the tree.
const ENTRY_BYTES: u64 = 96;

/// How much room an entry takes up for its bytes: pages are half full after they were divided, a long entry has a page of a
/// power of two, and what was replaced stays until it is used again. Measured: 1.4 (3 KB an entry) to 2.4 (300 bytes).
const ROOM: u64 = 2;

/// What the file may hold.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    /// The disk of all logs, in bytes.
    pub disk_bytes: u64,
    /// How long an `id` of an event with `once` is known.
    pub retry: Duration,
    /// How many of them are known.
    pub ids: usize,
}

/// What is known of a log whose last commit is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LogState {
    key: LogKey,
    epoch: Box<str>,
    first: u64,
    last: u64,
    used: u64,
    /// The disk that its entries use.
    bytes: u64,
}

/// An open history.
pub struct HistoryFile {
    name: Name,
    disk: Arc<dyn Disk>,
    seal: Arc<Seal>,
    limits: HistoryLimits,
    open: Arc<OpenFile>,
    /// When it may be opened again.
    reopen_at: Option<Instant>,
    /// The bytes of the batch that failed last.
    failed_bytes: usize,
    logs: BTreeMap<LogName, LogState>,
    /// The disk that all entries use.
    bytes: u64,
    /// The number and time of each known id.
    known: VecDeque<(u64, u64)>,
    /// Retained values that a failed batch may have changed, and what was there before.
    doubtful: Vec<(PlaceKey, Option<Vec<u8>>)>,
    /// The logs that a failed batch may have changed.
    doubtful_logs: BTreeSet<LogName>,
    /// The logs that were found damaged since the last batch, and the offset of the first entry that is left.
    damaged: Vec<(LogName, u64)>,
}

impl fmt::Debug for HistoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryFile").field("path", &self.name.path).finish_non_exhaustive()
    }
}

impl HistoryFile {
    /// Makes changes. When this returns they are on disk. `wall` is the time in milliseconds since 1970.
    ///
    /// # Errors
    /// The file cannot be written. None of the changes was made, and none appears later, unless the process ends before the
    /// next batch.
    pub fn apply(&mut self, now: Instant, wall: u64, changes: &[Change]) -> Result<Applied, StoreError> {
        self.apply_if(now, wall, changes, || true)
    }

    /// The same for changes that somebody else can give up while they are written, because that takes too long. `are_wanted`
    /// is called when they are on disk. If it returns `false`, they count as not made, and the next batch removes them.
    ///
    /// # Errors
    /// Those of [`HistoryFile::apply`], or the changes were given up.
    pub fn apply_if(
        &mut self,
        now: Instant,
        wall: u64,
        changes: &[Change],
        are_wanted: impl FnOnce() -> bool,
    ) -> Result<Applied, StoreError> {
        self.reopen(now)?;
        let mut draft = Draft::new(self, wall);
        let outcome = self.name.guarded(|| {
            let database = self.open.database();
            let Some(database) = &*database else { return Err(redb::Error::PreviousIo) };
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            draft.write(&transaction, changes)?;
            Ok(transaction.commit()?)
        });
        let finished = draft.finish();
        let outcome = outcome.and_then(|()| if are_wanted() { Ok(()) } else { Err(given_up(&self.name)) });
        match outcome {
            Ok(()) => Ok(self.accept(finished)),
            Err(fault) => {
                self.doubtful.extend(finished.undo);
                self.doubtful_logs.extend(finished.logs.into_keys());
                self.failed_bytes = changes.iter().map(Change::bytes).sum();
                self.close_until(now + REOPEN_AFTER);
                Err(fault)
            }
        }
    }

    /// Closes the file after a fault. It may be opened again from this moment on.
    fn close_until(&mut self, reopen_at: Instant) {
        self.open.close();
        self.reopen_at = Some(reopen_at);
    }

    /// Takes a draft over whose transaction is on disk.
    fn accept(&mut self, finished: draft::Finished) -> Applied {
        for (name, state) in finished.logs {
            self.bytes -= self.logs.get(&name).map_or(0, |old| old.bytes);
            match state {
                Some(state) => {
                    self.bytes += state.bytes;
                    self.logs.insert(name, state);
                }
                None => {
                    self.logs.remove(&name);
                }
            }
        }
        self.known.drain(..finished.known_gone.min(self.known.len()));
        self.known.extend(finished.known_added);
        Applied { damaged: std::mem::take(&mut self.damaged), ..finished.applied }
    }

    /// The epoch of a log that is on disk.
    pub fn epoch(&self, log: &LogName) -> Option<&str> {
        self.logs.get(log).map(|log| &*log.epoch)
    }

    /// Changes the limits.
    pub fn set_limits(&mut self, limits: HistoryLimits) {
        self.limits = limits;
    }

    /// The disk that all entries use, in bytes, as `disk_bytes` counts it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn unavailable(name: &Name) -> StoreError {
    StoreError::unusable(format!(
        "{}: {WHAT} cannot be used after a fault of the disk; it is opened again every second",
        name.path.display()
    ))
}

fn given_up(name: &Name) -> StoreError {
    StoreError::unusable(format!(
        "{}: the disk took longer than history.timeout to write to {WHAT}, so what was written is taken back",
        name.path.display()
    ))
}

/// The disk that an entry uses whose sealed record has this length.
fn cost(sealed: usize) -> u64 {
    (sealed as u64 + ENTRY_BYTES) * ROOM
}
