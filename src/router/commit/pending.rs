//! [`PendingCommits`]: how many events of a session wait for the disk.
//!
//! Nothing that the session sends later may overtake them. A connection holds back what follows them ([`CommitTicket`]). A
//! connection that resumes the session waits for those of the connection before, and what has no connection, such as a will,
//! is put into the queue behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::{CommitTicket, Waits};
use crate::router::session::Session;

/// The events of a session that wait for the disk.
#[derive(Default)]
pub(in crate::router) struct PendingCommits {
    count: AtomicUsize,
    /// The connection that waits until there are none.
    waiting: Mutex<Option<Waker>>,
}

impl PendingCommits {
    pub(super) fn begin(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            let waiting = self.waiting.lock().take();
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether there are any.
    pub(in crate::router) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Ready when there are none.
    pub(super) fn poll_none(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.any() {
            return Poll::Ready(());
        }
        *self.waiting.lock() = Some(cx.waker().clone());
        if self.any() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Session {
    /// What a connection waits for that resumes the session while events of the connection before wait for the disk.
    pub fn earlier_commits(self: &Arc<Self>) -> Option<CommitTicket> {
        self.commits.any().then(|| CommitTicket(Waits::Earlier(Arc::clone(self))))
    }
}
