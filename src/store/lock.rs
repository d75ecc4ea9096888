//! Locks on files: [`FolderLock`], which a broker holds while it runs, and the short one around changing a file.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::open_or_create;
use super::{LOOK_AGAIN, StoreError, WAIT, exists, make_folder};

/// How long a broker waits for a lock that a command may hold.
const MOMENT: Duration = Duration::from_millis(500);

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
        let mut waited = Duration::ZERO;
        // A command holds the lock for a moment when it looks for a broker.
        while !try_lock(&file, &path)? {
            if waited >= MOMENT {
                return Err(taken(data_dir, &mut file));
            }
            std::thread::sleep(LOOK_AGAIN);
            waited += LOOK_AGAIN;
        }
        // The process number is only a help for the operator, so a full disk is not a reason to stop.
        if file.set_len(0).is_ok() && writeln!(file, "{}", std::process::id()).is_err() {
            tracing::debug!(path = %path.display(), "the process number could not be written to the lock file");
        }
        Ok(Self { _file: file })
    }

    /// Returns whether a broker holds the folder.
    ///
    /// # Errors
    /// The lock cannot be opened.
    pub(crate) fn is_taken(data_dir: &Path) -> Result<bool, StoreError> {
        let path = data_dir.join(BROKER_LOCK);
        if !exists(&path)? {
            return Ok(false);
        }
        Ok(!try_lock(&open_lock(&path)?, &path)?)
    }
}

fn try_lock(file: &File, path: &Path) -> Result<bool, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(StoreError::file(path, "cannot be locked", &error)),
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
    open_or_create(path).map_err(|error| StoreError::file(path, "cannot be written", &error))
}

/// Takes the lock that a process holds while it makes or changes a file, waiting up to [`WAIT`]. Dropping it releases it.
pub(crate) fn lock_changes(path: &Path) -> Result<File, StoreError> {
    let file = open_lock(path)?;
    let mut waited = Duration::ZERO;
    while !try_lock(&file, path)? {
        if waited >= WAIT {
            return Err(StoreError::unusable(format!(
                "{}: another process has been changing the store for {} seconds; nothing was changed; try again when it \
                 has ended",
                path.display(),
                WAIT.as_secs()
            )));
        }
        std::thread::sleep(LOOK_AGAIN);
        waited += LOOK_AGAIN;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_looks_for_a_broker_does_not_keep_one_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(!FolderLock::is_taken(path).unwrap());
        let held = FolderLock::take(path).unwrap();
        assert!(FolderLock::is_taken(path).unwrap());
        drop(held);
        // A command that has the lock for a moment. Nothing ends the wait early.
        let command = FolderLock::take(path).unwrap();
        let (_never, moment) = std::sync::mpsc::channel::<()>();
        let looking = std::thread::spawn(move || {
            assert!(moment.recv_timeout(3 * LOOK_AGAIN).is_err());
            drop(command);
        });
        FolderLock::take(path).unwrap();
        looking.join().unwrap();
    }
}
