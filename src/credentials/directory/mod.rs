//! [`Directory`]: the embedded credential store, one redb file in which every record is encrypted (`cipher`).
//!
//! Start at [`Directory::open`]. The broker only reads; `switchboard credentials` writes, even while a broker runs.
//! Both open the file in redb's multi-writer mode, in which each read sees the last commit of any process. A socket of
//! the broker would be one more way in to guard, and opening the file for each fetch would make agents wait for the
//! administrator. Everything here may block.

mod cipher;
mod import;
mod record;
mod rekey;
mod settings;
mod trial;

pub use import::{Import, RowFault, read as read_import};
pub use record::{Entry, FieldFault};
pub use settings::{KEY_VARIABLE, KeySource, Settings};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use zeroize::Zeroizing;

use crate::credentials::source::{Credentials, Found, Source, internal};
use crate::store::{Database, StoreError, exists, lock_making, make_folder};

use cipher::Cipher;
use wire::{ErrorCode, Refusal};

/// What the file is called in errors.
const WHAT: &str = "the credential store";

/// Keyed hash of the user -> encrypted record.
const ROWS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("rows");

/// What does not belong to a user: the key check.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The entry of [`META`] that only the right key decrypts.
const KEY_CHECK: &str = "key check";

/// Why the store cannot be used: the path, what is wrong with it, and what to do. Holds no secret.
#[derive(Debug, thiserror::Error)]
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
    path: PathBuf,
    database: Database,
    cipher: Cipher,
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
        if !exists(&path)? {
            let _making = lock_making(&settings.data_dir.join("credentials.lock"))?;
            if !exists(&path)? {
                create(&path, &Cipher::new(&settings.key_or_new()?))?;
            }
        }
        Self::open_store(settings, path)
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
        let key = settings.key_of(&path)?;
        let key_check = Database::inspect(&path, WHAT, |transaction| {
            transaction.open_table(ROWS)?;
            let key_check = transaction.open_table(META)?.get(KEY_CHECK)?.map(|sealed| sealed.value().to_vec());
            key_check.ok_or_else(|| redb::Error::Corrupted("the key check is missing".to_owned()))
        })?;
        let mut cipher = Cipher::new(&key);
        if cipher.open(KEY_CHECK.as_bytes(), &key_check).is_none() {
            cipher = rekey::finish(settings, &key_check)?.ok_or_else(|| settings.wrong_key(&path))?;
        }
        let database = Database::open(&path, WHAT)?;
        Ok(Self { path, database, cipher, key_check })
    }

    /// The credentials of a user.
    ///
    /// # Errors
    /// The file cannot be read, or the record was altered.
    pub fn get(&self, user: &str) -> Result<Option<Credentials>, DirectoryError> {
        let row = self.cipher.row_of(user);
        let sealed = self
            .read(|transaction| Ok(transaction.open_table(ROWS)?.get(&row)?.map(|sealed| sealed.value().to_vec())))?;
        sealed.map(|sealed| self.unseal(&row, &sealed).map(|entry| entry.credentials)).transpose()
    }

    /// Every entry, ordered by user.
    ///
    /// # Errors
    /// The file cannot be read, or a record was altered.
    pub fn list(&self) -> Result<Vec<Entry>, DirectoryError> {
        let sealed = self.read(|transaction| {
            let table = transaction.open_table(ROWS)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (row, sealed) = row?;
                rows.push((*row.value(), sealed.value().to_vec()));
            }
            Ok(rows)
        })?;
        let mut entries: Vec<_> =
            sealed.iter().map(|(row, sealed)| self.unseal(row, sealed)).collect::<Result<_, _>>()?;
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
            Ok(Ok(replaced))
        })
    }

    /// Removes a user's entry; returns `false` if there was none.
    ///
    /// # Errors
    /// Those of [`Directory::set`].
    pub fn remove(&self, user: &str) -> Result<bool, DirectoryError> {
        let row = self.cipher.row_of(user);
        self.write(|transaction| Ok(Ok(transaction.open_table(ROWS)?.remove(&row)?.is_some())))
    }

    fn unseal(&self, row: &[u8; 32], sealed: &[u8]) -> Result<Entry, DirectoryError> {
        unseal(&self.cipher, &self.path, row, sealed)
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, DirectoryError> {
        Ok(self.database.read(work)?)
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Result<T, DirectoryError>, redb::Error>,
    ) -> Result<T, DirectoryError> {
        self.database.write(|transaction| {
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
}

impl Source for Directory {
    fn find(self: Arc<Self>, user: String) -> Found {
        Box::pin(async move {
            // A look-up takes tens of microseconds, but may wait for the disk or for a writer in another process.
            tokio::task::spawn_blocking(move || found(&self, &user)).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a look-up of credentials did not complete");
                Err(internal())
            })
        })
    }
}

fn found(directory: &Directory, user: &str) -> Result<Credentials, Refusal> {
    match directory.get(user) {
        Ok(Some(credentials)) => Ok(credentials),
        Ok(None) => Err(Refusal::new(
            ErrorCode::CredentialsNotFound,
            format!(
                "no credentials are stored for the user '{user}'; an administrator stores them with 'switchboard \
                 credentials set USER --username NAME --extension EXT'"
            ),
        )),
        Err(error) => {
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

/// Creates an empty store.
fn create(path: &Path, cipher: &Cipher) -> Result<(), DirectoryError> {
    let check = new_key_check(cipher)?;
    Ok(Database::create(path, WHAT, |transaction| {
        transaction.open_table(META)?.insert(KEY_CHECK, check.as_slice())?;
        transaction.open_table(ROWS)?;
        Ok(())
    })?)
}

fn new_key_check(cipher: &Cipher) -> Result<Vec<u8>, DirectoryError> {
    cipher.seal(KEY_CHECK.as_bytes(), Zeroizing::new(KEY_CHECK.as_bytes().to_vec()))
}
