//! [`Committer`]: the thread that writes what has to be on disk before it is delivered.
//!
//! One thread takes the events that have gathered, writes them in one transaction, and lets the router deliver them. While it
//! waits for the disk, the next ones gather, so under load a commit is shared by all publishers. Another thread reads what
//! memory no longer has (`history_reader`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::history_reader::read_history;
use crate::config::Config;
use crate::router::{CommitQueue, ReadQueue, Router, Uncommitted};
use crate::store::StoreError;
use crate::store::history::{Change, HistoryFile, HistoryLimits};
use crate::telemetry::metrics::StoredFile;

/// The events of a commit.
const EVENTS_MAX: usize = 1000;

/// The bytes of their texts.
const BYTES_MAX: usize = 16 << 20;

/// How often old entries are removed from the disk, and how often the log says that the disk cannot be used.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// How long the end of the broker waits for the last commit.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// What a reload can change.
#[derive(Clone, Copy)]
struct Settings {
    commit: Duration,
    limits: HistoryLimits,
}

impl Settings {
    fn new(config: &Config) -> Self {
        Self { commit: config.history.commit, limits: limits(config) }
    }
}

/// The bounds of the history's file.
pub(super) fn limits(config: &Config) -> HistoryLimits {
    let history = &config.history;
    HistoryLimits { disk_bytes: history.disk_bytes as u64, retry: history.retry, ids: history.ids }
}

