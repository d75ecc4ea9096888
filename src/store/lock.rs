//! Locks on files: [`FolderLock`], which a broker holds while it runs, and the short one around changing a file.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::open_or_create;
use super::{LOOK_AGAIN, StoreError, WAIT, exists, make_folder, try_lock_file};

/// How long a broker waits for a lock that a command may hold.
const MOMENT: Duration = Duration::from_millis(500);

/// The file of [`FolderLock`].
const BROKER_LOCK: &str = "switchboard.lock";

/// The word behind the process number of a command that gives the store a new key.
const REKEY: &str = "rekey";

/// The word behind the process number of a command that repairs or moves a file.
const REPAIR: &str = "repair";

/// How much of the file of [`FolderLock`] is read, in bytes: a process number and a word.
const NOTE_BYTES_MAX: u64 = 32;

/// Keeps the data folder for one broker, or for a command that no broker may run beside. Dropping it, or the end of the
/// process, releases the folder.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// The file that is locked.
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(BROKER_LOCK)
    }

    /// Makes the folder if it is missing, and locks it for a broker. Waits up to [`WAIT`] for a command that gives the store
    /// a new key.
    ///
    /// # Errors
    /// Another process holds it, or the folder cannot be written.
    pub fn take(data_dir: &Path) -> Result<Self, StoreError> {
        Self::take_as(Role::Broker, data_dir)
    }

    /// The same for the command that gives the store a new key.
    ///
    /// # Errors
    /// Those of [`FolderLock::take`].
    pub fn take_for_rekey(data_dir: &Path) -> Result<Self, StoreError> {
        Self::take_as(Role::Rekey, data_dir)
    }

    /// The same for a command that repairs the history, or moves it into a cluster.
    ///
    /// # Errors
    /// Those of [`FolderLock::take`].
    pub(crate) fn take_for_repair(data_dir: &Path) -> Result<Self, StoreError> {
        Self::take_as(Role::Repair, data_dir)
    }

    fn take_as(role: Role, data_dir: &Path) -> Result<Self, StoreError> {
        make_folder(data_dir)?;
        let path = Self::path(data_dir);
        let mut file = open_lock(&path)?;
        let mut waited = Duration::ZERO;
        while !try_lock(&file, &path)? {
            let holder = Holder::read(&mut file);
            // Any command holds the lock for a moment when it looks for a broker.
            if waited >= if holder.role == Role::Broker { MOMENT } else { WAIT } {
                return Err(taken(role, &holder, data_dir));
            }
            std::thread::sleep(LOOK_AGAIN);
            waited += LOOK_AGAIN;
        }
        // The note is only a help for the operator, so a full disk is not a reason to stop.
        if let Err(error) = note(role, &mut file) {
            tracing::debug!(path = %path.display(), %error, "the process number could not be written to the lock file");
        }
        Ok(Self { _file: file })
    }

    /// Tries whether the lock can be opened if its file exists, and changes nothing.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn try_open(data_dir: &Path) -> Result<(), StoreError> {
        let path = Self::path(data_dir);
        try_lock_file(&path).map(drop).map_err(|error| cannot_write(&path, &error))
    }

    /// Returns whether a broker holds the folder.
    ///
    /// # Errors
    /// The lock cannot be opened.
    pub(crate) fn is_taken(data_dir: &Path) -> Result<bool, StoreError> {
        let path = Self::path(data_dir);
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

/// The kind of process that holds the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Broker,
    /// A command that gives the store a new key.
    Rekey,
    /// A command that repairs the history, or moves it into a cluster.
    Repair,
}

/// The note of the process that holds the folder.
struct Holder {
    process: Option<u32>,
    role: Role,
}

impl Holder {
    fn read(file: &mut File) -> Self {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.take(NOTE_BYTES_MAX).read_to_string(&mut text));
        let mut words = if read.is_ok() { text.split_whitespace() } else { "".split_whitespace() };
        let process = words.next().and_then(|number| number.parse().ok());
        let role = match words.next() {
            Some(REKEY) => Role::Rekey,
            Some(REPAIR) => Role::Repair,
            Some(_) | None => Role::Broker,
        };
        Self { process, role }
    }
}

/// Writes the note that [`Holder::read`] reads.
fn note(role: Role, file: &mut File) -> io::Result<()> {
    let process = std::process::id();
    let text = match role {
        Role::Broker => format!("{process}\n"),
        Role::Rekey => format!("{process} {REKEY}\n"),
        Role::Repair => format!("{process} {REPAIR}\n"),
    };
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

fn taken(role: Role, holder: &Holder, data_dir: &Path) -> StoreError {
    let process = holder.process.map(|number| format!(" (process {number})")).unwrap_or_default();
    let words = match (holder.role, role) {
        (Role::Rekey, Role::Broker) => {
            format!("a command{process} is giving the credential store a new key; start again when it has ended")
        }
        (Role::Rekey, Role::Rekey | Role::Repair) => {
            format!("another command{process} is giving the credential store a new key; nothing was changed")
        }
        (Role::Repair, Role::Broker) => {
            format!("a command{process} is repairing or moving the history; start again when it has ended")
        }
        (Role::Repair, Role::Rekey | Role::Repair) => {
            format!("another command{process} is repairing or moving the history; nothing was changed")
        }
        (Role::Broker, Role::Broker) => format!(
            "another broker{process} runs on this data folder; stop it, or give this one a folder of its own with \
             --data-dir"
        ),
        (Role::Broker, Role::Rekey | Role::Repair) => {
            format!("a broker{process} runs on this data folder; nothing was changed; stop it first")
        }
    };
    StoreError::unusable(format!("{}: {words}", data_dir.display()))
}

fn open_lock(path: &Path) -> Result<File, StoreError> {
    open_or_create(path).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> StoreError {
    StoreError::file(path, "cannot be written", error)
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

    #[test]
    fn a_start_waits_for_a_command_that_gives_the_store_a_new_key() {
        let folder = tempfile::tempdir().unwrap();
        let command = FolderLock::take_for_rekey(folder.path()).unwrap();
        let mut file = open_lock(&FolderLock::path(folder.path())).unwrap();
        let holder = Holder::read(&mut file);
        assert_eq!((holder.process, holder.role), (Some(std::process::id()), Role::Rekey));
        let words = taken(Role::Broker, &holder, folder.path()).to_string();
        assert!(words.contains("is giving the credential store a new key; start again") && !words.contains("another"));
        // Nothing ends the wait early.
        let (_never, moment) = std::sync::mpsc::channel::<()>();
        let working = std::thread::spawn(move || {
            assert!(moment.recv_timeout(2 * MOMENT).is_err());
            drop(command);
        });
        drop(FolderLock::take(folder.path()).unwrap());
        working.join().unwrap();
        // The note of the command is gone.
        let _broker = FolderLock::take(folder.path()).unwrap();
        let words = FolderLock::take_for_rekey(folder.path()).unwrap_err().to_string();
        assert!(words.contains("a broker") && words.contains(&std::process::id().to_string()), "{words}");
    }
}
