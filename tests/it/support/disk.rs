//! [`Disk`]: a history file in memory, for tests that play the threads which write and read it.

use std::collections::BTreeMap;
use std::iter::from_fn;
use std::time::{Duration, Instant};

use switchboard::router::{CommitQueue, ReadQueue, Router};
use switchboard::store::StoreError;
use switchboard::store::history::{Change, Entry, LogName, ReadRange, Unread};

/// The entries that are read at once.
const READ_AT_ONCE: usize = 7;

/// The logs of a file, the threads that use it, and whether it works.
pub(crate) struct Disk {
    pub(crate) logs: BTreeMap<LogName, Log>,
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
        (router, Self { logs: BTreeMap::new(), commits, reads, is_failing: false })
    }

    /// Writes what waits, or fails to.
    pub(crate) fn commit(&mut self, now: Instant, router: &Router) {
        let events: Vec<_> = from_fn(|| self.commits.receive(Duration::ZERO).ok()).collect();
        let batch = router.plan(now, events);
        if !self.is_failing {
            batch.changes().iter().for_each(|change| self.apply(change));
        }
        router.finish(now, batch, !self.is_failing);
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Append { log, epoch, offset, entry, first, .. } => {
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
