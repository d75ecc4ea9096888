//! Locks on files: [`FolderLock`], which a broker holds while it runs, and the short one around creating a file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{LOOK_AGAIN, StoreError, WAIT, make_folder, private};

/// The file of [`FolderLock`].
const BROKER_LOCK: &str = "switchboard.lock";

/// Keeps the data folder for one broker. Dropping it, or the end of the process, releases the folder.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// The file that is locked.
    pub(crate) fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(BROKER_LOCK)
    }

    /// Makes the folder if it is missing, and locks it.
    ///
    /// # Errors
    /// Another broker holds it, or the folder cannot be written.
    pub fn take(data_dir: &Path) -> Result<Self, StoreError> {
        make_folder(data_dir)?;
        let path = Self::path(data_dir);
        let mut file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(data_dir, &mut file)),
            Err(TryLockError::Error(error)) => return Err(StoreError::file(&path, "cannot be locked", &error)),
        }
        // The process number is only a help for the operator, so a full disk is not a reason to stop.
        if file.set_len(0).is_ok() && writeln!(file, "{}", std::process::id()).is_err() {
            tracing::debug!(path = %path.display(), "the process number could not be written to the lock file");
        }
        Ok(Self { _file: file })
    }
}

fn taken(data_dir: &Path, file: &mut File) -> StoreError {
    let mut holder = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut holder));
    let process = match (read, holder.trim().parse::<u32>()) {
        (Ok(_), Ok(number)) => format!(" (process {number})"),
        _ => String::new(),
    };
    StoreError::unusable(format!(
        "{}: another broker{process} runs on this data folder; stop it, or give this one a folder of its own with \
         --data-dir",
        data_dir.display()
    ))
}

fn open_lock(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    private(&mut options);
    options.open(path).map_err(|error| StoreError::file(path, "cannot be written", &error))
}

/// Takes the lock that a process holds while it creates a file, waiting up to [`WAIT`]. Dropping it releases it.
pub(crate) fn lock_making(path: &Path) -> Result<File, StoreError> {
    let file = open_lock(path)?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(StoreError::file(path, "cannot be locked", &error)),
            Err(TryLockError::WouldBlock) if waited >= WAIT => {
                return Err(StoreError::unusable(format!(
                    "{}: another process has been making the store for {} seconds; end it and try again",
                    path.display(),
                    WAIT.as_secs()
                )));
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(LOOK_AGAIN);
                waited += LOOK_AGAIN;
            }
        }
    }
}
