//! [`Audit`]: who fetched whose credentials, and with what outcome. One JSON object per line, never a secret.
//!
//! A thread of its own writes, so that neither the router nor a fetch waits long for a disk. A record that cannot be
//! written does not stop a fetch: otherwise a full disk would take a whole call centre off its telephones, while an
//! intruder who can fill the disk could as well read the record. Each loss is counted, logged once a minute, and noted
//! in a record of its own as soon as writing works again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::adapter::{Given, Refused};
use crate::router::SessionId;
use crate::store::{private, try_file};
use wire::ErrorCode;

/// The most records that wait for the disk: 1 MiB at about 300 bytes each.
const QUEUE_RECORDS: usize = 4096;

/// How long a fetch waits for its record to be written.
const WRITE_WAIT: Duration = Duration::from_secs(1);

/// The time between two logged faults.
const FAULT_EVERY: Duration = Duration::from_mins(1);

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

/// The record, open for appending. Dropping it writes what is queued.
pub struct Audit {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    lost: Arc<AtomicU64>,
}

/// Who asked, for a record.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    source: &'a str,
    user: Option<&'a str>,
    /// `None` before registration.
    session: Option<SessionId>,
}

impl<'a> From<&'a Given> for Requester<'a> {
    fn from(given: &'a Given) -> Self {
        Self { source: &given.source, user: given.user.as_deref(), session: Some(given.session) }
    }
}

impl<'a> From<&'a Refused<'_>> for Requester<'a> {
    fn from(refused: &'a Refused<'_>) -> Self {
        Self { source: refused.source, user: refused.user, session: refused.session }
    }
}

/// One line to write, and who waits for it.
struct Job {
    when: SystemTime,
    line: Vec<u8>,
    written: Option<SyncSender<()>>,
}

#[derive(Serialize)]
struct Record<'a> {
    when: String,
    source: &'a str,
    user: Option<&'a str>,
    session: String,
    outcome: &'a str,
}

/// Marks the place of lost records.
#[derive(Serialize)]
struct Gap {
    when: String,
    lost: u64,
}

impl Audit {
    /// Opens `audit.jsonl` in the data folder, readable for its owner only.
    ///
    /// # Errors
    /// The file cannot be written; the error names it.
    pub fn open(data_dir: &Path, rotation: Rotation) -> io::Result<Self> {
        let path = data_dir.join("audit.jsonl");
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: the audit record cannot be written: {error}", path.display()))
        };
        let file = open_file(&path).map_err(named)?;
        let (queue, jobs) = sync_channel(QUEUE_RECORDS);
        let lost = Arc::new(AtomicU64::new(0));
        let mut writer =
            Writer { path: path.clone(), file: Some(file), rotation, lost: Arc::clone(&lost), last_fault: None };
        let thread =
            std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&jobs)).map_err(named)?;
        Ok(Self { queue: Some(queue), thread: Some(thread), lost })
    }

    /// Tries whether an existing file can be written, and changes nothing.
    ///
    /// # Errors
    /// The file cannot be written; the error names it.
    pub fn try_open(data_dir: &Path) -> io::Result<()> {
        let path = data_dir.join("audit.jsonl");
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: the audit record cannot be written: {error}", path.display()))
        };
        try_file(&path).map(drop).map_err(named)
    }

    /// Queues a record; `None` means success. Never waits.
    pub fn record(&self, by: &Requester<'_>, outcome: Option<ErrorCode>) {
        self.send(by, outcome, None);
    }

    /// Queues a record and waits, up to a limit, until it is in the file.
    pub fn record_and_wait(&self, by: &Requester<'_>, outcome: Option<ErrorCode>) {
        let (written, wait) = sync_channel(1);
        self.send(by, outcome, Some(written));
        if wait.recv_timeout(WRITE_WAIT).is_err() {
            tracing::debug!("an audit record was not written in time");
        }
    }

    fn send(&self, by: &Requester<'_>, outcome: Option<ErrorCode>, written: Option<SyncSender<()>>) {
        #[expect(clippy::disallowed_methods, reason = "a record says the hour of the day, which no rule depends on")]
        let when = SystemTime::now();
        let record = Record {
            when: humantime::format_rfc3339_millis(when).to_string(),
            source: by.source,
            user: by.user,
            session: by.session.map(|session| session.to_string()).unwrap_or_default(),
            outcome: outcome.map_or("ok", ErrorCode::as_str),
        };
        let sent = line(&record).ok().zip(self.queue.as_ref()).map(|(line, queue)| {
            queue.try_send(Job { when, line, written }).map_err(|error| match error {
                TrySendError::Full(_) | TrySendError::Disconnected(_) => (),
            })
        });
        if sent != Some(Ok(())) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the audit thread failed");
        }
    }
}

fn line(record: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    rotation: Rotation,
    lost: Arc<AtomicU64>,
    last_fault: Option<SystemTime>,
}

impl Writer {
    fn run(&mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            if let Err(error) = self.write(&job) {
                self.lost.fetch_add(1, Ordering::Relaxed);
                self.fault(job.when, &error);
            }
            if job.written.is_some_and(|written| written.try_send(()).is_err()) {
                tracing::debug!("an audit record was written after its fetch stopped waiting");
            }
        }
    }

    fn write(&mut self, job: &Job) -> io::Result<()> {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let gap = if lost == 0 {
            Vec::new()
        } else {
            line(&Gap { when: humantime::format_rfc3339_millis(job.when).to_string(), lost })?
        };
        let outcome = self.append(&[gap.as_slice(), &job.line].concat());
        if outcome.is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        outcome
    }

    /// Writes one line at the end of the present file; another program may have moved or emptied it.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) if is_at(&file, &self.path) => file,
            Some(_) | None => open_file(&self.path)?,
        };
        let size = file.metadata()?.len();
        if size > 0 && size + line.len() as u64 > self.rotation.bytes {
            file = self.rotate()?;
        }
        let start = file.metadata()?.len();
        let outcome = file.write_all(line);
        if outcome.is_err() {
            // On a full disk, half a line would spoil the next one.
            file.set_len(start)?;
        }
        self.file = Some(file);
        outcome
    }

    fn rotate(&self) -> io::Result<File> {
        let numbered = |number: u32| self.path.with_extension(format!("jsonl.{number}"));
        for number in (1..self.rotation.kept).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        if self.rotation.kept == 0 {
            fs::remove_file(&self.path)?;
        } else {
            fs::rename(&self.path, numbered(1))?;
        }
        open_file(&self.path)
    }

    fn fault(&mut self, when: SystemTime, error: &io::Error) {
        let recent = |last: SystemTime| when.duration_since(last).is_ok_and(|since| since < FAULT_EVERY);
        if self.last_fault.is_none_or(|last| !recent(last)) {
            self.last_fault = Some(when);
            tracing::error!(
                path = %self.path.display(), %error, lost = self.lost.load(Ordering::Relaxed),
                "audit records cannot be written; credentials are still served",
            );
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

/// Opens the file for appending, completes a line that a crash cut short, and makes the file private.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    private(&mut options);
    let mut file = options.open(path)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}
