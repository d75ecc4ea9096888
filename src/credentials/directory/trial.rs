//! [`Directory::try_open`]: checks whether [`Directory::open`] would succeed, without changing anything.

use super::{Directory, DirectoryError, LOCK, STORE, Settings, WHAT, key_check, read_rows, rekey, unseal};
use crate::store::{Cipher, Database, lock_changes, try_linked_file, try_lock_file, try_new_file, try_new_name};

impl Directory {
    /// Checks whether the broker could use the store and its key: reads the key, and decrypts every record of a copy of
    /// the store in memory. If there is no store, checks whether the key file could be created. Whether files can be
    /// created in the data folder is not checked.
    ///
    /// # Errors
    /// Those of [`Directory::open`] and [`Directory::check`], except those about the data folder.
    pub fn try_open(settings: &Settings) -> Result<(), DirectoryError> {
        let store = settings.store();
        // A process that makes the key and the store, or that replaces the store and overwrites the old file, holds the lock.
        let lock = settings.data_dir.join(LOCK);
        let is_lock_there =
            try_lock_file(&lock).map_err(|error| DirectoryError::file(&lock, "cannot be written", &error))?;
        let _lock = is_lock_there.then(|| lock_changes(&lock)).transpose()?;
        let is_there = try_linked_file(&store)
            .map_err(|error| DirectoryError::file(&store, "the store cannot be written", &error))?;
        if !is_there {
            return try_new_key(settings);
        }
        let key = settings.key_of(&store)?;
        let (rows, check) =
            Database::inspect(&store, WHAT, |transaction| Ok((read_rows(transaction)?, key_check(transaction)?)))?;
        let cipher = Some(Cipher::new(&key, STORE)).filter(|cipher| cipher.fits(&check));
        let cipher = match cipher {
            Some(cipher) => cipher,
            None => rekey::pending(settings, &check)?.ok_or_else(|| settings.wrong_key(&store))?.cipher,
        };
        rows.iter().try_for_each(|(row, sealed)| unseal(&cipher, &store, row, sealed).map(drop))
    }
}

fn try_new_key(settings: &Settings) -> Result<(), DirectoryError> {
    let (None, Some(path)) = (settings.key()?, settings.key_file()) else { return Ok(()) };
    let is_in_data_folder = path.parent() == Some(&settings.data_dir);
    // The data folder, which is not checked here, may not exist yet.
    let outcome = if is_in_data_folder { try_new_name(&path) } else { try_new_file(&path) };
    outcome.map_err(|error| DirectoryError::file(&path, "the key cannot be written", &error))
}
