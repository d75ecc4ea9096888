//! [`Disk`]: a history file in memory, for tests that play the threads which write and read it.

use std::collections::BTreeMap;
use std::iter::from_fn;
use std::time::{Duration, Instant, SystemTime};

use switchboard::router::{Batch, CommitQueue, ReadQueue, Router};
use switchboard::store::StoreError;
use switchboard::store::history::{Change, Entry, Known, Loaded, LogName, ReadRange, Unread};

/// The entries that are read at once.
const READ_AT_ONCE: usize = 7;

/// The logs of a file, the threads that use it, and whether it works.
pub(crate) struct Disk {
    pub(crate) logs: BTreeMap<LogName, Log>,
    known: Vec<Known>,
    commits: CommitQueue,
    reads: ReadQueue,
    pub(crate) is_failing: bool,
}

/// A log as the file has it.
#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) epoch: Box<str>,
    pub(crate) entries: BTreeMap<u64, Entry>,
}

impl Disk {
    /// Lets a router write to the disk and read from it.
    pub(crate) fn attach(router: Router) -> (Router, Self) {
        let (router, commits) = router.with_commits();
        let (router, reads) = router.with_disk_reads();
        (router, Self { logs: BTreeMap::new(), known: Vec::new(), commits, reads, is_failing: false })
    }

    /// Takes over what is on the disk of a broker that has died, and lets the next one start with it.
    pub(crate) fn take_over(&mut self, other: &mut Self, now: Instant, router: &Router) {
        self.logs = std::mem::take(&mut other.logs);
        self.known = std::mem::take(&mut other.known);
        let mut loading = router.loading(now, SystemTime::UNIX_EPOCH);
        for (name, log) in &self.logs {
            let last = log.entries.last_key_value().map_or(0, |(last, _)| *last);
            loading.add(Loaded::Log { name: name.clone(), epoch: log.epoch.clone(), last, used: 0 });
            log.entries.iter().for_each(|(offset, entry)| loading.add(Loaded::Entry(*offset, entry.clone())));
        }
        self.known.iter().for_each(|known| loading.add(Loaded::Known(known.clone())));
    }

    /// Plans what has to be written for some of the events that wait.
    pub(crate) fn plan(&self, now: Instant, router: &Router, most: usize) -> Batch {
        router.plan(now, from_fn(|| self.commits.receive(Duration::ZERO).ok()).take(most).collect())
    }

    /// Writes what waits, or fails to.
    pub(crate) fn commit(&mut self, now: Instant, router: &Router) {
        let batch = self.plan(now, router, usize::MAX);
        if !self.is_failing {
            batch.changes().iter().for_each(|change| self.apply(change));
        }
        router.finish(now, batch, !self.is_failing);
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Append { log, epoch, offset, entry, known, first } => {
                self.known.extend(known.clone());
                let log = self.logs.entry(log.clone()).or_default();
                if log.epoch != *epoch {
                    *log = Log { epoch: epoch.clone(), ..Log::default() };
                }
                assert!(log.entries.keys().next_back().is_none_or(|last| last + 1 == *offset), "offsets have no gaps");
                log.entries.insert(*offset, entry.clone());
                log.entries = log.entries.split_off(first);
            }
            Change::Trim { log, first } => {
                let log = self.logs.get_mut(log).unwrap();
                log.entries = log.entries.split_off(first);
            }
            Change::Forget(log) => drop(self.logs.remove(log)),
            Change::Keep(..) | Change::Clear(_) => {}
        }
    }

    /// Reads once for each read that waits. Returns how many there were.
    pub(crate) fn read_some(&mut self, router: &Router) -> usize {
        let reads: Vec<_> = from_fn(|| self.reads.try_receive().ok()).collect();
        let count = reads.len();
        for read in reads {
            let mut next = Some(read);
            while let Some(read) = next {
                let outcome = self.read(read.range());
                next = router.take_read(read, outcome);
            }
        }
        count
    }

    fn read(&self, range: &ReadRange) -> Result<Vec<(u64, Entry)>, Unread> {
        if self.is_failing {
            return Err(Unread::Fault(StoreError::Unusable("the disk has failed".into())));
        }
        let log = self.logs.get(&range.log).filter(|log| *log.epoch == *range.epoch).ok_or(Unread::Gone)?;
        let mut offsets: Vec<u64> = range.offsets.clone().collect();
        if range.backwards {
            offsets.reverse();
        }
        let entries = offsets.into_iter().take(READ_AT_ONCE);
        let found: Vec<_> =
            entries.map_while(|offset| log.entries.get(&offset).map(|entry| (offset, entry.clone()))).collect();
        if found.is_empty() { Err(Unread::Gone) } else { Ok(found) }
    }
}
