//! [`Log`]: the file, to which several processes may append, and the chain of its lines.
//!
//! A record has the SHA-256 of the line before it. While a process reads the end of the file, appends and rotates, it
//! holds `audit.lock`, which also has the hash of the last line: the next record follows that line wherever another
//! program moved it, and even if it was removed. The chain continues over a restart, a rotation, and a line that a crash
//! cut short.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{Hash, Record, hash};
use super::rotation::{Rotation, newest};
use super::tail::Tail;
use crate::store::{create_new, open_or_create, open_regular, open_to_append};

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
        let lock = lock(&self.path)?;
        let End { mut file, mut size, mut cut, previous } = self.end(noted(&lock)?)?;
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
        let hash = hash(&line);
        // A crash between the two leaves the hash of an earlier line, which the next record allows for.
        if let Err(error) = file.write_all(&text).and_then(|()| note(&lock, &hash)) {
            // On a full disk, half a line would be left. If it cannot be cut off, the next record completes it.
            if let Err(error) = file.set_len(size) {
                tracing::debug!(%error, "half an audit record is left");
            }
            return Err(error);
        }
        self.last = Some(Last { end: size + text.len() as u64, hash });
        self.file = Some(file);
        Ok(())
    }

    /// Finds the end of the chain. `noted` is the hash in the file of the lock. Needs the lock.
    fn end(&mut self, noted: Option<Hash>) -> io::Result<End> {
        let file = match self.file.take().filter(|file| is_at(file, &self.path)) {
            Some(file) => {
                let size = file.metadata()?.len();
                if let Some(Last { end, hash }) = self.last
                    && end == size
                    && noted == Some(hash)
                {
                    return Ok(End { file, size, cut: false, previous: noted });
                }
                file
            }
            None => {
                self.rotate_at = self.rotation.bytes;
                open_file(&self.path)?
            }
        };
        let size = file.metadata()?.len();
        let known = noted.or(self.last.map(|last| last.hash));
        let Tail { cut, hash, has_known } = Tail::read(&file, known)?;
        let previous = match known {
            // The line is in another file, or was removed. If it was removed, the next record shows it.
            Some(_) if !has_known => known,
            Some(_) => hash,
            None => hash.or_else(|| self.before_present()),
        };
        Ok(End { file, size, cut, previous })
    }

    /// The last line before the present file.
    fn before_present(&self) -> Option<Hash> {
        let file = newest(&self.path).iter().find_map(|path| open_regular(path).ok())?;
        Tail::read(&file, None).ok()?.hash
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

/// Opens the file for appending, and makes it private if it is not. A file whose mode cannot be changed, because it is
/// append-only or another user's, is used as it is, unless root would have to follow another user's link to it.
fn open_file(path: &Path) -> io::Result<File> {
    let open = || open_to_append(path);
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
    wait_for(open_regular(&lock_path(path)).ok()?).ok()
}

/// Reads the hash of the last line from the file of the lock: `None` before the first record, or if it is damaged.
pub(super) fn noted(mut lock: &File) -> io::Result<Option<Hash>> {
    let mut text = [0; 2 * size_of::<Hash>()];
    lock.rewind()?;
    match lock.read_exact(&mut text) {
        Ok(()) => {
            let mut hash = Hash::default();
            Ok(hex::decode_to_slice(text, &mut hash).is_ok().then_some(hash))
        }
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the hash of the last line into the file of the lock.
fn note(mut lock: &File, hash: &Hash) -> io::Result<()> {
    lock.rewind()?;
    lock.write_all(format!("{}\n", hex::encode(hash)).as_bytes())
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
