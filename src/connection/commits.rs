//! [`Commits`]: envelopes on durable channels that wait for the disk.
//!
//! Further ones may join them, and share their commit. Anything else is held, and the connection is not read, until all are
//! on disk: so the order of what a session sends is the order of its effects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use wire::notice;
use zeroize::Zeroizing;

use super::{Connection, Effect};
use crate::router::{Denied, Routed, Router, Session, Ticket};

/// The envelopes of a session that wait at once, and the bytes of their texts beyond which none is added.
const WAITING_MAX: usize = 64;
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Envelopes that wait for the disk, in the order in which they came.
#[derive(Default)]
pub(super) struct Commits {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// What became of the first ones.
    done: Vec<Done>,
    held: Option<Held>,
}

/// The `id` of an envelope, and what became of it.
type Done = (Option<Box<str>>, Result<Routed, Denied>);

struct Waiting {
    id: Option<Box<str>>,
    bytes: usize,
    ticket: Box<Ticket>,
}

/// A message that waits for them. It may have a secret.
pub(super) enum Held {
    Text(Zeroizing<String>),
    Binary,
}

impl Commits {
    /// Whether another envelope may join.
    fn has_room(&self) -> bool {
        self.held.is_none() && self.waiting.len() < WAITING_MAX && self.bytes < WAITING_BYTES_MAX
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(first) = self.waiting.front_mut() {
            let Poll::Ready(outcome) = first.ticket.poll(cx) else { break };
            if let Some(Waiting { id, bytes, .. }) = self.waiting.pop_front() {
                self.bytes -= bytes;
                self.done.push((id, outcome));
            }
        }
        if self.done.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Connection {
    /// Ready when envelopes that waited for the disk are on it, or refused: then it wants [`super::Input::Committed`].
    pub fn poll_commits(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.commits.as_mut().map_or(Poll::Pending, |commits| commits.poll(cx))
    }

    /// Whether the next message may be read, as far as commits are concerned.
    pub(super) fn may_join(&self) -> bool {
        self.commits.as_ref().is_none_or(|commits| commits.has_room())
    }

    /// Lets an envelope wait for the disk.
    pub(super) fn wait_for_commit(&mut self, id: Option<&str>, bytes: usize, ticket: Box<Ticket>) {
        let commits = self.commits.get_or_insert_default();
        commits.bytes += bytes;
        commits.waiting.push_back(Waiting { id: id.map(Box::from), bytes, ticket });
    }

    /// Holds a message that may not overtake what waits for the disk.
    pub(super) fn hold(&mut self, text: Option<&str>) {
        if let Some(commits) = &mut self.commits {
            commits.held = Some(text.map_or(Held::Binary, |text| Held::Text(Zeroizing::new(text.to_owned()))));
            self.secret_read = true;
        }
    }

    /// Answers what is on disk or was refused. Goes on with the held message when nothing waits any more.
    pub(super) fn committed(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let done = self.commits.as_mut().map(|commits| std::mem::take(&mut commits.done)).unwrap_or_default();
        let session = self.session().cloned();
        for (id, outcome) in done {
            match outcome {
                Ok(routed) => self.routed(now, session.as_ref(), id.as_deref(), routed),
                Err(Denied { refusal, .. }) => {
                    self.log_refusal(None, &refusal);
                    self.push(now, notice::error(id.as_deref(), &refusal));
                }
            }
        }
        let held = match &mut self.commits {
            Some(commits) if commits.waiting.is_empty() => commits.held.take(),
            Some(_) | None => return None,
        };
        self.commits = None;
        match held? {
            Held::Text(text) => self.message(now, Some(&text), router),
            Held::Binary => self.message(now, None, router),
        }
    }

    /// The connection leaves its session. One that can resume is told what became of its envelopes all the same. A held
    /// message was not taken in, so its client sends it again.
    pub(super) fn give_up_commits(&mut self, now: Instant) {
        let (Some(commits), Some(session)) = (self.commits.take(), self.session()) else { return };
        let waiting = commits.waiting.into_iter().filter_map(|it| Some((it.id, it.ticket.give_up()?)));
        for (id, outcome) in commits.done.into_iter().chain(waiting) {
            session.tell_committed(now, id.as_deref(), outcome);
        }
    }

    /// Tells the sender of an accepted envelope, and waits for its receivers if their queues are over half.
    pub(super) fn routed(&mut self, now: Instant, sender: Option<&Arc<Session>>, id: Option<&str>, routed: Routed) {
        let Routed { receipt, mut pressed, .. } = routed;
        pressed.retain(|receiver| sender.is_none_or(|sender| !Arc::ptr_eq(receiver, sender)));
        if let (Some(receipt), Some(id)) = (receipt, id) {
            self.push(now, receipt.notice(id));
        }
        if !pressed.is_empty() && self.pause.is_none() {
            self.wait_for_receivers(now, pressed);
        }
    }
}
