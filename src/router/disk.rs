//! Events of durable logs that have to be read from the disk, because memory no longer has them.
//!
//! A subscription that recovers such events, and a replay of them, put a [`DiskRead`] into a queue and go on when it was
//! answered. A thread outside of this room takes it, reads a bounded number of events, and calls [`Router::take_read`] with
//! them. Nothing is read here, nothing waits, and no lock of a log is held meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wire::{ErrorCode, Refusal};

use crate::router::Router;
use crate::router::history::{DiskEntry, Fill, Found, Look};
use crate::store::history::{Entry, Pin, ReadRange, Unread};
use crate::websocket::FrameMemory;

/// The reads that wait. Each session has one at most.
const QUEUE_MAX: usize = 65_536;

/// Events that are to be read from the disk.
pub struct DiskRead {
    pub(super) range: ReadRange,
    pub(super) pin: Pin,
    pub(super) purpose: Purpose,
}

/// What events are read for.
pub(super) enum Purpose {
    /// To count those that a subscription is to receive.
    Look(Box<Look>),
    /// To send them. What they use of the memory is counted here.
    Replay(oneshot::Sender<Result<Vec<DiskEntry>, Unread>>, Option<Arc<FrameMemory>>),
    /// In a cluster: to know where a log is, for a subscription or because events may be missing.
    Ends(Option<oneshot::Sender<Found>>),
    /// In a cluster: to deliver those that are missing here.
    Fill(Fill),
}

/// How the answer to a read is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadKind {
    /// With [`Router::take_read`].
    Entries,
    /// With [`Router::take_ends`].
    Ends,
    /// With [`Router::take_missing`].
    Missing,
}

impl DiskRead {
    /// The events.
    pub fn range(&self) -> &ReadRange {
        &self.range
    }

    /// The state of the file that it is read from.
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// Whether the Subscribe or the replay that needs it has ended.
    pub fn is_abandoned(&self) -> bool {
        match &self.purpose {
            Purpose::Look(look) => look.is_abandoned(),
            Purpose::Replay(answer, _) => answer.is_closed(),
            Purpose::Ends(answer) => answer.as_ref().is_some_and(oneshot::Sender::is_closed),
            Purpose::Fill(_) => false,
        }
    }

    /// What is to be read.
    pub fn kind(&self) -> ReadKind {
        match &self.purpose {
            Purpose::Look(_) | Purpose::Replay(..) => ReadKind::Entries,
            Purpose::Ends(_) => ReadKind::Ends,
            Purpose::Fill(_) => ReadKind::Missing,
        }
    }
}

/// The end of the queue at which reads come out.
pub struct ReadQueue(Receiver<DiskRead>);

impl ReadQueue {
    /// Takes the next read. Waits for it: for the thread that reads only.
    ///
    /// # Errors
    /// None came in time, or none will come.
    pub fn receive(&self, timeout: Duration) -> Result<DiskRead, RecvTimeoutError> {
        self.0.recv_timeout(timeout)
    }

    /// Takes the next read, if there is one.
    ///
    /// # Errors
    /// There is none.
    pub fn try_receive(&self) -> Result<DiskRead, TryRecvError> {
        self.0.try_recv()
    }
}

/// The end of the queue at which reads go in. `None`: the broker ends.
pub(super) struct DiskReads(Mutex<Option<SyncSender<DiskRead>>>);

impl Router {
    /// Lets events that memory no longer has be read from the disk. Without this they count as no longer kept.
    #[must_use]
    pub fn with_disk_reads(mut self) -> (Self, ReadQueue) {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        self.reads = Some(DiskReads(Mutex::new(Some(sender))));
        (self, ReadQueue(receiver))
    }

    /// Reads nothing any more.
    pub fn end_disk_reads(&self) {
        if let Some(reads) = &self.reads {
            reads.0.lock().take();
        }
    }

    /// Lets events be read.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`: too many reads wait, or the broker ends.
    pub(super) fn read(&self, read: DiskRead) -> Result<(), Refusal> {
        let reads = self.reads.as_ref().map(|reads| reads.0.lock());
        match reads.as_ref().and_then(|reads| reads.as_ref()).map(|reads| reads.try_send(read).is_ok()) {
            Some(true) => Ok(()),
            Some(false) | None => Err(unreadable()),
        }
    }

    /// Takes what was read. Returns what is to be read next for the same purpose, if anything is.
    pub fn take_read(&self, read: DiskRead, outcome: Result<Vec<(u64, Entry)>, Unread>) -> Option<DiskRead> {
        let DiskRead { range, pin, purpose } = read;
        match purpose {
            Purpose::Look(look) => self.look_on(*look, range, pin, outcome),
            Purpose::Replay(answer, memory) => {
                let entry = |(offset, entry)| DiskEntry::new(&range, offset, entry, memory.as_ref());
                // Its session may have ended.
                answer.send(outcome.map(|entries| entries.into_iter().map(entry).collect())).ok();
                None
            }
            // Their answers are given in other ways.
            Purpose::Ends(_) | Purpose::Fill(_) => None,
        }
    }

    /// The time of day this long before `now`, in milliseconds since 1970, as entries on the disk are dated.
    pub(super) fn millis_ago(&self, now: Instant, age: Duration) -> u64 {
        crate::store::history::millis(self.date(now).checked_sub(age).unwrap_or(std::time::SystemTime::UNIX_EPOCH))
    }
}

pub(super) fn unreadable() -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        "earlier events of the log cannot be read from the disk now, so nothing was subscribed; try again later",
    )
}
