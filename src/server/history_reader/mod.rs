//! [`read_history`]: the thread that reads events of durable logs which memory no longer has.
//!
//! It reads a bounded number of events for one subscription, then for the next one that waits.

use std::collections::VecDeque;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use crate::router::{DiskRead, ReadQueue, Router};
use crate::store::history::{HistoryReader, Unread};
use crate::telemetry::metrics::StoredFile;

/// How often states of the file are released that were pinned for too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The reads that take turns. Others wait in the queue.
const TURNS_MAX: usize = 1024;

/// How often the log says that the disk cannot be read.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// Reads until the router lets nothing be read any more.
pub(super) fn read_history(router: &Router, queue: &ReadQueue, file: &HistoryReader) {
    let mut turns: VecDeque<DiskRead> = VecDeque::new();
    let (mut released, mut said) = (now(), None::<Instant>);
    loop {
        while turns.len() < TURNS_MAX {
            match queue.try_receive() {
                Ok(read) => turns.push_back(read),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let next = turns.pop_front().map_or_else(|| queue.receive(LOOK_EVERY), Ok);
        if now().saturating_duration_since(released) >= LOOK_EVERY {
            released = now();
            file.release_old(released);
        }
        let read = match next {
            Ok(read) => read,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if read.is_abandoned() {
            continue;
        }
        let outcome = file.read(now(), read.pin(), read.range());
        if let Err(Unread::Fault(error)) = &outcome {
            router.metrics().storage_errors.count(StoredFile::History);
            if said.is_none_or(|at| now().saturating_duration_since(at) >= SAID_EVERY) {
                tracing::error!(%error, "the history cannot be read: subscriptions that need events from the disk are refused");
                said = Some(now());
            }
        }
        turns.extend(router.take_read(read, outcome));
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
