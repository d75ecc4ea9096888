//! [`Directory`]: the embedded credential store, one redb file in which every record is sealed (`cipher`).
//!
//! Start at [`Directory::open`]. The broker only reads; `switchboard credentials` writes, also while a broker runs:
//! both have the file open in redb's multi-writer mode, in which each read begins at the last commit of any process.
//! A socket of the broker's would be a second way in to guard, and opening the file for each command would make an
//! agent's fetch wait for the administrator. Nothing here knows a session or a message, and all of it may block.

mod cipher;
mod files;
mod guard;
mod import;
mod record;
mod rekey;
mod settings;

pub use files::FolderLock;
pub(in crate::adapter) use files::{private, publish};
pub use import::{Import, RowFault, read as read_import};
pub use record::{Credentials, Entry, FieldFault};
pub use settings::{KEY_VARIABLE, KeySource, Settings};

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{
    ConcurrencyMode, Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TransactionError,
    WriteTransaction,
};
use zeroize::Zeroizing;

use cipher::Cipher;
use guard::{builder, check_file, guarded};
use settings::exists;

/// Keyed hash of the user -> sealed record.
const ROWS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("rows");

/// What is not about a user: so far the key check.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The entry of [`META`] that only the right key opens.
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

    fn damaged(path: &Path, cause: &dyn fmt::Display) -> Self {
        Self(format!(
            "{}: the credential store is damaged: {cause}; nothing was changed; put a backup in its place, or move it \
             away and import the credentials anew",
            path.display()
        ))
    }
}

/// The open store. Cheap to ask: a fetch is one look-up and one record opened.
pub struct Directory {
    path: PathBuf,
    database: Database,
    cipher: Cipher,
    /// As it was at opening: another one means that the store was given another key.
    key_check: Vec<u8>,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Directory {
    /// Opens the store; where there is none, makes the folder, the key and an empty store. Never replaces any of them.
    ///
    /// # Errors
    /// The folder cannot be written, the key is missing, unreadable or another one, the file is damaged.
    pub fn open(settings: &Settings) -> Result<Self, DirectoryError> {
        let path = settings.store();
        files::make_folder(&settings.data_dir)?;
        if !exists(&path)? {
            let _making = files::lock_making(&settings.data_dir.join("credentials.lock"))?;
            if !exists(&path)? {
                create(&path, &Cipher::new(&settings.key_or_new()?))?;
            }
        }
        Self::open_store(settings, path)
    }

    /// Opens the store where there is one, and makes nothing.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn open_existing(settings: &Settings) -> Result<Option<Self>, DirectoryError> {
        let path = settings.store();
        if exists(&path)? { Self::open_store(settings, path).map(Some) } else { Ok(None) }
    }

    fn open_store(settings: &Settings, path: PathBuf) -> Result<Self, DirectoryError> {
        let Some(key) = settings.key()? else {
            return Err(DirectoryError::new(format!(
                "{}: the key file is missing, though the credential store {} exists; put the key back from its backup: \
                 no new key can open this store",
                settings.describe_key(),
                path.display()
            )));
        };
        let key_check = check_file(&path)?;
        let mut cipher = Cipher::new(&key);
        if cipher.open(KEY_CHECK.as_bytes(), &key_check).is_none() {
            cipher = rekey::finish(settings, &key_check)?.ok_or_else(|| {
                DirectoryError::new(format!(
                    "{}: the key of {} is not the one that this credential store was made with; put the right key back",
                    path.display(),
                    settings.describe_key()
                ))
            })?;
        }
        let database = guarded(&path, || {
            builder().set_concurrency_mode(ConcurrencyMode::MultiWriter).open(&path).map_err(redb::Error::from)
        })?;
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

    /// Every entry, in the order of users' names.
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

    /// Opens every record once, as the broker does at its start; returns how many there are.
    ///
    /// # Errors
    /// As [`Directory::list`].
    pub fn check(&self) -> Result<usize, DirectoryError> {
        self.list().map(|entries| entries.len())
    }

    /// Stores entries, all of them or, on an error, none. Returns how many replaced an older one.
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
            Ok(replaced)
        })
    }

    /// Removes a user's entry; `false` where there was none.
    ///
    /// # Errors
    /// As [`Directory::set`].
    pub fn remove(&self, user: &str) -> Result<bool, DirectoryError> {
        let row = self.cipher.row_of(user);
        self.write(|transaction| Ok(transaction.open_table(ROWS)?.remove(&row)?.is_some()))
    }

    fn unseal(&self, row: &[u8; 32], sealed: &[u8]) -> Result<Entry, DirectoryError> {
        self.cipher
            .open(row, sealed)
            .and_then(|plain| Entry::decode(&plain))
            .filter(|entry| self.cipher.row_of(&entry.user) == *row)
            .ok_or_else(|| DirectoryError::damaged(&self.path, &"a record was altered or moved"))
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, DirectoryError> {
        guarded(&self.path, || work(&self.database.begin_read()?))
    }

    fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, DirectoryError> {
        let mut waited = Duration::ZERO;
        let transaction = loop {
            match guarded(&self.path, || match self.database.try_begin_write() {
                Ok(transaction) => Ok(Some(transaction)),
                Err(TransactionError::WouldBlock) => Ok(None),
                Err(error) => Err(error.into()),
            })? {
                Some(transaction) => break transaction,
                None if waited >= files::WAIT => {
                    return Err(DirectoryError::new(format!(
                        "{}: another process has been writing to the credential store for {} seconds; nothing was \
                         changed; try again when it has ended",
                        self.path.display(),
                        files::WAIT.as_secs()
                    )));
                }
                None => {
                    std::thread::sleep(files::LOOK_AGAIN);
                    waited += files::LOOK_AGAIN;
                }
            }
        };
        guarded(&self.path, || {
            // A record sealed with a key that was replaced meanwhile could never be opened again.
            let check = transaction.open_table(META)?.get(KEY_CHECK)?.map(|check| check.value().to_vec());
            if check.as_ref() != Some(&self.key_check) {
                return Ok(None);
            }
            let outcome = work(&transaction)?;
            transaction.commit()?;
            Ok(Some(outcome))
        })?
        .ok_or_else(|| {
            DirectoryError::new(format!(
                "{}: the credential store was given another key meanwhile; nothing was changed; try again",
                self.path.display()
            ))
        })
    }
}

/// Makes an empty store under another name and gives it its own only when it is whole: an empty file of that name is
/// therefore always a damaged one.
fn create(path: &Path, cipher: &Cipher) -> Result<(), DirectoryError> {
    let making = path.with_extension("redb.new");
    let cannot = |error: std::io::Error| DirectoryError::file(&making, "the credential store cannot be made", &error);
    match fs::remove_file(&making) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot(error)),
        Ok(()) | Err(_) => {}
    }
    files::create_new(&making, b"").map_err(cannot)?;
    let check = new_key_check(cipher)?;
    guarded(&making, || {
        let database = builder().create(&making)?;
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert(KEY_CHECK, check.as_slice())?;
        transaction.open_table(ROWS)?;
        transaction.commit()?;
        Ok(database.close()?)
    })?;
    publish(&making, path).map_err(cannot)
}

fn new_key_check(cipher: &Cipher) -> Result<Vec<u8>, DirectoryError> {
    cipher.seal(KEY_CHECK.as_bytes(), Zeroizing::new(KEY_CHECK.as_bytes().to_vec()))
}
