//! [`Rotation`]: when the file of the log is full, and how it becomes `audit.jsonl.1` without losing a kept one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::store::beside;

/// When the file is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The largest size of a file, in bytes.
    pub bytes: u64,
    /// How many full files are kept, as `audit.jsonl.1` (the newest) and so on.
    pub kept: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { bytes: 8 << 20, kept: 5 }
    }
}

impl Rotation {
    /// Gives the full file its number. It is moved aside first: if that fails, as with a file that is mounted by itself
    /// or append-only, no kept file has lost its place. Needs the lock of the log.
    ///
    /// # Errors
    /// A rename failed. The file has its name back, unless that failed too: then it stays aside until the next rotation.
    pub(super) fn rotate(self, path: &Path) -> io::Result<()> {
        let aside = aside(path);
        if fs::symlink_metadata(&aside).is_ok() {
            self.shelve(path, &aside)?;
        }
        fs::rename(path, &aside)?;
        self.shelve(path, &aside).inspect_err(|_| {
            if let Err(error) = fs::rename(&aside, path) {
                tracing::debug!(%error, "an audit file stays aside");
            }
        })
    }

    /// Makes room for the file that was moved aside, and puts it there.
    fn shelve(self, path: &Path, aside: &Path) -> io::Result<()> {
        if self.kept == 0 {
            return fs::remove_file(aside);
        }
        for number in (1..self.kept).rev() {
            match fs::rename(numbered(path, number), numbered(path, number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(aside, numbered(path, 1))
    }
}

/// The full file while it has no number.
fn aside(path: &Path) -> PathBuf {
    beside(path, ".rotating")
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    beside(path, &format!(".{number}"))
}

/// The file before the present one, if there may be one: the first of these that exists.
pub(super) fn newest(path: &Path) -> [PathBuf; 2] {
    [aside(path), numbered(path, 1)]
}

/// The older files that exist, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn older(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return Ok(Vec::new()) };
    let mut numbers = BTreeSet::<u32>::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?.file_name();
        let number = entry.to_str().and_then(|entry| entry.strip_prefix(&name)?.strip_prefix('.'));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    let files = numbers.into_iter().rev().map(|number| numbered(path, number)).chain([aside(path)]);
    Ok(files.filter(|file| file.is_file()).collect())
}
