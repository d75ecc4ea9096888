//! [`Directory`]: the embedded credential store, one redb file in which every record is encrypted.
//!
//! Start at [`Directory::open`]. The broker only reads; `switchboard credentials` writes, even while a broker runs.
//! Both open the file in redb's multi-writer mode, in which each read sees the last commit of any process. A socket of
//! the broker would be one more way in to guard, and opening the file for each fetch would make agents wait for the
//! administrator. Everything here may block.
//!
//! redb keeps old bytes in freed pages until it uses the pages again. So the file is rewritten after a record was replaced or
//! removed (`erase`), and when the store gets a new key (`rekey`).

mod erase;
mod import;
mod record;
mod rekey;
mod settings;
mod trial;

pub use erase::OldRecords;
pub use import::{Change, Delimiter, Import, RowMessage, has_blank_end, read as read_import};
pub use record::{Entry, FieldFault, PASSWORD_BYTES_MAX};
pub use rekey::Rekeyed;
pub use settings::Settings;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::credentials::source::{Credentials, Found, Source, internal};
use crate::expiring::Expiring;
use crate::store::{Cipher, Database, KEY_CHECK, Replaced, StoreError, exists, lock_changes, make_folder};

use wire::{ErrorCode, Refusal};

/// What the file is called in errors.
const WHAT: &str = "the credential store";

/// Keyed hash of the user -> encrypted record.
const ROWS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("rows");

/// What does not belong to a user: the key check.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The name of the store, from which its keys are derived.
const STORE: &str = "credentials";

/// The lock on making and changing the store.
const LOCK: &str = "credentials.lock";

/// How long a user that was not found is not logged again.
const NOTED_FOR: Duration = Duration::from_mins(1);

/// How many such users are remembered.
const NOTED_MAX: usize = 1000;

/// The row of a user and its encrypted record.
type Row = ([u8; 32], Vec<u8>);

/// Why the store cannot be used: the path, what is wrong with it, and what to do. Holds no secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DirectoryError(String);

impl DirectoryError {
    fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    fn file(path: &Path, what: &str, cause: &dyn fmt::Display) -> Self {
        Self(format!("{}: {what}: {cause}", path.display()))
    }

    fn damaged(words: &str) -> Self {
        Self(format!("{words}; put a backup in its place, or move it away and import the credentials anew"))
    }
}

impl From<StoreError> for DirectoryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(words) => Self::damaged(&words),
            StoreError::Unusable(words) => Self(words),
        }
    }
}

