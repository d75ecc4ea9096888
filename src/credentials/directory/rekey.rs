//! Gives the store a new key: every record is decrypted with the old key and encrypted with the new one, in a new file that
//! replaces the old one.
//!
//! Two files must change, the store and the key. The new key is on disk beside the old one before the store needs it,
//! and replaces the old one afterwards. A process that opens the store in between finds it there.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Directory, DirectoryError, LOCK, OldRecords, Row, STORE, Settings, rows, write_file};
use crate::store::history::{self, HistorySettings};
use crate::store::{Cipher, FolderLock, Key, Replaced, beside, exists, lock_changes, publish, resolve};

/// The ending of a new key's file name, until it replaces the old key.
const NEXT: &str = ".new";

/// A store that has a new key.
#[derive(Debug)]
pub struct Rekeyed {
    /// How many records it has.
    pub users: usize,
    /// What became of the records under the old key.
    pub old_records: OldRecords,
    /// Why the new key could not replace the old one in the key file. The next process that opens the store tries again.
    pub key_fault: Option<DirectoryError>,
}

impl Directory {
    /// Gives the store a new key.
    ///
    /// With `new_key_file`, the key is read from that file or written to it, and the operator has to configure that
    /// file, or its text, from then on. Without it, the present key file gets a new key.
    ///
    /// # Errors
    /// A broker runs, which could decrypt nothing any more; the new key is the present one; a record cannot be decrypted; a
    /// file cannot be written. The store still has its old key.
    pub fn rekey(settings: &Settings, new_key_file: Option<&Path>) -> Result<Rekeyed, DirectoryError> {
        let store = settings.store();
        if !exists(&store)? {
            return Err(DirectoryError::new(format!("{}: there is no credential store yet", store.display())));
        }
        let _alone = FolderLock::take_for_rekey(&settings.data_dir)?;
        let directory = Self::open_store(settings, store.clone())?;
        let old = settings.key_of(&store)?;
        let (data_dir, source) = (settings.data_dir.clone(), settings.key.clone());
        // An earlier attempt may have ended before the store had its new key, which is about to be removed.
        history::take_back(&HistorySettings { data_dir, key: source }, &old)?;
        let _lock = lock_changes(&settings.data_dir.join(LOCK))?;
        match (new_key_file, settings.key_file()) {
            (Some(path), present) => {
                let key = new_key_at(path, present.as_deref())?;
                directory.check_new(&key, path)?;
                history::reseal(&settings.data_dir, &old, &key)?;
                let (users, replaced) = directory.reseal(&key)?;
                Ok(Rekeyed { users, old_records: directory.overwrite(replaced), key_fault: None })
            }
            (None, Some(path)) => {
                let path = resolve(&path);
                let next = beside(&path, NEXT);
                remove(&next)?;
                let key = Key::generate()?;
                key.write_new(Some(&path), &next)?;
                history::reseal(&settings.data_dir, &old, &key)?;
                let (users, replaced) = directory.reseal(&key)?;
                let key_fault = take_place(&next, &path).err();
                Ok(Rekeyed { users, old_records: directory.overwrite(replaced), key_fault })
            }
            (None, None) => Err(DirectoryError::new(format!(
                "{} holds the key; name a file for the new one with --new-key-file",
                settings.describe_key()
            ))),
        }
    }

    /// Refuses the present key.
    fn check_new(&self, key: &Key, key_file: &Path) -> Result<(), DirectoryError> {
        if Cipher::new(key, STORE).fits(&self.key_check) {
            return Err(DirectoryError::new(format!(
                "{}: this is the present key; nothing was changed; name a file that does not exist yet to have a new key \
                 made",
                key_file.display()
            )));
        }
        Ok(())
    }

    /// Writes a store with the new key, which replaces the present one. Returns how many records it has, and the old file.
    fn reseal(&self, key: &Key) -> Result<(usize, Option<Replaced>), DirectoryError> {
        let cipher = Cipher::new(key, STORE);
        let again = |(row, old): &Row| {
            let entry = self.unseal(row, old)?;
            let row = cipher.row_of(&entry.user);
            Ok((row, cipher.seal(&row, entry.encode())?))
        };
        let rows: Vec<_> = rows(&*self.latest()?)?.iter().map(again).collect::<Result<_, DirectoryError>>()?;
        let replaced = write_file(&self.path, &cipher.key_check()?, &rows)?;
        Ok((rows.len(), replaced))
    }
}

/// A new key that belongs to the store but has not replaced the old key yet.
pub(super) struct Pending {
    pub(super) cipher: Cipher,
    next: PathBuf,
    /// The file of the old key. Not a link.
    path: PathBuf,
}

/// Returns the cipher of a pending key, and replaces the old key.
pub(super) fn finish(settings: &Settings, key_check: &[u8]) -> Result<Option<Cipher>, DirectoryError> {
    let Some(Pending { cipher, next, path }) = pending(settings, key_check)? else { return Ok(None) };
    take_place(&next, &path)?;
    Ok(Some(cipher))
}

/// Returns the pending key, if there is one.
pub(super) fn pending(settings: &Settings, key_check: &[u8]) -> Result<Option<Pending>, DirectoryError> {
    let Some(path) = settings.key_file() else { return Ok(None) };
    let path = resolve(&path);
    let next = beside(&path, NEXT);
    if !exists(&next)? {
        return Ok(None);
    }
    let cipher = Cipher::new(&Key::read(&next)?, STORE);
    Ok(cipher.fits(key_check).then_some(Pending { cipher, next, path }))
}

fn take_place(next: &Path, path: &Path) -> Result<(), DirectoryError> {
    publish(next, path).map_err(|error| {
        DirectoryError::file(next, "the store has this new key, which cannot take the old one's place", &error)
    })
}

/// Reads the key of this file, or makes one there which the reader of the present key file can read.
fn new_key_at(path: &Path, present: Option<&Path>) -> Result<Key, DirectoryError> {
    if exists(path)? {
        return Ok(Key::read(path)?);
    }
    let key = Key::generate()?;
    key.write_new(present, path)?;
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
