//! [`Directory::try_open`]: checks whether [`Directory::open`] would succeed, without changing anything.

use redb::ReadableTable;

use super::cipher::Cipher;
use super::{Directory, DirectoryError, LOCK, ROWS, Settings, WHAT, key_check, rekey, unseal};
use crate::store::{Database, exists, lock_changes, try_linked_file, try_new_file};

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
        let _lock = if exists(&lock)? { Some(lock_changes(&lock)?) } else { None };
        let is_there = try_linked_file(&store)
            .map_err(|error| DirectoryError::file(&store, "the store cannot be written", &error))?;
        if !is_there {
            return try_new_key(settings);
        }
        let key = settings.key_of(&store)?;
        let (check, rows) = Database::inspect(&store, WHAT, |transaction| {
            let mut rows = Vec::new();
            for row in transaction.open_table(ROWS)?.iter()? {
                let (row, sealed) = row?;
                rows.push((*row.value(), sealed.value().to_vec()));
            }
            Ok((key_check(transaction)?, rows))
        })?;
        let cipher = Some(Cipher::new(&key)).filter(|cipher| cipher.fits(&check));
        let cipher = match cipher {
            Some(cipher) => cipher,
            None => rekey::pending(settings, &check)?.ok_or_else(|| settings.wrong_key(&store))?.cipher,
        };
        rows.iter().try_for_each(|(row, sealed)| unseal(&cipher, &store, row, sealed).map(drop))
    }
}

fn try_new_key(settings: &Settings) -> Result<(), DirectoryError> {
    match (settings.key()?, settings.key_file()) {
        // The data folder, which is not checked here, may not exist yet.
        (None, Some(path)) if path.parent() == Some(&settings.data_dir) => Ok(()),
        (None, Some(path)) => {
            try_new_file(&path).map_err(|error| DirectoryError::file(&path, "the key cannot be written", &error))
        }
        (Some(_), _) | (None, None) => Ok(()),
    }
}