/// The open store. A fetch is one look-up and one decryption.
pub struct Directory {
    data_dir: PathBuf,
    path: PathBuf,
    is_new: bool,
    database: Mutex<Arc<Database>>,
    cipher: Cipher,
    /// The users that were not found lately.
    not_found: Mutex<Expiring<String, ()>>,
    /// Look-ups that failed.
    failures: AtomicU64,
    /// The key check when the store was opened. If it changes, the store has been given another key.
    key_check: Vec<u8>,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Directory {
    /// Opens the store. If there is none, makes the folder, the key and an empty store. Never replaces any of them.
    ///
    /// # Errors
    /// The folder cannot be written; the key is missing, unreadable or wrong; the file is damaged.
    pub fn open(settings: &Settings) -> Result<Self, DirectoryError> {
        let path = settings.store();
        make_folder(&settings.data_dir)?;
        let mut is_new = false;
        if !exists(&path)? {
            let _lock = lock_changes(&settings.data_dir.join(LOCK))?;
            if !exists(&path)? {
                let key_check = Cipher::new(&settings.key_or_new()?, STORE).key_check()?;
                write_file(&path, &key_check, &[])?;
                is_new = true;
            }
        }
        Ok(Self { is_new, ..Self::open_store(settings, path)? })
    }

    /// Opens the store if there is one, and makes nothing.
    ///
    /// # Errors
    /// Those of [`Directory::open`].
    pub fn open_existing(settings: &Settings) -> Result<Option<Self>, DirectoryError> {
        let path = settings.store();
        if exists(&path)? { Self::open_store(settings, path).map(Some) } else { Ok(None) }
    }

    fn open_store(settings: &Settings, path: PathBuf) -> Result<Self, DirectoryError> {
        // A process that replaces the file overwrites the old one, which must not be opened then.
        let _lock = lock_changes(&settings.data_dir.join(LOCK))?;
        let key_check = inspect(&path)?;
        let mut cipher = Cipher::new(&settings.key_of(&path)?, STORE);
        if !cipher.fits(&key_check) {
            cipher = rekey::finish(settings, &key_check)?.ok_or_else(|| settings.wrong_key(&path))?;
        }
        let database = Mutex::new(Arc::new(Database::open(&path, WHAT)?));
        let not_found = Mutex::new(Expiring::new(NOTED_MAX));
        let data_dir = settings.data_dir.clone();
        let failures = AtomicU64::new(0);
        Ok(Self { data_dir, path, is_new: false, database, cipher, not_found, failures, key_check })
    }

    /// Returns whether opening it made the store.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns how many look-ups of [`Source::find`] have failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The credentials of a user.
    ///
    /// # Errors
    /// The file cannot be read, or the record was altered.
    pub fn get(&self, user: &str) -> Result<Option<Credentials>, DirectoryError> {
        let row = self.cipher.row_of(user);
        self.read(|database| {
            let sealed = database.read(|transaction| {
                Ok(transaction.open_table(ROWS)?.get(&row)?.map(|sealed| sealed.value().to_vec()))
            })?;
            sealed.map(|sealed| self.unseal(&row, &sealed).map(|entry| entry.credentials)).transpose()
        })
    }

    /// Every entry, ordered by user.
    ///
    /// # Errors
    /// The file cannot be read, or a record was altered.
    pub fn list(&self) -> Result<Vec<Entry>, DirectoryError> {
        let mut entries: Vec<_> = self.read(|database| {
            rows(database)?.iter().map(|(row, sealed)| self.unseal(row, sealed)).collect::<Result<_, _>>()
        })?;
        entries.sort_by(|a, b| a.user.cmp(&b.user));
        Ok(entries)
    }

    /// Decrypts every record once, and returns how many there are.
    ///
    /// # Errors
    /// Those of [`Directory::list`].
    pub fn check(&self) -> Result<usize, DirectoryError> {
        self.list().map(|entries| entries.len())
    }

    /// Stores all entries or, on an error, none. Returns how many replaced an older one.
    ///
    /// # Errors
    /// The file cannot be written, or another process has been writing to it for too long.
    pub fn set(&self, entries: &[Entry]) -> Result<usize, DirectoryError> {
        let mut sealed = Vec::with_capacity(entries.len());
        for entry in entries {
            let row = self.cipher.row_of(&entry.user);
            sealed.push((row, self.cipher.seal(&row, entry.encode())?));
        }
        self.write(|transaction| {
            let mut table = transaction.open_table(ROWS)?;
            let mut replaced = 0;
            for (row, sealed) in &sealed {
                replaced += usize::from(table.insert(row, sealed.as_slice())?.is_some());
            }
            if replaced > 0 {
                erase::note_old_records(transaction)?;
            }
            Ok(Ok(replaced))
        })
    }

    /// Removes a user's entry; returns `false` if there was none.
    ///
    /// # Errors
    /// Those of [`Directory::set`].
    pub fn remove(&self, user: &str) -> Result<bool, DirectoryError> {
        let row = self.cipher.row_of(user);
        self.write(|transaction| {
            let removed = transaction.open_table(ROWS)?.remove(&row)?.is_some();
            if removed {
                erase::note_old_records(transaction)?;
            }
            Ok(Ok(removed))
        })
    }

    /// Logs where a user was looked for, at most once a minute for each user.
    fn note_not_found(&self, now: Instant, user: &str) {
        let mut noted = self.not_found.lock();
        if noted.get(now, user).is_none() {
            noted.insert(now, user.to_owned(), (), NOTED_FOR);
            tracing::info!(
                user,
                store = %self.path.display(),
                "no credentials are stored for this user; 'switchboard credentials list' with --data-dir or --config \
                 shows the users of this store; names are compared byte for byte"
            );
        }
    }

    fn unseal(&self, row: &[u8; 32], sealed: &[u8]) -> Result<Entry, DirectoryError> {
        unseal(&self.cipher, &self.path, row, sealed)
    }

    /// Reads, and reads again if another process replaced the file meanwhile, which overwrites the old one.
    fn read<T>(&self, work: impl Fn(&Database) -> Result<T, DirectoryError>) -> Result<T, DirectoryError> {
        let database = Arc::clone(&self.database.lock());
        match work(&database) {
            Err(_) if database.is_replaced() => {
                let _lock = lock_changes(&self.data_dir.join(LOCK))?;
                work(&*self.latest()?)
            }
            outcome => outcome,
        }
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Result<T, DirectoryError>, redb::Error>,
    ) -> Result<T, DirectoryError> {
        let _lock = lock_changes(&self.data_dir.join(LOCK))?;
        self.latest()?.write(|transaction| {
            // A record that is encrypted with a replaced key could never be decrypted again.
            let check = transaction.open_table(META)?.get(KEY_CHECK)?.map(|check| check.value().to_vec());
            if check.as_ref() != Some(&self.key_check) {
                return Ok(Err(DirectoryError::new(format!(
                    "{}: the credential store was given another key meanwhile; nothing was changed; try again",
                    self.path.display()
                ))));
            }
            work(transaction)
        })?
    }

    /// The file that the path leads to. Under the lock on changes it stays that.
    fn latest(&self) -> Result<Arc<Database>, DirectoryError> {
        let database = Arc::clone(&self.database.lock());
        if database.is_replaced() { self.reopened() } else { Ok(database) }
    }

    fn reopened(&self) -> Result<Arc<Database>, DirectoryError> {
        let database = Arc::new(Database::open(&self.path, WHAT)?);
        *self.database.lock() = Arc::clone(&database);
        Ok(database)
    }
}

impl Source for Directory {
    fn find(self: Arc<Self>, user: String) -> Found {
        Box::pin(async move {
            // A look-up takes tens of microseconds, but may wait for the disk or for a writer in another process.
            let now = tokio::time::Instant::now().into_std();
            tokio::task::spawn_blocking(move || found(now, &self, &user)).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a look-up of credentials did not complete");
                Err(internal())
            })
        })
    }
}

