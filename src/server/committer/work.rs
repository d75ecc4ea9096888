//! [`Work`]: the loop of the thread that commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::retry::Retry;
use super::watch::DiskWatch;
use super::{Settings, now, wall};
use crate::router::{Batch, CommitQueue, Router, Uncommitted};
use crate::store::StoreError;
use crate::store::history::{Change, HistoryFile};
use crate::telemetry::metrics::StoredFile;

/// The events of a commit.
pub(super) const EVENTS_MAX: usize = 1000;

/// The bytes of their texts beyond which none is added.
const BYTES_MAX: usize = 16 << 20;

/// How often old entries are removed from the disk, and how often the log says that the disk cannot be used.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// What the thread that commits has.
pub(super) struct Work {
    router: Arc<Router>,
    queue: CommitQueue,
    file: HistoryFile,
    settings: Arc<ArcSwap<Settings>>,
    watch: Arc<DiskWatch>,
    /// The events of the last commit.
    gathered: usize,
    /// When old entries were last removed.
    swept: Instant,
    /// While the disk cannot be used: when the log last said so.
    failing: Option<Instant>,
    is_failing: Arc<AtomicBool>,
    retry: Retry,
}

impl Work {
    pub(super) fn new(
        router: &Arc<Router>,
        queue: CommitQueue,
        file: HistoryFile,
        settings: &Arc<ArcSwap<Settings>>,
        watch: &Arc<DiskWatch>,
        is_failing: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            router: Arc::clone(router),
            queue,
            file,
            settings: Arc::clone(settings),
            watch: Arc::clone(watch),
            gathered: 1,
            swept: now(),
            failing: None,
            is_failing: Arc::clone(is_failing),
            retry: Retry::default(),
        }
    }

    /// Commits until the broker ends and nothing waits any more.
    pub(super) fn run(mut self) {
        self.forget();
        loop {
            if self.is_failing.load(Ordering::Relaxed) {
                self.retry.failed(now(), &mut rand::rng());
            }
            let events = self.gather();
            self.file.set_limits(self.settings.load().limits);
            self.forget();
            match events {
                Ok(events) => self.commit(events),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Not only with the next event: a load balancer that looks at readiness may let none through.
            if self.retry.is_due(now()) {
                self.probe();
            }
            if now().saturating_duration_since(self.swept) >= SWEEP_EVERY {
                self.swept = now();
                self.sweep();
            }
        }
    }

    /// Waits for events, and a moment for others that share their commit: as many as shared the last one are likely to come
    /// again, because their publishers wait for their receipts.
    pub(super) fn gather(&mut self) -> Result<Vec<Uncommitted>, RecvTimeoutError> {
        let first = self.queue.receive(self.retry.wait(now()).unwrap_or(SWEEP_EVERY).min(SWEEP_EVERY))?;
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
        let mut batch = self.router.plan(now(), events);
        let misfits = self.file.misfits(batch.changes());
        if !misfits.is_empty() {
            for log in &misfits {
                tracing::error!(%log, "the history does not have the last events of a log, which begins anew");
                self.router.metrics().storage_errors.count(StoredFile::History);
            }
            self.router.leave_out(&mut batch, &misfits);
        }
        let changes = batch.take_changes();
        let (outcome, batch) = match changes.is_empty() {
            true => (Ok(()), Some(batch)),
            false => self.write(&changes, Some(batch)),
        };
        if let Some(batch) = batch {
            self.router.finish(now(), batch, outcome.is_ok());
        }
    }

    /// Removes from the disk what a reload has ended.
    fn forget(&mut self) {
        let changes = self.router.forgotten(|log, epoch| self.file.epoch(log) == Some(epoch));
        if !changes.is_empty() && self.apply(&changes).is_err() {
            self.router.not_forgotten(changes, |log| self.file.epoch(log).map(Arc::from));
        }
    }

    /// Writes changes for which nobody waits.
    fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.write(changes, None).0
    }

    /// Writes the changes of a batch. Returns the batch too, unless it was refused because the disk took too long.
    fn write(&mut self, changes: &[Change], batch: Option<Batch>) -> (Result<(), StoreError>, Option<Batch>) {
        let (begun, watch) = (now(), Arc::clone(&self.watch));
        watch.begin(begun, batch);
        let applied = self.file.apply_if(begun, wall(), changes, || watch.is_wanted());
        let batch = watch.end_use();
        self.router.metrics().commit_duration.observe((), now().saturating_duration_since(begun));
        let outcome = applied.map(|applied| {
            self.succeeded();
            for log in &applied.removed {
                tracing::warn!(%log, "history.disk_bytes is reached: the log unused for longest was removed");
            }
            for (log, first) in &applied.trimmed {
                tracing::warn!(%log, first, "history.disk_bytes is reached: a log lost its oldest events");
            }
            for (log, first) in &applied.damaged {
                tracing::error!(%log, first, "the history was damaged while it was in use: a log lost its events on disk");
                self.router.metrics().storage_errors.count(StoredFile::History);
            }
            self.router.lost_on_disk(now(), &applied);
        });
        (outcome.inspect_err(|error| self.failed(error, file_of(changes))), batch)
    }

    /// Tries a disk again that has failed.
    fn probe(&mut self) {
        let watch = Arc::clone(&self.watch);
        watch.begin(now(), None);
        let outcome = self.file.probe_if(now(), || watch.is_wanted());
        watch.end_use();
        match outcome {
            Ok(()) => self.succeeded(),
            Err(error) => self.failed(&error, StoredFile::History),
        }
    }

    fn succeeded(&mut self) {
        self.retry.succeeded();
        self.is_failing.store(false, Ordering::Relaxed);
        if self.failing.take().is_some() {
            tracing::info!("the history can be written again; events of durable channels are accepted");
        }
    }

    fn failed(&mut self, error: &StoreError, file: StoredFile) {
        self.is_failing.store(true, Ordering::Relaxed);
        self.router.metrics().storage_errors.count(file);
        let is_said = self.failing.is_some_and(|at| now().saturating_duration_since(at) < SWEEP_EVERY);
        if !is_said {
            tracing::error!(%error, "the history cannot be written: events of durable channels are refused");
            self.failing = Some(now());
        }
    }

    /// Removes from the disk what is too old, and logs that are forgotten or whose channel has no durable history any more.
    fn sweep(&mut self) {
        let router = Arc::clone(&self.router);
        self.watch.begin(now(), None);
        let expired = self.file.expired(wall(), &|log| router.durable_ttl(log));
        self.watch.end_use();
        let changes = match expired {
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
            router.forgotten_on_disk(now(), changes);
        }
    }
}

/// Nobody waits for a thread that has ended: what it has not written is refused. After a will, the rest of its session's end
/// follows.
impl Drop for Work {
    fn drop(&mut self) {
        if thread::panicking() {
            self.is_failing.store(true, Ordering::Relaxed);
            tracing::error!("the thread that writes the history has failed: events of durable channels are refused");
        }
        if let Some(batch) = self.watch.end_use() {
            self.router.finish(now(), batch, false);
        }
        for event in self.queue.close() {
            self.router.refuse_waiting(now(), event);
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
