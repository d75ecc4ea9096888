//! [`Audit`]: who fetched, wrote or administered what, and with what outcome. One JSON object per line, each with a hash of
//! the line before it, never a secret.
//!
//! `record` is one line, `log` the file with its chain of hashes, `tail` the end of a file, `rotation` the older files,
//! `verify` checks them. `allowance` limits the records that unregistered connections can cause.
//!
//! A thread of its own writes, so that neither the router nor a handler waits long for a disk. Records that cannot be
//! written are counted, logged once a minute, and noted in a record of their own as soon as writing works again.

mod allowance;
mod log;
mod record;
mod rotation;
mod tail;
mod verify;

pub use record::{Entry, Event};
pub use rotation::Rotation;
pub use verify::{Break, Report, verify};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use std::{io, iter};

use parking_lot::Mutex;

use wire::ErrorCode;

use crate::store::{try_file, try_lock_file};
use allowance::Allowance;
use log::Log;
use record::Record;

/// The most records that wait for the disk: about 2 MiB at 400 bytes each.
const QUEUE_RECORDS: usize = 4096;

/// How long a fetch waits for its record to be written.
const WRITE_WAIT: Duration = Duration::from_secs(1);

/// The time between two logged faults.
const FAULT_EVERY: Duration = Duration::from_mins(1);

/// How long the queued records get to be written at the end.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// How often the end is looked for.
const END_LOOK: Duration = Duration::from_millis(1);

/// The audit log, open for appending. Dropping it writes what is queued, and logs how many records could not be written
/// within two seconds.
pub struct Audit {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    required: bool,
}

/// Why a record is not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// It was not written, and is counted as lost.
    Lost,
    /// It is not written yet, and may be later.
    Late,
}

/// What the writer and [`Audit`] share: the records that are not in the file.
#[derive(Default)]
struct Shared {
    /// Records that could not be written, and that no record counts yet.
    lost: AtomicU64,
    /// Records that wait for the disk.
    queued: AtomicU64,
    /// All records, and those of them that could not be written.
    recorded: AtomicU64,
    failed: AtomicU64,
    /// Limits the records that unregistered connections cause, and counts those above the limit.
    unregistered: Mutex<Allowance>,
}

impl Shared {
    /// Counts a queued record as lost. What it says of `unrecorded` events, a later record says.
    fn lose(&self, unrecorded: u64) {
        self.unregistered.lock().give_back(unrecorded);
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns how many records are not in the file.
    fn unwritten(&self) -> u64 {
        self.lost.load(Ordering::Relaxed) + self.queued.load(Ordering::Relaxed)
    }
}

/// One record to write.
struct Job {
    when: SystemTime,
    record: Record,
    /// Events of its kind that left no record, as the record says.
    unrecorded: u64,
    /// Gets whether it was written.
    written: Option<SyncSender<bool>>,
}

/// The path of the log in a data folder.
#[must_use]
pub fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("audit.jsonl")
}

/// Appends one record to the log of a data folder, beside a broker that may be running, and waits until it is written.
/// Leaves rotation to the broker: a new file of an administrator's could not be written by it.
///
/// # Errors
/// The file cannot be written; the error names it.
pub fn append(data_dir: &Path, entry: &Entry<'_>) -> io::Result<()> {
    let path = path_in(data_dir);
    let never = Rotation { bytes: u64::MAX, ..Rotation::default() };
    let written = Record::new(now(), entry, 0).and_then(|record| Log::new(&path, never).append(&record));
    written.map_err(|error| named(&path, &error))
}

impl Audit {
    /// Opens the log of a data folder, readable for its owner only.
    ///
    /// # Errors
    /// The file cannot be written; the error names it.
    pub fn open(data_dir: &Path, rotation: Rotation) -> io::Result<Self> {
        let path = path_in(data_dir);
        let log = Log::new(&path, rotation);
        log.make().map_err(|error| named(&path, &error))?;
        Self::start(log, true)
    }