fn found(now: Instant, directory: &Directory, user: &str) -> Result<Credentials, Refusal> {
    match directory.get(user) {
        Ok(Some(credentials)) => Ok(credentials),
        Ok(None) => {
            directory.note_not_found(now, user);
            Err(Refusal::new(
                ErrorCode::CredentialsNotFound,
                format!(
                    "no credentials are stored for the user '{user}'; an administrator stores them with 'switchboard \
                     credentials set USER --username NAME --extension EXT', in the store that the broker's log names"
                ),
            ))
        }
        Err(error) => {
            directory.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "the credential store failed");
            Err(internal())
        }
    }
}

/// Decrypts the record of a row.
fn unseal(cipher: &Cipher, store: &Path, row: &[u8; 32], sealed: &[u8]) -> Result<Entry, DirectoryError> {
    let entry = cipher.open(row, sealed).and_then(|plain| Entry::decode(&plain));
    entry.filter(|entry| cipher.row_of(&entry.user) == *row).ok_or_else(|| {
        DirectoryError::damaged(&format!(
            "{}: {WHAT} is damaged: a record was altered or moved; nothing was changed",
            store.display()
        ))
    })
}

/// Checks the file, and returns its key check.
fn inspect(path: &Path) -> Result<Vec<u8>, DirectoryError> {
    Ok(Database::inspect(path, WHAT, |transaction| {
        transaction.open_table(ROWS)?;
        key_check(transaction)
    })?)
}

fn key_check(transaction: &ReadTransaction) -> Result<Vec<u8>, redb::Error> {
    let key_check = transaction.open_table(META)?.get(KEY_CHECK)?.map(|sealed| sealed.value().to_vec());
    key_check.ok_or_else(|| redb::Error::Corrupted("the key check is missing".to_owned()))
}

fn rows(database: &Database) -> Result<Vec<Row>, DirectoryError> {
    Ok(database.read(read_rows)?)
}

fn read_rows(transaction: &ReadTransaction) -> Result<Vec<Row>, redb::Error> {
    let mut rows = Vec::new();
    for row in transaction.open_table(ROWS)?.iter()? {
        let (row, sealed) = row?;
        rows.push((*row.value(), sealed.value().to_vec()));
    }
    Ok(rows)
}

/// Writes a store that has these records and nothing else. Returns the file that it replaces.
fn write_file(path: &Path, key_check: &[u8], rows: &[Row]) -> Result<Option<Replaced>, DirectoryError> {
    Ok(Database::create(path, WHAT, |transaction| {
        transaction.open_table(META)?.insert(KEY_CHECK, key_check)?;
        erase::note_no_old_records(transaction)?;
        let mut table = transaction.open_table(ROWS)?;
        for (row, sealed) in rows {
            table.insert(row, sealed.as_slice())?;
        }
        Ok(())
    })?)
}
