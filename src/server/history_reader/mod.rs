//! [`read_history`]: the thread that reads events of durable logs which memory no longer has.
//!
//! It reads a bounded number of events for one subscription, then for the next one that waits. `watch` gives up what the
//! disk does not read in time.

mod watch;

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

pub(super) use self::watch::ReadWatch;
use crate::store::history::{HistoryReader, Unread};

/// How often states of the file are released that were pinned for too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the log says that the disk cannot be read.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// Reads until the router lets nothing be read any more.
pub(super) fn read_history(watch: &ReadWatch, file: &HistoryReader) {
    let _closing = watch.close_at_end();
    let (mut released, mut said) = (now(), None::<Instant>);
    loop {
        let next = watch.begin_next(LOOK_EVERY);
        if now().saturating_duration_since(released) >= LOOK_EVERY {
            released = now();
            file.release_old(released);
        }
        let (range, pin) = match next {
            Ok(next) => next,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let outcome = file.read(now(), &pin, &range);
        let Some(read) = watch.end_use() else { continue };
        if let Err(Unread::Fault(error)) = &outcome {
            watch.count_error();
            if said.is_none_or(|at| now().saturating_duration_since(at) >= SAID_EVERY) {
                tracing::error!(%error, "the history cannot be read: subscriptions that need events from the disk are refused");
                said = Some(now());
            }
        }
        watch.take_read(read, outcome);
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
