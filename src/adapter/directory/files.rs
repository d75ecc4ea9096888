//! Files that only their owner may read: the folder, the key, the store, and the locks beside them.
//!
//! Nothing here knows what the files hold. Modes are Unix; elsewhere a file has what its folder gives it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::DirectoryError;

/// Held by the broker for as long as it runs.
const BROKER_LOCK: &str = "switchboard.lock";

/// How long a process waits for another that is about to make the key or the store, or is writing to it.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// How often it looks again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The data folder as one broker's own. Dropped, it is free again; a killed process lets go of it too.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder where it is missing, and takes it.
    ///
    /// # Errors
    /// Another broker has it, or the folder cannot be written.
    pub fn take(data_dir: &Path) -> Result<Self, DirectoryError> {
        make_folder(data_dir)?;
        let path = data_dir.join(BROKER_LOCK);
        let mut file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(data_dir, &mut file)),
            Err(TryLockError::Error(error)) => return Err(DirectoryError::file(&path, "cannot be locked", &error)),
        }
        // The number helps whoever is refused; the lock is what counts, so a full disk is no reason to stop.
        if file.set_len(0).is_ok() && writeln!(file, "{}", std::process::id()).is_err() {
            tracing::debug!(path = %path.display(), "the process number could not be written to the lock file");
        }
        Ok(Self { _file: file })
    }
}

fn taken(data_dir: &Path, file: &mut File) -> DirectoryError {
    let mut holder = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut holder));
    let process = match (read, holder.trim().parse::<u32>()) {
        (Ok(_), Ok(number)) => format!(" (process {number})"),
        _ => String::new(),
    };
    DirectoryError::new(format!(
        "{}: another broker{process} runs on this data folder; stop it, or give this one a folder of its own with \
         --data-dir",
        data_dir.display()
    ))
}

fn open_lock(path: &Path) -> Result<File, DirectoryError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    private(&mut options);
    options.open(path).map_err(|error| DirectoryError::file(path, "cannot be written", &error))
}

/// Takes the lock that makers of the key and the store hold, waiting for a bounded while.
pub(super) fn lock_making(path: &Path) -> Result<File, DirectoryError> {
    let file = open_lock(path)?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(DirectoryError::file(path, "cannot be locked", &error)),
            Err(TryLockError::WouldBlock) if waited >= WAIT => {
                return Err(DirectoryError::new(format!(
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

/// Makes the folder and those above it, for the owner only; one that exists keeps its mode.
pub(super) fn make_folder(path: &Path) -> Result<(), DirectoryError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| {
        DirectoryError::new(format!(
            "{}: the data folder cannot be made: {error}; name a folder that may be written with --data-dir or data_dir",
            path.display()
        ))
    })
}

/// Makes a file that must not exist yet, and sees it to the disk.
pub(super) fn create_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    private(&mut options);
    let mut file = options.open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Renames, and sees the new name to the disk.
pub(in crate::adapter) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(to)
}

/// A new name lasts only when its folder has reached the disk, which Windows neither needs nor offers.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder_of(path))?.sync_all() } else { Ok(()) }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A file made with these options is its owner's only.
pub(in crate::adapter) fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

/// Whether anybody beside the owner and his group may read the file, or the group may write it.
pub(super) fn open_to_others(file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions());
        Ok(mode & 0o027 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(false)
    }
}
