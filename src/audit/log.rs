//! [`Log`]: the file, to which several processes may append, and the chain of its lines.
//!
//! A record has the SHA-256 of the line before it. While a process reads the end of the file, appends and rotates, it
//! holds `audit.lock`. The chain goes on over a restart, a rotation, and a line that a crash cut short.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{Hash, Record, hash};
use super::rotation::{Rotation, newest};
use super::tail::Tail;
use crate::store::{create_new, open_or_create};

/// How long a process waits for another one that is appending.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How often it tries again.
const LOCK_LOOK: Duration = Duration::from_millis(1);

/// The log of one path.
pub(super) struct Log {
    path: PathBuf,
    rotation: Rotation,
    file: Option<File>,
    /// The last record that this process wrote.
    last: Option<Last>,
    /// The size at which rotation is tried, in bytes: more after a rotation that failed.
    rotate_at: u64,
    rotation_fails: bool,
}

/// A record in the present file.
#[derive(Clone, Copy)]
struct Last {
    /// Where its line ends.
    end: u64,
    hash: Hash,
}

/// Where the next record is written.
struct End {
    file: File,
    size: u64,
    /// The last line has no line end.
    cut: bool,
    /// The hash of the line before.
    previous: Option<Hash>,
}

impl Log {
    pub(super) fn new(path: &Path, rotation: Rotation) -> Self {
        Self {
            path: path.to_owned(),
            rotation,
            file: None,
            last: None,
            rotate_at: rotation.bytes,
            rotation_fails: false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file if it is missing, so that a fault shows before the first record.
    pub(super) fn make(&self) -> io::Result<()> {
        let _lock = lock(&self.path)?;
        open_file(&self.path).map(drop)
    }

    /// Writes one record at the end of the present file; another program may have moved or emptied it.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        let _lock = lock(&self.path)?;
        let End { mut file, mut size, mut cut, previous } = self.end()?;
        let line = record.after(previous.as_ref());
        if size > 0 && size + line.len() as u64 + 1 > self.rotate_at {
            let rotated = self.rotation.rotate(&self.path);
            self.note_rotation(size, rotated);
            if !is_at(&file, &self.path) {
                file = open_file(&self.path)?;
                (size, cut) = (file.metadata()?.len(), false);
            }
        }
        let text = [if cut { b"\n".as_slice() } else { b"" }, &line, b"\n"].concat();
        if let Err(error) = file.write_all(&text) {
            // On a full disk, half a line would be left. If it cannot be cut off, the next record completes it.
            if let Err(error) = file.set_len(size) {
                tracing::debug!(%error, "half an audit record is left");
            }
            return Err(error);
        }
        self.last = Some(Last { end: size + text.len() as u64, hash: hash(&line) });
        self.file = Some(file);
        Ok(())
    }

    /// Finds the end of the chain. Needs the lock.
    fn end(&mut self) -> io::Result<End> {
        match self.file.take() {
            Some(file) if is_at(&file, &self.path) => self.end_of_same(file),
            before => self.end_of_other(before),
        }
    }

    /// The end of the file that this process appended to before.
    fn end_of_same(&self, file: File) -> io::Result<End> {
        let size = file.metadata()?.len();
        match self.last {
            Some(Last { end, hash }) if end == size => Ok(End { file, size, cut: false, previous: Some(hash) }),
            last => {
                let Tail { cut, hash } = Tail::read(&file)?;
                // If lines were taken away since, the next one still follows the last that was written, so it shows.
                let previous = last.filter(|last| size < last.end).map(|last| last.hash).or(hash);
                Ok(End { file, size, cut, previous })
            }
        }
    }

    /// The end of a file that is new to this process: at its start, or because the file was moved or replaced.
    fn end_of_other(&mut self, before: Option<File>) -> io::Result<End> {
        let file = open_file(&self.path)?;
        let size = file.metadata()?.len();
        let Tail { cut, hash } = Tail::read(&file)?;
        let moved = before.as_ref().map(Tail::read).transpose()?.and_then(|tail| tail.hash);
        let previous = match size {
            0 => moved.or(self.last.map(|last| last.hash)).or_else(|| self.before_present()),
            // A file that was replaced, not moved, must not hide what it lacks.
            _ if before.is_some_and(|before| is_unlinked(&before)) => moved.or(hash),
            _ => hash,
        };
        self.rotate_at = self.rotation.bytes;
        Ok(End { file, size, cut, previous })
    }

    /// The last line before the present file.
    fn before_present(&self) -> Option<Hash> {
        let file = newest(&self.path).iter().find_map(|path| File::open(path).ok())?;
        Tail::read(&file).ok()?.hash
    }

    fn note_rotation(&mut self, size: u64, rotated: io::Result<()>) {
        match rotated {
            Ok(()) => {
                if std::mem::take(&mut self.rotation_fails) {
                    tracing::info!(path = %self.path.display(), "the audit file is rotated again");
                }
                self.rotate_at = self.rotation.bytes;
            }
            Err(error) => {
                self.rotate_at = size + self.rotation.bytes / 8;
                if !std::mem::replace(&mut self.rotation_fails, true) {
                    tracing::warn!(
                        path = %self.path.display(), %error,
                        "the audit file cannot be rotated; records are appended to it beyond its size"
                    );
                }
            }
        }
    }
}

/// Returns whether the path still names the open file.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    }
    #[cfg(not(unix))]
    {
        open.is_file() && named.is_file()
    }
}

