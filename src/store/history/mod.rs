//! [`HistoryFile`]: the logs of durable channels, the ids of their events with `once`, and durable retained values, in one
//! redb file.
//!
//! Every record is sealed whole. A log's record, with its name, epoch, and first and last offset, is written in the same
//! transaction as its entries. A batch of changes is one transaction, which is on disk when [`HistoryFile::apply`] returns.
//! Everything here may block.
//!
//! Start at [`HistoryFile::open`]. `check` looks at the whole file before redb may write to it, `tables` says what it has,
//! `draft` makes a batch of a transaction, `reopen` continues after a fault of the disk, `repair` saves what is sound, and
//! `reseal` gives the file another key.

mod check;
mod disk;
mod draft;
#[cfg(test)]
mod faulty;
mod header;
mod look;
mod open;
mod read;
mod record;
mod reopen;
mod repair;
mod reseal;
mod tables;
#[cfg(test)]
mod tests;

pub use look::{LogLine, Look};
pub use open::Pin;
pub use read::{HistoryReader, ReadRange, Unread};
pub use record::{Entry, Known, LogName, Place, Retained};
pub(crate) use record::{millis, time_of};
pub use repair::{Repaired, repair};
pub(crate) use reseal::{reseal, take_back};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{ConcurrencyMode, ReadableDatabase, StorageBackend};

use super::database::Name;
use super::{
    Cipher, Database, FolderLock, KEY_CHECK, Key, KeySource, Replaced, StoreError, exists, make_folder, try_linked_file,
};
use disk::{Disk, FileDisk};
use draft::Draft;
use header::FLAGS_AT;
use open::OpenFile;
use tables::{
    ENTRIES, Item, KNOWN, LOGS, LogKey, META, PlaceKey, RETAINED, STORE, Seal, entry_place, key_check, read_all,
};

/// What the file is called in errors.
const WHAT: &str = "the history";

/// The file in the data folder.
const FILE: &str = "history.redb";

/// The memory for pages of the file, in bytes. redb's own default is 1 GiB.
const CACHE_BYTES: usize = 8 << 20;

/// How long after a fault the file is opened again at the earliest.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// How long a log without entries is remembered at least.
const REMEMBERED: Duration = Duration::from_hours(1);

/// What an entry uses of the disk besides its sealed record, in bytes: its place in the tree.
const ENTRY_BYTES: u64 = 96;

/// How much room an entry takes up for its bytes: pages are half full after they were divided, a long entry has a page of a
/// power of two, and what was replaced stays until it is used again. Measured: 1.4 (3 KB an entry) to 2.4 (300 bytes).
const ROOM: u64 = 2;

/// Where a history is, and its key.
#[derive(Clone, Debug)]
pub struct HistorySettings {
    /// The folder of the file.
    pub data_dir: PathBuf,
    /// Where the key is.
    pub key: KeySource,
}

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

/// A change. Those of a batch are made in their order.
#[derive(Clone, Debug)]
pub enum Change {
    /// An event is added to its log, which begins if there is none with this epoch.
    Append {
        /// The log.
        log: LogName,
        /// Its epoch.
        epoch: Box<str>,
        /// The event's offset, which follows the last one.
        offset: u64,
        /// The event.
        entry: Entry,
        /// Its id, if it was sent with `once`.
        known: Option<Known>,
        /// The offset of the oldest entry that the log keeps.
        first: u64,
    },
    /// The entries before an offset are removed.
    Trim {
        /// The log.
        log: LogName,
        /// The offset of the oldest entry that the log keeps.
        first: u64,
    },
    /// A log is removed.
    Forget(LogName),
    /// A retained value is kept, in place of the one that was there.
    Keep(Place, Retained),
    /// A retained value is removed.
    Clear(Place),
}

/// What the bound of the disk cost.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The logs that were removed.
    pub removed: Vec<LogName>,
    /// The logs that lost their oldest entries, and the offset of the first that is left.
    pub trimmed: Vec<(LogName, u64)>,
}

/// What a file held when it was opened.
#[derive(Debug)]
pub enum Loaded {
    /// A log.
    Log {
        /// Its name.
        name: LogName,
        /// Its epoch.
        epoch: Box<str>,
        /// The last offset that was used.
        last: u64,
        /// When it was last appended to, in milliseconds since 1970.
        used: u64,
    },
    /// An entry of the last log, and its offset.
    Entry(u64, Entry),
    /// The id of an event that was sent with `once`, oldest first.
    Known(Known),
    /// A retained value.
    Retained(Place, Retained),
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
    logs: BTreeMap<LogName, LogState>,
    /// The disk that all entries use.
    bytes: u64,
    /// The number and time of each known id.
    known: VecDeque<(u64, u64)>,
    /// Retained values that a failed batch may have changed, and what was there before.
    doubtful: Vec<(PlaceKey, Option<Vec<u8>>)>,
    /// The logs that a failed batch may have changed.
    doubtful_logs: BTreeSet<LogName>,
}

