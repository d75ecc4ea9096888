//! Erases the records that were replaced or removed: writes the present ones to a new file and overwrites the old one.
//!
//! That needs a store that no broker has open. Beside a broker, the old records stay in the file, encrypted, until the
//! broker starts again.

use redb::WriteTransaction;

use super::{Directory, DirectoryError, LOCK, META, key_check, rows, write_file};
use crate::store::{Database, FolderLock, Replaced, lock_changes};

/// The entry of [`META`] that a file has for as long as no record was replaced or removed in it. A file without it, such
/// as one of an earlier version, is written anew.
const NO_OLD_RECORDS: &str = "no old records";

/// What became of the records that were replaced or removed, or that are sealed with a replaced key.
#[derive(Debug, PartialEq, Eq)]
pub enum OldRecords {
    /// The file has none, and the file that it replaced was overwritten.
    Erased,
    /// The file may have some, because a broker has it open. The broker erases them when it starts the next time.
    Kept,
    /// The file has none, but the file that it replaced could not be overwritten. Its blocks on the disk have them until the
    /// file system uses the blocks again. Another attempt is not possible, because the file has no name any more.
    LeftOnDisk(DirectoryError),
}

impl Directory {
    /// Erases the old records, unless a broker uses the store.
    ///
    /// # Errors
    /// The file cannot be written. The store is as it was, and the next call tries again.
    pub fn erase_old_records(&self) -> Result<OldRecords, DirectoryError> {
        let _lock = lock_changes(&self.data_dir.join(LOCK))?;
        // A broker that starts now waits for the lock on changes before it opens the store.
        if FolderLock::is_taken(&self.data_dir)? {
            return Ok(OldRecords::Kept);
        }
        self.rewrite()
    }

    /// Erases the old records, for the broker that has the folder.
    ///
    /// # Errors
    /// Those of [`Directory::erase_old_records`].
    pub fn erase_old_records_at_start(&self, _alone: &FolderLock) -> Result<OldRecords, DirectoryError> {
        let _lock = lock_changes(&self.data_dir.join(LOCK))?;
        self.rewrite()
    }

    fn rewrite(&self) -> Result<OldRecords, DirectoryError> {
        let database = self.latest()?;
        if has_no_old_records(&database)? {
            return Ok(OldRecords::Erased);
        }
        let key_check = database.read(key_check)?;
        let replaced = write_file(&self.path, &key_check, &rows(&database)?)?;
        drop(database);
        let reopened = self.reopened();
        let outcome = self.overwrite(replaced);
        reopened.map(|_| outcome)
    }

    /// Overwrites a file that has been replaced.
    pub(super) fn overwrite(&self, replaced: Option<Replaced>) -> OldRecords {
        match replaced.map_or(Ok(()), Replaced::overwrite) {
            Ok(()) => OldRecords::Erased,
            Err(error) => OldRecords::LeftOnDisk(DirectoryError::file(
                &self.path,
                "the file that it replaced could not be overwritten",
                &error,
            )),
        }
    }
}

fn has_no_old_records(database: &Database) -> Result<bool, DirectoryError> {
    Ok(database.read(|transaction| Ok(transaction.open_table(META)?.get(NO_OLD_RECORDS)?.is_some()))?)
}

/// Notes that this transaction replaces or removes records.
pub(super) fn note_old_records(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(META)?.remove(NO_OLD_RECORDS)?;
    Ok(())
}

/// Notes that the file is new.
pub(super) fn note_no_old_records(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(NO_OLD_RECORDS, [].as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use secrecy::SecretString;

    use super::*;
    use crate::credentials::directory::STORE;
    use crate::credentials::{Credentials, Entry, KeySource, Settings};
    use crate::store::{Cipher, Key};

    /// Every record of the user that this key decrypts somewhere in the file.
    fn decrypted(folder: &Path, key: &Key, user: &str) -> usize {
        let bytes = std::fs::read(folder.join("credentials.redb")).unwrap();
        let cipher = Cipher::new(key, STORE);
        let row = cipher.row_of(user);
        // A version byte, a nonce, a record padded to 256 bytes, a tag.
        bytes.windows(1 + 24 + 256 + 16).filter(|window| cipher.open(&row, window).is_some()).count()
    }

    #[test]
    fn neither_the_present_nor_the_old_key_decrypts_an_old_record() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data_dir: folder.path().to_owned(), key: KeySource::DataFolder };
        let directory = Directory::open(&settings).unwrap();
        let key = || settings.key().unwrap().unwrap();
        let set = |password: &str| {
            let (username, extension) = ("1245456".to_owned(), "5051".to_owned());
            let password = SecretString::from(password);
            let credentials = Credentials { username, password, extension, adfs_username: None };
            directory.set(&[Entry::new("alice".to_owned(), credentials).unwrap()]).unwrap();
        };
        set("first");
        set("second");
        assert!(decrypted(folder.path(), &key(), "alice") > 1);
        directory.erase_old_records().unwrap();
        assert_eq!(decrypted(folder.path(), &key(), "alice"), 1);

        let old = key();
        Directory::rekey(&settings, None).unwrap();
        assert_eq!(decrypted(folder.path(), &old, "alice"), 0);
        assert_eq!(decrypted(folder.path(), &key(), "alice"), 1);

        let directory = Directory::open(&settings).unwrap();
        directory.remove("alice").unwrap();
        assert!(decrypted(folder.path(), &key(), "alice") > 0);
        directory.erase_old_records().unwrap();
        assert_eq!(decrypted(folder.path(), &key(), "alice"), 0);
    }
}
