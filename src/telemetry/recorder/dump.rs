//! [`Dumps`]: writes what the recorder has to a file.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde_json::json;

use super::{Filter, Recorder};
use crate::store::open_or_create;

/// How many files are kept.
const FILES_MAX: usize = 5;

/// How long after a file that a panic caused another panic causes none.
const PANIC_PAUSE: Duration = Duration::from_mins(1);

/// How the name of a file begins and ends.
const NAME: (&str, &str) = ("recent-", ".jsonl");

/// Writes the entries of a recorder to files in a folder, and keeps the last few files.
pub struct Dumps {
    recorder: Arc<Recorder>,
    folder: PathBuf,
    /// One at a time.
    writing: Mutex<()>,
    /// When a panic caused one last.
    panicked: Mutex<Option<Instant>>,
}

/// A file that was not written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The recorder is turned off.
    #[error("the flight recorder is turned off (recorder.bytes = 0)")]
    Off,
    /// The folder or the file cannot be written.
    #[error("the flight recorder cannot be written to {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl Dumps {
    /// Files in this folder.
    #[must_use]
    pub fn new(recorder: Arc<Recorder>, folder: &Path) -> Self {
        Self { recorder, folder: folder.to_owned(), writing: Mutex::default(), panicked: Mutex::default() }
    }

    /// Writes everything to a file that its owner alone can read, and removes all but the last five. Blocks on the disk.
    /// `wall`: what time it is `now`.
    ///
    /// # Errors
    /// [`DumpError`].
    pub fn write(&self, now: Instant, wall: SystemTime) -> Result<PathBuf, DumpError> {
        if !self.recorder.is_on() {
            return Err(DumpError::Off);
        }
        let _one = self.writing.lock();
        // Without colons, which Windows does not allow.
        let time = humantime::format_rfc3339_micros(wall).to_string().replace(':', "-");
        let (begin, end) = NAME;
        let path = self.folder.join(format!("{begin}{time}{end}"));
        let written = self.write_to(now, wall, &path);
        written.map_err(|source| DumpError::File { path: path.clone(), source })?;
        self.remove_old();
        Ok(path)
    }

    fn write_to(&self, now: Instant, wall: SystemTime, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(open_or_create(path)?);
        let at = humantime::format_rfc3339_micros(wall).to_string();
        let header = json!({ "what": "dump", "at": at, "reach": self.recorder.reach() });
        writeln!(file, "{header}")?;
        for row in self.recorder.find(now, &Filter::default()).rows(&self.recorder) {
            serde_json::to_writer(&mut file, &row)?;
            file.write_all(b"\n")?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
    }

    /// Removes all files but the last ones. One that cannot be removed stays.
    fn remove_old(&self) {
        let (begin, end) = NAME;
        let is_one = |name: &str| name.starts_with(begin) && name.ends_with(end);
        let Ok(folder) = fs::read_dir(&self.folder) else { return };
        let mut names: Vec<_> = folder.filter_map(|it| it.ok()?.file_name().into_string().ok()).collect();
        names.retain(|name| is_one(name));
        // The name begins with the time.
        names.sort_unstable();
        for name in names.iter().rev().skip(FILES_MAX) {
            fs::remove_file(self.folder.join(name)).ok();
        }
    }

    /// Returns whether a panic causes a file now, and if so, that it does.
    pub fn begin_for_panic(&self, now: Instant) -> bool {
        let mut panicked = self.panicked.lock();
        let is_due = panicked.is_none_or(|last| now.saturating_duration_since(last) >= PANIC_PAUSE);
        if is_due {
            *panicked = Some(now);
        }
        is_due
    }
}