/// Returns whether the open file has no name any more.
fn is_unlinked(file: &File) -> bool {
    #[cfg(unix)]
    {
        file.metadata().is_ok_and(|metadata| std::os::unix::fs::MetadataExt::nlink(&metadata) == 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

/// Opens the file for appending, and makes it private if it is not. A file whose mode cannot be changed, because it is
/// append-only or another user's, is used as it is.
fn open_file(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).append(true).open(path);
    let file = match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => match create_new(path, b"") {
            // Another process was faster.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => open()?,
        },
        opened => opened?,
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0
            && let Err(error) = file.set_permissions(PermissionsExt::from_mode(0o600))
        {
            tracing::warn!(
                path = %path.display(), %error,
                "other users of this machine may read the audit log, and its mode cannot be changed"
            );
        }
    }
    Ok(file)
}

/// Keeps other processes from appending, until it is dropped.
fn lock(path: &Path) -> io::Result<File> {
    wait_for(open_or_create(&lock_path(path))?)
}

/// The same for a reader, which does not make the file of the lock.
pub(super) fn lock_if_there(path: &Path) -> Option<File> {
    wait_for(File::open(lock_path(path)).ok()?).ok()
}

/// The path of the lock of the log at a path.
pub(super) fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

fn wait_for(file: File) -> io::Result<File> {
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if waited >= LOCK_WAIT => {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "another process has been writing to it for 2 seconds",
                ));
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(LOCK_LOOK);
                waited += LOCK_LOOK;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::SystemTime;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::audit::{Entry, Event};

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_rotation_that_fails_is_logged_once_and_so_is_the_next_that_works() {
        let folder = tempfile::tempdir().unwrap();
        let in_the_way = folder.path().join("audit.jsonl.1");
        fs::create_dir_all(in_the_way.join("folder")).unwrap();
        let record = Record::new(SystemTime::UNIX_EPOCH, &Entry::new(Event::Fetch), 0).unwrap();
        let mut log = Log::new(&folder.path().join("audit.jsonl"), Rotation { bytes: 1000, kept: 1 });
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt().with_writer(kept.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..50 {
                log.append(&record).unwrap();
            }
            fs::remove_dir_all(&in_the_way).unwrap();
            for _ in 0..50 {
                log.append(&record).unwrap();
            }
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("cannot be rotated").count(), 1, "{text}");
        assert_eq!(text.matches("is rotated again").count(), 1, "{text}");
    }
}
