//! [`Committer`]: the thread that writes what has to be on disk before it is delivered.
//!
//! One thread takes the events that have gathered, writes them in one transaction, and lets the router deliver them. While it
//! waits for the disk, the next ones gather, so under load a commit is shared by all publishers. Another thread reads what
//! memory no longer has (`history_reader`).
//!
//! `work` is the loop of that thread, `watch` gives up what the disk does not write in time, and `retry` says when the thread
//! tries a disk again that has failed.

mod retry;
#[cfg(test)]
mod tests;
mod watch;
mod work;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::watch::DiskWatch;
use self::work::Work;
use super::history_reader::{ReadWatch, read_history};
use crate::config::Config;
use crate::router::{CommitQueue, ReadQueue, Router};
use crate::store::history::{HistoryFile, HistoryLimits};

/// How long the end of the broker waits for the last commit.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// What a reload can change.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    commit: Duration,
    /// How long the disk may take.
    pub(super) timeout: Duration,
    limits: HistoryLimits,
}

impl Settings {
    fn new(config: &Config) -> Self {
        Self { commit: config.history.commit, timeout: config.history.timeout, limits: limits(config) }
    }
}

/// The bounds of the history's file.
pub(super) fn limits(config: &Config) -> HistoryLimits {
    let history = &config.history;
    HistoryLimits { disk_bytes: history.disk_bytes as u64, retry: history.retry, ids: history.ids }
}

/// The thread that commits, the one that reads, and the two that watch them.
pub(super) struct Committer {
    router: Arc<Router>,
    settings: Arc<ArcSwap<Settings>>,
    /// The disk cannot be used.
    is_failing: Arc<AtomicBool>,
    watch: Arc<DiskWatch>,
    read_watch: Arc<ReadWatch>,
    /// Each with what the log says if it does not end as it should.
    threads: Mutex<Vec<(JoinHandle<()>, &'static str)>>,
    watching: Mutex<Vec<JoinHandle<()>>>,
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
        let watch = Arc::new(DiskWatch::new(router, &queue, &is_failing));
        let read_watch = Arc::new(ReadWatch::new(router, reads, &settings));
        let work = Work::new(router, queue, file, &settings, &watch, &is_failing);
        let committer = Self {
            router: Arc::clone(router),
            settings: Arc::clone(&settings),
            is_failing,
            watch: Arc::clone(&watch),
            read_watch: Arc::clone(&read_watch),
            threads: Mutex::default(),
            watching: Mutex::default(),
        };
        let unconfirmed = "the last events of durable channels may not be on disk; they were not confirmed";
        let thread = spawn("committer", move || work.run())?;
        committer.threads.lock().push((thread, unconfirmed));
        let reads = Arc::clone(&read_watch);
        let thread = spawn("history reader", move || read_history(&reads, &reader))?;
        committer.threads.lock().push((thread, "the thread that reads the history has not ended"));
        committer.watching.lock().push(spawn("disk watch", move || watch.run(&settings))?);
        committer.watching.lock().push(spawn("read watch", move || read_watch.run())?);
        Ok(committer)
    }

    /// Puts another configuration in force.
    pub(super) fn replace(&self, config: &Config) {
        self.settings.store(Arc::new(Settings::new(config)));
        self.watch.look();
        self.read_watch.look();
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
        let threads = std::mem::take(&mut *self.threads.lock());
        for (thread, words) in threads {
            while !thread.is_finished() && now() < until {
                thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() || thread.join().is_err() {
                tracing::error!("{words}");
            }
        }
        self.watch.end();
        self.read_watch.end();
        let watching = std::mem::take(&mut *self.watching.lock());
        if watching.into_iter().map(JoinHandle::join).filter(Result::is_err).count() > 0 {
            tracing::error!("a thread that watches the disk has failed");
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// The file is closed before another broker gets the data folder.
impl Drop for Committer {
    fn drop(&mut self) {
        self.stop();
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