/// The thread that commits, and the one that reads.
pub(super) struct Committer {
    router: Arc<Router>,
    settings: Arc<ArcSwap<Settings>>,
    /// The disk cannot be used.
    is_failing: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Committer {
    /// Starts the threads.
    pub(super) fn start(
        router: &Arc<Router>,
        (queue, reads): (CommitQueue, ReadQueue),
        file: HistoryFile,
        config: &Config,
    ) -> io::Result<Self> {
        let reader = file.reader();
        let settings = Arc::new(ArcSwap::from_pointee(Settings::new(config)));
        let is_failing = Arc::<AtomicBool>::default();
        let work = Work {
            router: Arc::clone(router),
            queue,
            file,
            settings: Arc::clone(&settings),
            gathered: 1,
            swept: now(),
            failing: None,
            is_failing: Arc::clone(&is_failing),
        };
        let committer = Self { router: Arc::clone(router), settings, is_failing, threads: Mutex::default() };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| -> io::Result<()> {
            committer.threads.lock().push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
            Ok(())
        };
        spawn("committer", Box::new(move || work.run()))?;
        let router = Arc::clone(router);
        spawn("history reader", Box::new(move || read_history(&router, &reads, &reader)))?;
        Ok(committer)
    }

    /// Puts another configuration in force.
    pub(super) fn replace(&self, config: &Config) {
        self.settings.store(Arc::new(Settings::new(config)));
    }

    /// Returns whether the last attempt to write has failed.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Ends the threads when everything that waits is committed. Blocks, but not for long.
    pub(super) fn stop(&self) {
        self.router.end_commits();
        self.router.end_disk_reads();
        let until = now() + LAST_COMMIT;
        for thread in std::mem::take(&mut *self.threads.lock()) {
            while !thread.is_finished() && now() < until {
                thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() || thread.join().is_err() {
                tracing::error!("the last events of durable channels may not be on disk; they were not confirmed");
            }
        }
    }
}

/// The file is closed before another broker gets the data folder.
impl Drop for Committer {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Work {
    router: Arc<Router>,
    queue: CommitQueue,
    file: HistoryFile,
    settings: Arc<ArcSwap<Settings>>,
    /// The events of the last commit.
    gathered: usize,
    /// When old entries were last removed.
    swept: Instant,
    /// While the disk cannot be used: when the log last said so.
    failing: Option<Instant>,
    is_failing: Arc<AtomicBool>,
}

impl Work {
    fn run(mut self) {
        self.forget();
        loop {
            let events = self.gather();
            self.file.set_limits(self.settings.load().limits);
            self.forget();
            match events {
                Ok(events) => self.commit(events),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if now().saturating_duration_since(self.swept) >= SWEEP_EVERY {
                self.swept = now();
                self.sweep();
            }
        }
    }

    /// Waits for events, and a moment for others that share their commit: as many as shared the last one are likely to come
    /// again, because their publishers wait for their receipts.
    fn gather(&mut self) -> Result<Vec<Uncommitted>, RecvTimeoutError> {
        let first = self.queue.receive(SWEEP_EVERY)?;
        let until = now() + self.settings.load().commit;
        let (mut bytes, mut events) = (first.bytes(), vec![first]);
        while events.len() < EVENTS_MAX && bytes < BYTES_MAX {
            let left =
                if events.len() < self.gathered { until.saturating_duration_since(now()) } else { Duration::ZERO };
            let Ok(event) = self.queue.receive(left) else { break };
            bytes += event.bytes();
            events.push(event);
        }
        self.gathered = events.len();
        Ok(events)
    }

    fn commit(&mut self, events: Vec<Uncommitted>) {
        let batch = self.router.plan(now(), events);
        let outcome = match batch.changes() {
            [] => Ok(()),
            changes => self.apply(changes),
        };
        self.router.finish(now(), batch, outcome.is_ok());
    }

    /// Removes from the disk what a reload has ended.
    fn forget(&mut self) {
        let changes = self.router.forgotten(|log, epoch| self.file.epoch(log) == Some(epoch));
        if !changes.is_empty() && self.apply(&changes).is_err() {
            self.router.not_forgotten(changes, |log| self.file.epoch(log).map(Arc::from));
        }
    }

    /// Writes changes.
    fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let begun = now();
        let applied = self.file.apply(begun, wall(), changes);
        self.router.metrics().commit_duration.observe((), now().saturating_duration_since(begun));
        self.is_failing.store(applied.is_err(), Ordering::Relaxed);
        match applied {
            Ok(applied) => {
                if self.failing.take().is_some() {
                    tracing::info!("the history can be written again; events of durable channels are accepted");
                }
                for log in &applied.removed {
                    tracing::warn!(%log, "history.disk_bytes is reached: the log unused for longest was removed");
                }
                for (log, first) in &applied.trimmed {
                    tracing::warn!(%log, first, "history.disk_bytes is reached: a log lost its oldest events");
                }
                self.router.lost_on_disk(now(), &applied);
                Ok(())
            }
            Err(error) => {
                self.router.metrics().storage_errors.count(file_of(changes));
                let is_said = self.failing.is_some_and(|at| now().saturating_duration_since(at) < SWEEP_EVERY);
                if !is_said {
                    tracing::error!(%error, "the history cannot be written: events of durable channels are refused");
                    self.failing = Some(now());
                }
                Err(error)
            }
        }
    }

    /// Removes from the disk what is too old, and logs that are forgotten or whose channel has no durable history any more.
    fn sweep(&mut self) {
        let router = Arc::clone(&self.router);
        let changes = match self.file.expired(wall(), &|log| router.durable_ttl(log)) {
            Ok(changes) => changes,
            Err(error) => {
                router.metrics().storage_errors.count(StoredFile::History);
                return tracing::error!(%error, "the history cannot be read");
            }
        };
        for changes in changes.chunks(EVENTS_MAX) {
            // A failure is logged, and the next sweep tries again.
            if self.apply(changes).is_err() {
                return;
            }
            router.forgotten_on_disk(changes);
        }
    }
}

/// What changes are of: the history, unless all of them are retained values.
fn file_of(changes: &[Change]) -> StoredFile {
    match changes.iter().all(|change| matches!(change, Change::Keep(..) | Change::Clear(_))) {
        true => StoredFile::Retained,
        false => StoredFile::History,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time of day in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "what is on disk is dated by the calendar")]
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