    /// Opens a log without which fetches go on (`credentials.audit_required = false`). If the file cannot be written
    /// now, the log says so, and each record tries again.
    ///
    /// # Errors
    /// The writing thread cannot be started.
    pub fn open_optional(data_dir: &Path, rotation: Rotation) -> io::Result<Self> {
        let path = path_in(data_dir);
        let log = Log::new(&path, rotation);
        if let Err(error) = log.make() {
            let error = named(&path, &error);
            tracing::warn!(%error, "credentials are served without audit records (credentials.audit_required = false)");
        }
        Self::start(log, false)
    }

    /// Tries whether the files of the log that exist can be written, and changes nothing.
    ///
    /// # Errors
    /// A file cannot be written; the error names it.
    pub fn try_open(data_dir: &Path) -> io::Result<()> {
        let path = path_in(data_dir);
        let lock = log::lock_path(&path);
        try_lock_file(&lock).map_err(|error| named(&lock, &error))?;
        try_file(&path).map(drop).map_err(|error| named(&path, &error))
    }

    fn start(log: Log, required: bool) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE_RECORDS);
        let shared = Arc::<Shared>::default();
        let mut writer = Writer { log, required, shared: Arc::clone(&shared), last_fault: None };
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&jobs))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), shared, required })
    }

    /// Whether a fetch without a record is refused.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Returns how many records there were since the log was opened, and how many of them could not be written.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.recorded.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed))
    }

    /// Returns whether records could not be written, and none has been written since.
    pub fn is_failing(&self) -> bool {
        self.shared.lost.load(Ordering::Relaxed) > 0
    }

    /// Queues a record. Never waits.
    pub fn record(&self, entry: &Entry<'_>) {
        self.send(entry, 0, None);
    }

    /// Queues a record that an unregistered connection caused, or a refused renewal. Above a limit, which all of these
    /// share, such records are only counted: otherwise anybody could push the other ones out of the rotating log.
    pub fn record_unregistered(&self, entry: &Entry<'_>) {
        let taken = self.shared.unregistered.lock().take(now());
        if let Some(unrecorded) = taken {
            self.send(entry, unrecorded, None);
        }
    }

    /// Queues a record and waits, up to a limit, until it is in the file.
    ///
    /// # Errors
    /// The record is not in the file.
    pub fn record_and_wait(&self, entry: &Entry<'_>) -> Result<(), Unwritten> {
        let (written, wait) = sync_channel(1);
        self.send(entry, 0, Some(written));
        match wait.recv_timeout(WRITE_WAIT) {
            Ok(true) => Ok(()),
            Ok(false) | Err(RecvTimeoutError::Disconnected) => Err(Unwritten::Lost),
            Err(RecvTimeoutError::Timeout) => Err(Unwritten::Late),
        }
    }

    fn send(&self, entry: &Entry<'_>, unrecorded: u64, written: Option<SyncSender<bool>>) {
        let when = now();
        let record = Record::new(when, entry, unrecorded).ok();
        self.shared.recorded.fetch_add(1, Ordering::Relaxed);
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        let sent = record
            .zip(self.queue.as_ref())
            .is_some_and(|(record, queue)| queue.try_send(Job { when, record, unrecorded, written }).is_ok());
        if !sent {
            self.shared.lose(unrecorded);
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.queue = None;
        let Some(thread) = self.thread.take() else { return };
        let mut waited = Duration::ZERO;
        while !thread.is_finished() && waited < LAST_WRITES {
            std::thread::sleep(END_LOOK);
            waited += END_LOOK;
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("the audit thread failed");
        }
        let (records, unrecorded) = (self.shared.unwritten(), self.shared.unregistered.lock().unrecorded());
        if records > 0 || unrecorded > 0 {
            tracing::error!(records, unrecorded, "audit records could not be written before the broker ended");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a record has the time of day; only the pace of logged faults depends on it"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: the audit log cannot be written: {error}", path.display()))
}

/// Writes records, in a thread of its own.
struct Writer {
    log: Log,
    required: bool,
    shared: Arc<Shared>,
    last_fault: Option<SystemTime>,
}

