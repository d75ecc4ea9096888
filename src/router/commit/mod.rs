//! Events that have to be on disk before they are delivered: those of durable channels, and retained ones where retained
//! values are durable.
//!
//! Such an event is decided as any other. Then it waits in a queue, and its connection gets a [`CommitTicket`]. A thread
//! outside of this room takes what has gathered, asks [`Router::plan`] what has to be written, writes it, and calls
//! [`Router::finish`], which delivers. That thread alone appends to durable logs, so an offset that is planned is still the
//! next one when it is written; no lock is held meanwhile. Nothing is written here, and nothing waits.
//!
//! `queue` is where they wait, `plan` says what is written, `finish` is what follows, `awaited` is what
//! has to follow on other nodes before a sender is told, `pending` counts what waits of a session.
//! `forgotten` is what a reload has ended and the disk still has, `lost` is what the disk has lost, and `load` takes over what a
//! file has. In a cluster, JetStream takes the place of the disk: `append` for logs, and `last_value`
//! for retained values of channels that have one.

mod append;
mod awaited;
mod finish;
mod forgotten;
mod last_value;
mod load;
mod lost;
mod pending;
mod plan;
mod queue;

pub use append::{Append, Appended, Once, unavailable as not_kept};
pub(super) use append::{Broadcast, Own};
use forgotten::Forgotten;
pub use last_value::{LoggedValue, ValueOutcome};
pub use load::Loading;
pub(super) use pending::PendingCommits;
pub use plan::Batch;
pub use queue::CommitQueue;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wire::{Envelope, ErrorCode, Refusal};

use crate::router::decide::{Decision, Facts, Verdict};
use crate::router::end::Rest;
use crate::router::session::Session;
use crate::router::{Denied, Routed, Router};
pub(super) use awaited::Awaited;
use plan::unavailable;
use queue::{Place, Waiting};

/// An event that waits for its commit.
pub struct Uncommitted {
    at: Instant,
    sender: Arc<Session>,
    text: Box<str>,
    to: To,
    /// `None` once the outcome was sent, and if its session has ended.
    outcome: Option<oneshot::Sender<Result<Routed, Denied>>>,
    /// What follows it, if its session has ended.
    rest: Option<Rest>,
    /// Dropped when it was delivered, which tells what has stored it.
    delivered: Option<oneshot::Sender<()>>,
    _place: Place,
}

impl Uncommitted {
    fn new(at: Instant, sender: &Arc<Session>, (text, to): (Box<str>, To), place: Place) -> Self {
        sender.commits.begin();
        Self { at, sender: Arc::clone(sender), text, to, outcome: None, rest: None, delivered: None, _place: place }
    }

    /// The number of its sender.
    pub fn sender(&self) -> u64 {
        self.sender.number
    }

    /// Ready when it was delivered, or refused. At most one such receiver is of use.
    pub fn delivered(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.delivered = Some(sender);
        receiver
    }

    /// The length of its text, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl Drop for Uncommitted {
    fn drop(&mut self) {
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
    /// It is not an event: its session has ended without a will, and what follows its end waits for its events.
    End,
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

/// The events that wait for the disk, and what else it needs.
#[derive(Default)]
pub(super) struct Commits {
    queue: CommitQueue,
    waiting: Arc<Waiting>,
    /// What the disk still has although a reload has ended it.
    pub(super) forgotten: Forgotten,
    /// In a cluster: the senders of the events that are being stored, by what names the attempt.
    attempts: Mutex<HashMap<[u8; 16], Arc<Session>>>,
}

impl Router {
    /// Lets the events of durable channels wait for their commit. Without this they are delivered at once.
    #[must_use]
    pub fn with_commits(mut self) -> (Self, CommitQueue) {
        let commits = Commits::default();
        let queue = commits.queue.clone();
        self.commits = Some(commits);
        (self, queue)
    }

    /// How many events wait for their commit.
    pub fn uncommitted(&self) -> usize {
        self.commits.as_ref().map_or(0, |commits| commits.waiting.events())
    }

    /// Takes no more events in.
    pub fn end_commits(&self) {
        if let Some(commits) = &self.commits {
            commits.queue.end();
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
        let (commits, place) = self.place_for(&text)?;
        let (outcome, ticket) = oneshot::channel();
        let mut event = Box::new(Uncommitted::new(now, sender, (text, to), place));
        event.outcome = Some(outcome);
        commits.queue.send(event).map_err(|_| unavailable())?;
        Ok(CommitTicket(Waits::Outcome(ticket)))
    }

    /// Lets the will of a session wait for its commit. `rest` follows it, or its refusal.
    pub(super) fn commit_will(&self, now: Instant, session: &Arc<Session>, text: Box<str>, rest: Rest) {
        if let Err((refusal, rest)) = self.commit_last(now, session, (text, To::Will), rest) {
            self.note_will(now, session, Some(&refusal), rest);
        }
    }

    /// Lets what follows the end of a session wait for its events.
    pub(super) fn end_after_commits(&self, now: Instant, session: &Arc<Session>, rest: Rest) {
        if let Err((_, rest)) = self.commit_last(now, session, (Box::default(), To::End), rest) {
            // The broker ends, or too much waits already.
            self.end_rest(now, session, rest);
        }
    }

    /// Puts the last of a session that has ended into the queue, with what follows it.
    fn commit_last(
        &self,
        now: Instant,
        session: &Arc<Session>,
        (text, to): (Box<str>, To),
        rest: Rest,
    ) -> Result<(), (Refusal, Rest)> {
        let (commits, place) = match self.place_for(&text) {
            Ok(found) => found,
            Err(refusal) => return Err((refusal, rest)),
        };
        let mut event = Box::new(Uncommitted::new(now, session, (text, to), place));
        event.rest = Some(rest);
        match commits.queue.send(event) {
            Ok(()) => Ok(()),
            Err(mut event) => event.rest.take().map_or(Ok(()), |rest| Err((unavailable(), rest))),
        }
    }

    /// Takes a place for an event with this text.
    fn place_for(&self, text: &str) -> Result<(&Commits, Place), Refusal> {
        let commits = self.commits.as_ref().ok_or_else(unavailable)?;
        let place = commits.waiting.place(text.len(), &self.policy.limits().history).ok_or_else(too_much_waits)?;
        Ok((commits, place))
    }
}

fn too_much_waits() -> Refusal {
    Refusal::new(ErrorCode::StorageUnavailable, "too many events wait for the disk; send this one again later")
}
