//! Events that have to be on disk before they are delivered: those of durable channels, and retained ones where retained
//! values are durable.
//!
//! Such an event is decided as any other. Then it waits in a queue, and its connection gets a [`CommitTicket`]. A thread
//! outside of this room takes what has gathered, asks [`Router::plan`] what has to be written, writes it, and calls
//! [`Router::finish`], which delivers. That thread alone appends to durable logs, so an offset that is planned is still the
//! next one when it is written; no lock is held meanwhile. Nothing is written here, and nothing waits.
//!
//! `forgotten` is what a reload has ended and the disk still has, `plan` says what is written, `pending` counts what waits,
//! and `load` takes over what a file has.

mod forgotten;
mod load;
mod pending;
mod plan;

use forgotten::Forgotten;
pub use load::Loading;
pub(super) use pending::PendingCommits;
pub use plan::Batch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wire::{Envelope, ErrorCode, Refusal};

use crate::router::decide::{Decision, Facts, Verdict};
use crate::router::session::Session;
use crate::router::{Denied, Routed, Router};
use plan::unavailable;

/// The events that wait for the disk.
const QUEUE_MAX: usize = 16_384;

/// The bytes of their texts.
const QUEUE_BYTES_MAX: usize = 256 << 20;

/// An event that waits for its commit.
pub struct Uncommitted {
    at: Instant,
    sender: Arc<Session>,
    text: Box<str>,
    to: To,
    /// `None` once the outcome was sent.
    outcome: Option<oneshot::Sender<Result<Routed, Denied>>>,
    /// The bytes of all events that wait.
    waiting: Arc<AtomicUsize>,
}

impl Uncommitted {
    /// The length of its text, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl Drop for Uncommitted {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.text.len(), Ordering::Relaxed);
        self.sender.commits.end();
    }
}

/// For whom an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// As the rules say of its sender.
    Rules,
    /// The same: the will of a session that has ended.
    Will,
    /// An adapter announces it for this user, or on a shared channel for nobody in particular.
    Announced(Option<Box<str>>),
    /// It is not an event: an operator removes the retained values of its triple, which belong to this user or are shared.
    Removed(Option<Box<str>>),
}

/// What becomes of an event that waits for its commit.
pub struct CommitTicket(Waits);

enum Waits {
    Outcome(oneshot::Receiver<Result<Routed, Denied>>),
    /// Of all events of a session that wait: the session has been told what became of them.
    Earlier(Arc<Session>),
}

impl CommitTicket {
    /// Ready when the event was committed and delivered, or refused.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Routed, Denied>> {
        let waiting = match &mut self.0 {
            Waits::Outcome(waiting) => waiting,
            Waits::Earlier(session) => return session.commits.poll_none(cx).map(|()| Ok(Routed::default())),
        };
        let Poll::Ready(outcome) = Pin::new(waiting).poll(cx) else { return Poll::Pending };
        // The broker ends.
        let ended = || Denied { refusal: unavailable(), is_request: false };
        Poll::Ready(outcome.unwrap_or_else(|_| Err(ended())))
    }
}

/// The end of the queue at which events come out.
pub struct CommitQueue(Receiver<Option<Uncommitted>>);

impl CommitQueue {
    /// Takes the next event. Waits for it: for the thread that writes only.
    ///
    /// # Errors
    /// None came in time, or something else is to be done, or none will come.
    pub fn receive(&self, timeout: Duration) -> Result<Uncommitted, RecvTimeoutError> {
        self.0.recv_timeout(timeout)?.ok_or(RecvTimeoutError::Timeout)
    }
}

/// The end of the queue at which events go in.
pub(super) struct Commits {
    /// `None`: the broker ends.
    queue: Mutex<Option<SyncSender<Option<Uncommitted>>>>,
    /// The bytes that wait.
    bytes: Arc<AtomicUsize>,
    /// What the disk still has although a reload has ended it.
    pub(super) forgotten: Forgotten,
}

impl Router {
    /// Lets the events of durable channels wait for their commit. Without this they are delivered at once.
    #[must_use]
    pub fn with_commits(mut self) -> (Self, CommitQueue) {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        self.commits =
            Some(Commits { queue: Mutex::new(Some(sender)), bytes: Arc::default(), forgotten: Forgotten::default() });
        (self, CommitQueue(receiver))
    }

    /// Takes no more events in.
    pub fn end_commits(&self) {
        if let Some(commits) = &self.commits {
            commits.queue.lock().take();
        }
    }

    /// Whether an event has to be on disk before it is delivered.
    pub(super) fn is_durable(&self, envelope: &Envelope<'_>, facts: &Facts<'_>) -> bool {
        self.commits.is_some() && (facts.durable || facts.retains_durably && envelope.retain())
    }

    /// Whether an envelope is an event that would wait for its commit.
    pub fn waits_for_commit(&self, sender: &Arc<Session>, envelope: &Envelope<'_>) -> bool {
        let Decision { facts, verdict } = self.decide(sender, envelope);
        matches!(verdict, Verdict::Event { .. }) && self.is_durable(envelope, &facts)
    }

    /// Lets an event wait for its commit.
    pub(super) fn commit(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        to: To,
    ) -> Result<CommitTicket, Refusal> {
        self.commit_text(now, sender, envelope.text().into(), to)
    }

    /// Lets the event with this text wait for its commit.
    pub(super) fn commit_text(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        text: Box<str>,
        to: To,
    ) -> Result<CommitTicket, Refusal> {
        let Some(commits) = &self.commits else { return Err(unavailable()) };
        let queue = commits.queue.lock();
        let bytes = commits.bytes.fetch_add(text.len(), Ordering::Relaxed) + text.len();
        let (outcome, ticket) = oneshot::channel();
        let waiting = Arc::clone(&commits.bytes);
        sender.commits.begin();
        let event = Uncommitted { at: now, sender: Arc::clone(sender), text, to, outcome: Some(outcome), waiting };
        if bytes > QUEUE_BYTES_MAX {
            return Err(too_much_waits());
        }
        match queue.as_ref().map(|queue| queue.try_send(Some(event))) {
            Some(Ok(())) => Ok(CommitTicket(Waits::Outcome(ticket))),
            Some(Err(TrySendError::Full(_))) => Err(too_much_waits()),
            Some(Err(TrySendError::Disconnected(_))) | None => Err(unavailable()),
        }
    }
}

fn too_much_waits() -> Refusal {
    Refusal::new(ErrorCode::StorageUnavailable, "too many events wait for the disk; send this one again later")
}