impl fmt::Debug for HistoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryFile").field("path", &self.name.path).finish_non_exhaustive()
    }
}

impl HistoryFile {
    /// Opens the history of a data folder for the broker that holds the folder. If there is none, makes the key, if it is
    /// missing too, and an empty history. Hands over what the file has.
    ///
    /// # Errors
    /// The key is missing or another one; the file is damaged, empty or something else; it cannot be read or written. In
    /// none of these cases was it changed.
    pub fn open(
        settings: &HistorySettings,
        limits: HistoryLimits,
        _alone: &FolderLock,
        visit: &mut dyn FnMut(Loaded),
    ) -> Result<Self, StoreError> {
        let HistorySettings { data_dir, key } = settings;
        let path = settings.file();
        make_folder(data_dir)?;
        let key = if exists(&path)? {
            key.read_for(data_dir, WHAT, &path)?
        } else {
            let key = key.read_or_make(data_dir)?;
            let check = Cipher::new(&key, STORE).key_check()?;
            drop(create(&path, &check, |_| Ok(()))?);
            key
        };
        let path = super::resolve(&path);
        take_back(settings, &key)?;
        Self::open_on(Arc::new(FileDisk(path.clone())), path, &key, limits, visit)?.ok_or_else(|| settings.wrong_key())
    }

    /// Opens a history. `None`: it was made with another key.
    fn open_on(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        key: &Key,
        limits: HistoryLimits,
        visit: &mut dyn FnMut(Loaded),
    ) -> Result<Option<Self>, StoreError> {
        let name = Name { path, what: WHAT };
        let seal = Arc::new(Seal::new(Cipher::new(key, STORE)));
        let Some(flags) = check_all(&name, &*disk, &seal)? else { return Ok(None) };
        let database = name.guarded(|| {
            let backend = disk.open()?;
            if let Some(flags) = flags {
                backend.write(FLAGS_AT, &[flags])?;
                backend.sync_data()?;
            }
            Ok(shared_builder().create_with_backend(backend)?)
        });
        let mut history = Self {
            name,
            disk,
            seal,
            limits,
            open: Arc::new(OpenFile::new(database.map_err(advise)?)),
            reopen_at: None,
            logs: BTreeMap::new(),
            bytes: 0,
            known: VecDeque::new(),
            doubtful: Vec::new(),
            doubtful_logs: BTreeSet::new(),
        };
        history.load(visit).map_err(advise)?;
        Ok(Some(history))
    }

    /// Hands over what the file has, and notes what is needed for changes.
    fn load(&mut self, visit: &mut dyn FnMut(Loaded)) -> Result<(), StoreError> {
        let database = self.open.database();
        let Some(database) = &*database else { return Err(unavailable(&self.name)) };
        let (logs, known) = (&mut self.logs, &mut self.known);
        let mut current = None;
        self.name.guarded(|| {
            read_all(&database.begin_read()?, &self.seal, &mut |item| match item {
                Item::Log(key, record) => {
                    let (first, last, used) = (record.first, record.last, record.used);
                    let state = LogState { key, epoch: record.epoch.clone(), first, last, used, bytes: 0 };
                    logs.insert(record.name.clone(), state);
                    current = Some(record.name.clone());
                    visit(Loaded::Log { name: record.name, epoch: record.epoch, last, used });
                }
                Item::Entry(offset, sealed, entry) => {
                    if let Some(state) = current.as_ref().and_then(|name| logs.get_mut(name)) {
                        state.bytes += cost(sealed);
                    }
                    visit(Loaded::Entry(offset, entry));
                }
                Item::Known(number, id) => {
                    known.push_back((number, id.at));
                    visit(Loaded::Known(id));
                }
                Item::Retained(place, value) => visit(Loaded::Retained(place, value)),
            })
        })?;
        self.bytes = self.logs.values().map(|log| log.bytes).sum();
        Ok(())
    }

    /// Makes changes. When this returns they are on disk. `wall` is the time in milliseconds since 1970.
    ///
    /// # Errors
    /// The file cannot be written. None of the changes was made, and none appears later, unless the process ends before the
    /// next batch.
    pub fn apply(&mut self, now: Instant, wall: u64, changes: &[Change]) -> Result<Applied, StoreError> {
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
        match outcome {
            Ok(()) => Ok(self.accept(finished)),
            Err(fault) => {
                self.doubtful.extend(finished.undo);
                self.doubtful_logs.extend(finished.logs.into_keys());
                self.open.close();
                self.reopen_at = Some(now + REOPEN_AFTER);
                Err(fault)
            }
        }
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
        finished.applied
    }

