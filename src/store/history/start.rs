//! [`HistoryFile::open`]: opens a history at the start of a broker, which checks all of it.
//!
//! Every record is opened once: what the check reads is what the broker takes over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ConcurrencyMode, ReadTransaction, ReadableDatabase, StorageBackend};

use super::disk::{CACHE_BYTES, Disk, FileDisk, Overlay};
use super::header::FLAGS_AT;
use super::open::OpenFile;
use super::record::{Entry, Known, LogName, Place, Retained};
use super::reseal::{next_key, take_back};
use super::tables::{ENTRIES, Item, KNOWN, LOGS, META, RETAINED, STORE, Seal, key_check, read_all};
use super::{FILE, HistoryFile, HistoryLimits, LogState, WHAT, check, cost};
use crate::store::database::Name;
use crate::store::{
    Cipher, Database, FolderLock, KEY_CHECK, Key, KeySource, Replaced, StoreError, exists, make_folder, resolve,
    try_linked_file,
};

/// Where a history is, and its key.
#[derive(Clone, Debug)]
pub struct HistorySettings {
    /// The folder of the file.
    pub data_dir: PathBuf,
    /// Where the key is.
    pub key: KeySource,
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

/// What is needed of a file for changes.
#[derive(Default)]
struct Contents {
    logs: BTreeMap<LogName, LogState>,
    known: VecDeque<(u64, u64)>,
    /// The log whose entries follow.
    current: Option<LogName>,
}

impl Contents {
    fn add(&mut self, item: Item, visit: &mut dyn FnMut(Loaded)) {
        match &item {
            Item::Log(key, record) => {
                let (epoch, first, last, used) = (record.epoch.clone(), record.first, record.last, record.used);
                self.logs.insert(record.name.clone(), LogState { key: *key, epoch, first, last, used, bytes: 0 });
                self.current = Some(record.name.clone());
            }
            Item::Entry(_, sealed, _) => {
                if let Some(state) = self.current.as_ref().and_then(|name| self.logs.get_mut(name)) {
                    state.bytes += cost(*sealed);
                }
            }
            Item::Known(number, id) => self.known.push_back((*number, id.at)),
            Item::Retained(..) => {}
        }
        visit(item.into());
    }
}

impl From<Item> for Loaded {
    fn from(item: Item) -> Self {
        match item {
            Item::Log(_, record) => {
                Self::Log { name: record.name, epoch: record.epoch, last: record.last, used: record.used }
            }
            Item::Entry(offset, _, entry) => Self::Entry(offset, entry),
            Item::Known(_, id) => Self::Known(id),
            Item::Retained(place, value) => Self::Retained(place, value),
        }
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
        let path = resolve(&path);
        take_back(settings, &key)?;
        Self::open_on(Arc::new(FileDisk(path.clone())), path, &key, limits, visit)?.ok_or_else(|| settings.wrong_key())
    }

    /// Opens a history. `None`: it was made with another key.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        key: &Key,
        limits: HistoryLimits,
        visit: &mut dyn FnMut(Loaded),
    ) -> Result<Option<Self>, StoreError> {
        let name = Name { path, what: WHAT };
        let seal = Arc::new(Seal::new(Cipher::new(key, STORE)));
        let mut contents = Contents::default();
        let checked = check_all(&name, &*disk, &seal, &mut |item| contents.add(item, visit));
        let Some(flags) = checked? else { return Ok(None) };
        let database = name.guarded(|| {
            let backend = disk.open()?;
            if let Some(flags) = flags {
                backend.write(FLAGS_AT, &[flags])?;
                backend.sync_data()?;
            }
            Ok(shared_builder().set_cache_size(disk.cache_bytes()).create_with_backend(backend)?)
        });
        let bytes = contents.logs.values().map(|log| log.bytes).sum();
        Ok(Some(Self {
            name,
            disk,
            seal,
            limits,
            open: Arc::new(OpenFile::new(database.map_err(advise)?)),
            reopen_at: None,
            failed_bytes: 0,
            logs: contents.logs,
            bytes,
            known: contents.known,
            doubtful: Vec::new(),
            doubtful_logs: BTreeSet::new(),
            damaged: Vec::new(),
        }))
    }

