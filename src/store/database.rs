//! [`Database`]: one redb file that several processes may use. It checks a file before redb may write to it, gives
//! redb's errors our words, and catches its panics.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::backends::InMemoryBackend;
use redb::{ConcurrencyMode, ReadTransaction, ReadableDatabase, StorageBackend, TransactionError, WriteTransaction};

use super::quiet::catch_quietly;
use super::{LOOK_AGAIN, Replaced, StoreError, WAIT, create_like, create_new, publish, read_regular, resolve};

/// 1 MiB of cache; redb's own default is 1 GiB. The inner pages of ten thousand small records (9 MB) fit.
const CACHE_BYTES: usize = 1 << 20;

/// An open redb file.
pub(crate) struct Database {
    file: Name,
    identity: Option<Identity>,
    handle: redb::Database,
}

/// The file, and what an error calls it.
#[derive(Clone)]
pub(super) struct Name {
    pub(super) path: PathBuf,
    pub(super) what: &'static str,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.file.path).finish_non_exhaustive()
    }
}

impl Database {
    /// Writes a file whose only transaction is `fill`. It is built under another name and renamed when it is complete, so an
    /// empty file of its final name is always a damaged one. `what` is its name in errors.
    ///
    /// Replaces a file that is there, keeps its owner, group and mode, and returns it. No process may have it open for
    /// longer than a transaction.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn create(
        path: &Path,
        what: &'static str,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<Option<Replaced>, StoreError> {
        let path = &resolve(path);
        let making = path.with_extension("redb.new");
        let cannot = |error: io::Error| StoreError::file(&making, &format!("{what} cannot be made"), &error);
        match fs::remove_file(&making) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot(error)),
            Ok(()) | Err(_) => {}
        }
        let old = Replaced::open(path).map_err(cannot)?;
        match old {
            Some(_) => create_like(path, &making, b""),
            None => create_new(&making, b""),
        }
        .map_err(cannot)?;
        Name { path: making.clone(), what }.guarded(|| {
            let database = builder().create(&making)?;
            let transaction = database.begin_write()?;
            fill(&transaction)?;
            transaction.commit()?;
            Ok(database.close()?)
        })?;
        publish(&making, path).map_err(cannot)?;
        Ok(old)
    }

    /// Checks a file on a copy in memory and returns what `read` finds there, before redb may write to the file: redb
    /// trusts a file that was closed properly and repairs one that was not, and either could change a damaged file that
    /// the operator still has to look at.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged. An error of `read` counts as damage.
    pub(crate) fn inspect<T>(
        path: &Path,
        what: &'static str,
        read: impl Fn(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let name = Name { path: path.to_owned(), what };
        let read_file =
            || read_regular(path).map_err(|error| StoreError::file(path, "the store cannot be read", &error));
        let mut bytes = read_file()?;
        let mut waited = Duration::ZERO;
        loop {
            let fault = match name.guarded(|| check_copy(&bytes, &read)) {
                Ok(found) => return Ok(found),
                Err(fault) => fault,
            };
            // Copying while another process writes gives an inconsistent copy; a damaged file stays the same.
            std::thread::sleep(LOOK_AGAIN);
            waited += LOOK_AGAIN;
            let again = read_file()?;
            if again == bytes || waited >= WAIT {
                return Err(fault);
            }
            bytes = again;
        }
    }

    /// Opens a file. Other processes may have it open too.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or another program uses it in another way.
    pub(crate) fn open(path: &Path, what: &'static str) -> Result<Self, StoreError> {
        let file = Name { path: path.to_owned(), what };
        // Before the file is opened: if it is replaced in between, `is_replaced` says so.
        let identity = identity(path);
        let handle = file.guarded(|| {
            builder().set_concurrency_mode(ConcurrencyMode::MultiWriter).open(path).map_err(redb::Error::from)
        })?;
        Ok(Self { file, identity, handle })
    }

    /// Returns whether the path leads to another file now, which has to be opened. Where files cannot be told apart, it may.
    pub(crate) fn is_replaced(&self) -> bool {
        self.identity.is_none() || self.identity != identity(&self.file.path)
    }

    /// Reads in one transaction, which sees the last commit of any process.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.file.guarded(|| work(&self.handle.begin_read()?))
    }

    /// Writes in one transaction. If `work` returns an error, nothing is changed.
    ///
    /// # Errors
    /// The file cannot be written, or another process has been writing to it for [`WAIT`].
    pub(crate) fn write<T, E>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Result<T, E>, redb::Error>,
    ) -> Result<Result<T, E>, StoreError> {
        let transaction = self.begin_write()?;
        self.file.guarded(|| {
            let outcome = work(&transaction)?;
            if outcome.is_ok() {
                transaction.commit()?;
            }
            Ok(outcome)
        })
    }

    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let mut waited = Duration::ZERO;
        loop {
            let begun = self.file.guarded(|| match self.handle.try_begin_write() {
                Ok(transaction) => Ok(Some(transaction)),
                Err(TransactionError::WouldBlock) => Ok(None),
                Err(error) => Err(error.into()),
            })?;
            match begun {
                Some(transaction) => return Ok(transaction),
                None if waited >= WAIT => {
                    return Err(StoreError::unusable(format!(
                        "{}: another process has been writing to {} for {} seconds; nothing was changed; try again \
                         when it has ended",
                        self.file.path.display(),
                        self.file.what,
                        WAIT.as_secs()
                    )));
                }
                None => {
                    std::thread::sleep(LOOK_AGAIN);
                    waited += LOOK_AGAIN;
                }
            }
        }
    }
}

/// Which file a path leads to: its device and its number there.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Files cannot be told apart.
#[cfg(not(unix))]
fn identity(_path: &Path) -> Option<Identity> {
    None
}

fn check_copy<T>(
    bytes: &[u8],
    read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
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
    read(&database.begin_read()?)
}

fn builder() -> redb::Builder {
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

impl Name {
    /// Runs something that redb does with the file, and explains its errors.
    ///
    /// redb does not promise an error for every way in which a file can be damaged, and panics for some (as
    /// `Database::open` documents). Such a panic is caught, because a damaged file is outside input.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
        match catch_quietly(work) {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(self.damaged(&"its structure cannot be followed")),
        }
    }

    fn damaged(&self, cause: &dyn fmt::Display) -> StoreError {
        let Self { path, what } = self;
        StoreError::Damaged(format!("{}: {what} is damaged: {cause}; nothing was changed", path.display()))
    }

    fn explain(&self, error: &redb::Error) -> StoreError {
        let Self { path, what } = self;
        match error {
            redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => self.damaged(&"it is not a redb file"),
            redb::Error::Io(error) => StoreError::file(path, &format!("{what} cannot be used"), error),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::unusable(format!(
                "{}: another program, or another version of this one, has {what} open for itself; end it",
                path.display()
            )),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_) => {
                StoreError::unusable(format!(
                    "{}: {what} cannot be used after an earlier fault; repair the disk and start again",
                    path.display()
                ))
            }
            redb::Error::Corrupted(words) => self.damaged(words),
            other => self.damaged(other),
        }
    }
}