    /// Checks whether the broker could use the history of a data folder, if there is one: reads the key, and opens every
    /// record of it. Changes nothing.
    ///
    /// # Errors
    /// Those of [`HistoryFile::open`].
    pub fn try_open(settings: &HistorySettings) -> Result<(), StoreError> {
        let HistorySettings { data_dir, key } = settings;
        let path = settings.file();
        let is_there = try_linked_file(&path)
            .map_err(|error| StoreError::file(&path, &format!("{WHAT} cannot be written"), &error))?;
        if !is_there {
            return Ok(());
        }
        let (name, disk) = (Name { path: path.clone(), what: WHAT }, FileDisk(path.clone()));
        let key_fits = |key: &Key| check_all(&name, &disk, &Seal::new(Cipher::new(key, STORE)));
        match key_fits(&key.read_for(data_dir, WHAT, &path)?)? {
            Some(_) => Ok(()),
            // The new key of an interrupted `credentials rekey`.
            None => match reseal::next_key(settings)?.map(|next| key_fits(&next)).transpose()?.flatten() {
                Some(_) => Ok(()),
                None => Err(settings.wrong_key()),
            },
        }
    }

    /// Says what is too old: entries older than the time that `ttl` gives for their log; logs that have been without entries
    /// for as long again, at least an hour; logs for which it gives none. `wall` is the time in milliseconds since 1970.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn expired(&self, wall: u64, ttl: &dyn Fn(&LogName) -> Option<Duration>) -> Result<Vec<Change>, StoreError> {
        let database = self.open.database();
        let Some(database) = &*database else { return Ok(Vec::new()) };
        self.name.guarded(|| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            let mut changes = Vec::new();
            for (name, log) in &self.logs {
                let Some(ttl) = ttl(name) else {
                    changes.push(Change::Forget(name.clone()));
                    continue;
                };
                let [ttl, remembered] =
                    [ttl, ttl.max(REMEMBERED)].map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
                let mut first = log.first;
                while first <= log.last {
                    let sealed = entries.get((&log.key, first))?;
                    let entry: Option<Entry> =
                        sealed.and_then(|sealed| self.seal.open(&entry_place(&log.key, first), sealed.value()));
                    if entry.is_some_and(|entry| entry.at.saturating_add(ttl) >= wall) {
                        break;
                    }
                    first += 1;
                }
                if first > log.last && log.used.saturating_add(ttl).saturating_add(remembered) < wall {
                    changes.push(Change::Forget(name.clone()));
                } else if first > log.first {
                    changes.push(Change::Trim { log: name.clone(), first });
                }
            }
            Ok(changes)
        })
    }

    /// The epoch of a log that is on disk.
    pub fn epoch(&self, log: &LogName) -> Option<&str> {
        self.logs.get(log).map(|log| &*log.epoch)
    }

    /// Whether the last batch failed, and none has been written since.
    pub fn has_failed(&self) -> bool {
        !self.open.is_open()
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

impl HistorySettings {
    fn file(&self) -> PathBuf {
        self.data_dir.join(FILE)
    }

    fn wrong_key(&self) -> StoreError {
        self.key.wrong_for(&self.data_dir, "this history", &self.file())
    }
}

/// Checks a whole file and every record in it. Returns the flags that its header has to have if they are others; `None` if
/// the file was made with another key.
#[expect(clippy::option_option, reason = "flags that may be right already, or another key")]
fn check_all(name: &Name, disk: &dyn Disk, seal: &Seal) -> Result<Option<Option<u8>>, StoreError> {
    let checked = name.guarded(|| {
        check::check(disk, &|transaction| {
            if !seal.cipher().fits(&key_check(transaction)?) {
                return Ok(false);
            }
            read_all(transaction, seal, &mut |_| {})?;
            Ok(true)
        })
    });
    let (is_key_right, flags) = checked.map_err(advise)?;
    Ok(is_key_right.then_some(flags))
}

/// Adds what to do about a damaged file.
fn advise(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged(words) => StoreError::Damaged(format!(
            "{words}; 'switchboard history repair' keeps what is sound and gives a new epoch to each log that lost something"
        )),
        error @ StoreError::Unusable(_) => error,
    }
}

/// Writes a history with what `fill` adds. Replaces a file that is there, and returns it.
fn create(
    path: &Path,
    check: &[u8],
    fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
) -> Result<Option<Replaced>, StoreError> {
    Database::create(path, WHAT, |transaction| {
        transaction.open_table(META)?.insert(KEY_CHECK, check)?;
        transaction.open_table(LOGS)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(KNOWN)?;
        transaction.open_table(RETAINED)?;
        fill(transaction)
    })
}

/// The disk that an entry uses whose sealed record has this length.
fn cost(sealed: usize) -> u64 {
    (sealed as u64 + ENTRY_BYTES) * ROOM
}

fn builder() -> redb::Builder {
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens a file that other processes may read at the same time.
fn shared_builder() -> redb::Builder {
    let mut builder = builder();
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}