    /// Checks whether the broker could use the history of a data folder, if there is one: reads the key, and opens every
    /// record of it. Changes nothing.
    ///
    /// # Errors
    /// Those of [`HistoryFile::open`].
    pub fn try_open(settings: &HistorySettings) -> Result<(), StoreError> {
        settings.try_key(&|name, disk, key| {
            let seal = Seal::new(Cipher::new(key, STORE));
            check_all(name, disk, &seal, &mut |_| {}).map(|found| found.is_some())
        })
    }

    /// Checks whether the history of a data folder, if there is one, has this key. [`HistoryFile::open`] checks the rest.
    /// Changes nothing.
    ///
    /// # Errors
    /// The key is missing or another one.
    pub fn try_key(settings: &HistorySettings) -> Result<(), StoreError> {
        settings.try_key(&|name, disk, key| {
            let has_key = name.guarded(|| {
                let database = builder().create_with_backend(Overlay::new(disk.open_to_read()?)?)?;
                Ok(Cipher::new(key, STORE).fits(&key_check(&database.begin_read()?)?))
            });
            // What else is wrong with the file is not the key's fault.
            Ok(has_key.unwrap_or(true))
        })
    }
}

impl HistorySettings {
    /// Checks whether the file has the key, or the new key of an interrupted `credentials rekey`, as `fits` says.
    fn try_key(&self, fits: &dyn Fn(&Name, &FileDisk, &Key) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        let path = self.file();
        let is_there = try_linked_file(&path)
            .map_err(|error| StoreError::file(&path, &format!("{WHAT} cannot be written"), &error))?;
        if !is_there {
            return Ok(());
        }
        let (name, disk) = (Name { path: path.clone(), what: WHAT }, FileDisk(path.clone()));
        if fits(&name, &disk, &self.key.read_for(&self.data_dir, WHAT, &path)?)? {
            return Ok(());
        }
        let has_next = next_key(self)?.map(|next| fits(&name, &disk, &next)).transpose()?;
        if has_next == Some(true) { Ok(()) } else { Err(self.wrong_key()) }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.data_dir.join(FILE)
    }

    pub(super) fn wrong_key(&self) -> StoreError {
        self.key.wrong_for(&self.data_dir, "this history", &self.file())
    }
}

/// Checks a whole file and every record in it, and hands over what it has, also if a fault is found later on. Returns the
/// flags that its header has to have if they are others; `None` if the file was made with another key.
#[expect(clippy::option_option, reason = "flags that may be right already, or another key")]
pub(super) fn check_all(
    name: &Name,
    disk: &dyn Disk,
    seal: &Seal,
    visit: &mut dyn FnMut(Item),
) -> Result<Option<Option<u8>>, StoreError> {
    let read = |transaction: &ReadTransaction, visit: &mut dyn FnMut(Item)| {
        let is_key_right = seal.cipher().fits(&key_check(transaction)?);
        if is_key_right {
            read_all(transaction, seal, visit)?;
        }
        Ok(is_key_right)
    };
    let checked = name.guarded(|| {
        check::check(disk, &|transaction| read(transaction, &mut |_| {}), &mut |transaction| read(transaction, visit))
    });
    let (is_key_right, flags) = checked.map_err(advise)?;
    Ok(is_key_right.then_some(flags))
}

/// Adds what to do about a damaged file.
pub(super) fn advise(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged(words) => StoreError::Damaged(format!(
            "{words}; 'switchboard history repair' keeps what is sound and gives a new epoch to each log that lost something"
        )),
        error @ StoreError::Unusable(_) => error,
    }
}

/// Writes a history with what `fill` adds. Replaces a file that is there, and returns it.
pub(super) fn create(
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

pub(super) fn builder() -> redb::Builder {
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens a file that other processes may read at the same time.
pub(super) fn shared_builder() -> redb::Builder {
    let mut builder = builder();
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}
