//! Gives the store a new key: every record is opened with the old one and sealed with the new one, in one transaction.
//!
//! Two files have to change, the store and the key. The new key is on the disk, beside the old one, before the store
//! needs it, and takes the old one's place afterwards; whoever opens a store in between finds it there.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use redb::ReadableTable;

use super::cipher::{Cipher, Key};
use super::{Directory, DirectoryError, KEY_CHECK, META, ROWS, Settings, new_key_check};
use crate::store::{FolderLock, beside, exists, publish};

/// What the name of a new key ends in, while it waits beside the old one for the store.
const NEXT: &str = ".new";

impl Directory {
    /// Gives the store a new key and returns how many records it has.
    ///
    /// With `new_key_file`, the key is read from there, or made there, and it is for the operator to name that file, or
    /// its text, from then on. Without, the key file that is in use gets a new key.
    ///
    /// # Errors
    /// A broker runs, which could open nothing any more; a record does not open; a file cannot be written.
    pub fn rekey(settings: &Settings, new_key_file: Option<&Path>) -> Result<usize, DirectoryError> {
        let store = settings.store();
        if !exists(&store)? {
            return Err(DirectoryError::new(format!("{}: there is no credential store yet", store.display())));
        }
        let _alone = FolderLock::take(&settings.data_dir)?;
        let directory = Self::open_store(settings, store)?;
        match (new_key_file, settings.key_file()) {
            (Some(path), _) => directory.reseal(&new_key_at(path)?),
            (None, Some(path)) => {
                let next = beside(&path, NEXT);
                remove(&next)?;
                let key = Key::generate()?;
                key.write_new(&next)?;
                let count = directory.reseal(&key)?;
                take_place(&next, &path)?;
                Ok(count)
            }
            (None, None) => Err(DirectoryError::new(format!(
                "{} holds the key; name a file for the new one with --new-key-file",
                settings.describe_key()
            ))),
        }
    }

    fn reseal(&self, key: &Key) -> Result<usize, DirectoryError> {
        let cipher = Cipher::new(key);
        let check = new_key_check(&cipher)?;
        let again = |row: &[u8; 32], old: &[u8]| {
            let entry = self.unseal(row, old)?;
            let row = cipher.row_of(&entry.user);
            Ok((row, cipher.seal(&row, entry.encode())?))
        };
        self.write(|transaction| {
            let mut rows = transaction.open_table(ROWS)?;
            let mut sealed = Vec::new();
            for row in rows.iter()? {
                let (row, old) = row?;
                match again(row.value(), old.value()) {
                    Ok(row) => sealed.push(row),
                    // Nothing was changed yet.
                    Err(error) => return Ok(Err(error)),
                }
            }
            rows.retain(|_, _| false)?;
            for (row, sealed) in &sealed {
                rows.insert(row, sealed.as_slice())?;
            }
            transaction.open_table(META)?.insert(KEY_CHECK, check.as_slice())?;
            Ok(Ok(sealed.len()))
        })
    }
}

/// The cipher of a new key that fits the store but was not yet put in the old one's place; puts it there.
pub(super) fn finish(settings: &Settings, key_check: &[u8]) -> Result<Option<Cipher>, DirectoryError> {
    let Some(path) = settings.key_file() else { return Ok(None) };
    let next = beside(&path, NEXT);
    if !exists(&next)? {
        return Ok(None);
    }
    let cipher = Cipher::new(&Key::read(&next)?);
    if cipher.open(KEY_CHECK.as_bytes(), key_check).is_none() {
        return Ok(None);
    }
    take_place(&next, &path)?;
    Ok(Some(cipher))
}

fn take_place(next: &Path, path: &Path) -> Result<(), DirectoryError> {
    publish(next, path).map_err(|error| {
        DirectoryError::file(next, "the store has this new key, which cannot take the old one's place", &error)
    })
}

fn new_key_at(path: &Path) -> Result<Key, DirectoryError> {
    if exists(path)? {
        return Key::read(path);
    }
    let key = Key::generate()?;
    key.write_new(path)?;
    Ok(key)
}

/// Removes what an earlier attempt left, before the store had it.
fn remove(path: &Path) -> Result<(), DirectoryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(DirectoryError::file(path, "the key cannot be written", &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
