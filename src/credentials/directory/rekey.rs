//! Gives the store a new key: every record is decrypted with the old key and encrypted with the new one, in one
//! transaction.
//!
//! Two files must change, the store and the key. The new key is on disk beside the old one before the store needs it,
//! and replaces the old one afterwards. A process that opens the store in between finds it there.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use redb::ReadableTable;

use super::cipher::{Cipher, Key};
use super::{Directory, DirectoryError, KEY_CHECK, META, ROWS, Settings, new_key_check};
use crate::store::{FolderLock, beside, exists, publish};

/// The ending of a new key's file name, until it replaces the old key.
const NEXT: &str = ".new";

impl Directory {
    /// Gives the store a new key and returns how many records it has.
    ///
    /// With `new_key_file`, the key is read from that file or written to it, and the operator has to configure that
    /// file, or its text, from then on. Without it, the present key file gets a new key.
    ///
    /// # Errors
    /// A broker runs, which could decrypt nothing any more; a record cannot be decrypted; a file cannot be written.
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
                    // Nothing has been changed yet.
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

/// Returns the cipher of a new key that belongs to the store but has not replaced the old key yet, and replaces it.
pub(super) fn finish(settings: &Settings, key_check: &[u8]) -> Result<Option<Cipher>, DirectoryError> {
    let (Some((next, cipher)), Some(path)) = (pending(settings, key_check)?, settings.key_file()) else {
        return Ok(None);
    };
    take_place(&next, &path)?;
    Ok(Some(cipher))
}

/// Returns the file and the cipher of a new key that belongs to the store but has not replaced the old key yet.
pub(super) fn pending(settings: &Settings, key_check: &[u8]) -> Result<Option<(PathBuf, Cipher)>, DirectoryError> {
    let Some(path) = settings.key_file() else { return Ok(None) };
    let next = beside(&path, NEXT);
    if !exists(&next)? {
        return Ok(None);
    }
    let cipher = Cipher::new(&Key::read(&next)?);
    Ok(cipher.open(KEY_CHECK.as_bytes(), key_check).is_some().then_some((next, cipher)))
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

/// Removes the file of an attempt that failed before the store was changed.
fn remove(path: &Path) -> Result<(), DirectoryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(DirectoryError::file(path, "the key cannot be written", &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