impl Writer {
    fn run(&mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            let fault = self.write(&job).err();
            // Each of the queued records would wait as long as this one did, and the end of the broker for all of them. They
            // are taken before any of them ends: the lock may be free for what is queued after that.
            let stuck = fault.as_ref().is_some_and(|fault| fault.kind() == io::ErrorKind::TimedOut);
            let queued: Vec<_> = jobs.try_iter().take(if stuck { QUEUE_RECORDS } else { 0 }).collect();
            for job in iter::once(job).chain(queued) {
                self.end(job, fault.as_ref());
            }
        }
        let when = now();
        if let Err(error) = self.note_lost(when).and_then(|()| self.note_unrecorded(when)) {
            self.log_fault(when, &error);
        }
    }

    /// Counts a record, and passes on whether it was written.
    fn end(&mut self, job: Job, fault: Option<&io::Error>) {
        match fault {
            None => {
                self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            }
            Some(error) => {
                self.shared.lose(job.unrecorded);
                self.log_fault(job.when, error);
            }
        }
        if job.written.is_some_and(|written| written.try_send(fault.is_none()).is_err()) {
            tracing::debug!("an audit record was written after its fetch had stopped waiting");
        }
    }

    /// Writes a record, after one that counts those that were lost before it.
    fn write(&mut self, job: &Job) -> io::Result<()> {
        self.note_lost(job.when)?;
        self.log.append(&job.record)
    }

    /// Writes how many records were lost, if any were.
    fn note_lost(&mut self, when: SystemTime) -> io::Result<()> {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost == 0 {
            return Ok(());
        }
        let entry =
            Entry { outcome: Some(ErrorCode::StorageUnavailable), count: Some(lost), ..Entry::new(Event::Lost) };
        self.log.append(&Record::new(when, &entry, 0)?)?;
        self.shared.lost.fetch_sub(lost, Ordering::Relaxed);
        Ok(())
    }

    /// Writes how many events left no record since the last one of their kind that did, if any. Only at the end: before it,
    /// the next record of their kind says so.
    fn note_unrecorded(&mut self, when: SystemTime) -> io::Result<()> {
        let unrecorded = self.shared.unregistered.lock().take_unrecorded();
        if unrecorded == 0 {
            return Ok(());
        }
        let record = Record::new(when, &Entry::new(Event::Unrecorded), unrecorded);
        record
            .and_then(|record| self.log.append(&record))
            .inspect_err(|_| self.shared.unregistered.lock().give_back(unrecorded))
    }

    fn log_fault(&mut self, when: SystemTime, error: &io::Error) {
        let recent = |last: SystemTime| when.duration_since(last).is_ok_and(|since| since < FAULT_EVERY);
        if self.last_fault.is_none_or(|last| !recent(last)) {
            self.last_fault = Some(when);
            let fetches = if self.required { "refused" } else { "answered" };
            tracing::error!(
                path = %self.log.path().display(), %error, lost = self.shared.lost.load(Ordering::Relaxed), fetches,
                "audit records cannot be written; credentials.audit_required says whether fetches go on",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_record_that_is_lost_gives_its_count_of_unrecorded_events_to_a_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_in(folder.path());
        let mut audit = Audit::open(folder.path(), Rotation::default()).unwrap();
        // A folder in the file's place stands for a disk that fails.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        audit.send(&Entry::new(Event::RegistrationRefused), 5, None);
        assert_eq!(audit.record_and_wait(&Entry::new(Event::Fetch)), Err(Unwritten::Lost));
        fs::remove_dir(&path).unwrap();
        // The queue takes no more.
        let queue = audit.queue.take();
        audit.send(&Entry::new(Event::RegistrationRefused), 7, None);
        audit.queue = queue;
        drop(audit);
        let report = verify(&path).unwrap();
        assert_eq!((report.lost, report.unrecorded, report.records, report.broken), (3, 12, 2, 0), "{report:?}");
    }
}
