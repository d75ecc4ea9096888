//! Stands between us and redb: the file is checked before redb may write to it, redb's errors are said in our words,
//! and its panics end here.

use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, StorageBackend};

use super::{DirectoryError, KEY_CHECK, META, ROWS, files};

/// Checks the file on a copy in memory and returns its key check, before redb may write to it: redb trusts a file that
/// was closed in order, and mends one that was not, and either would change what an operator still has to look at.
pub(super) fn check_file(path: &Path) -> Result<Vec<u8>, DirectoryError> {
    let read = || fs::read(path).map_err(|error| DirectoryError::file(path, "the store cannot be read", &error));
    let mut bytes = read()?;
    let mut waited = Duration::ZERO;
    loop {
        let fault = match guarded(path, || check_copy(&bytes)) {
            Ok(key_check) => return Ok(key_check),
            Err(fault) => fault,
        };
        // A process that was writing meanwhile makes a copy that fits nothing: only what stays as it is, is damaged.
        std::thread::sleep(files::LOOK_AGAIN);
        waited += files::LOOK_AGAIN;
        let again = read()?;
        if again == bytes || waited >= files::WAIT {
            return Err(fault);
        }
        bytes = again;
    }
}

fn check_copy(bytes: &[u8]) -> Result<Vec<u8>, redb::Error> {
    let damaged = |words: &str| redb::Error::Corrupted(words.to_owned());
    if bytes.is_empty() {
        return Err(damaged("the file is empty"));
    }
    let copy = InMemoryBackend::new();
    copy.set_len(bytes.len() as u64)?;
    copy.write(0, bytes)?;
    let mut database = builder().create_with_backend(copy)?;
    if !database.check_integrity()? {
        return Err(damaged("checksums do not fit"));
    }
    let transaction = database.begin_read()?;
    transaction.open_table(ROWS)?;
    let key_check = transaction.open_table(META)?.get(KEY_CHECK)?.map(|sealed| sealed.value().to_vec());
    key_check.ok_or_else(|| damaged("the key check is missing"))
}

/// Runs what redb does with the file and says its errors in ours.
///
/// redb promises no error for each way a file can be damaged, and panics in some (its own words, at `Database::open`);
/// here alone a panic is caught, because a damaged file is outside input.
pub(super) fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, DirectoryError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(error)) => Err(explain(path, &error)),
        Err(_) => Err(DirectoryError::damaged(path, &"its structure cannot be followed")),
    }
}

fn explain(path: &Path, error: &redb::Error) -> DirectoryError {
    match error {
        redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            DirectoryError::damaged(path, &"it is no redb file")
        }
        redb::Error::Io(error) => DirectoryError::file(path, "the credential store cannot be used", error),
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => DirectoryError::new(format!(
            "{}: another program, or another version of this one, has the credential store open for itself; end it",
            path.display()
        )),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_) => {
            DirectoryError::new(format!(
                "{}: the credential store cannot be used after an earlier fault; mend the disk and start again",
                path.display()
            ))
        }
        other => DirectoryError::damaged(path, other),
    }
}

/// What every opening of a store has in common.
pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// A store of ten thousand agents is 9 MB, and its inner pages fit in this; redb's own default is 1 GiB.
const CACHE_BYTES: usize = 1 << 20;
