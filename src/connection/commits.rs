//! [`Commits`]: envelopes on durable channels that wait for the disk.
//!
//! Further ones may join them, and share their commit. Anything else is held, and the connection is not read, until all are
//! on disk: so the order of what a session sends is the order of its effects.
//!
//! The reply to a Register waits in the same way, if its session takes the place of one whose will waits for the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use zeroize::Zeroizing;

use super::{Connection, Effect};
use crate::router::{CommitTicket, Denied, Routed, Router, Session};
use crate::websocket::Frame;

/// The envelopes of a session that wait at once, and the bytes of their texts beyond which none is added.
const WAITING_MAX: usize = 64;
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Envelopes that wait for the disk, in the order in which they came.
#[derive(Default)]
pub(super) struct Commits {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// What became of the first ones. The router has told the session.
    done: Vec<Result<Routed, Denied>>,
    held: Option<Held>,
    /// The reply to the Register of this session, which precedes everything else of it.
    reply: Option<Frame>,
}

struct Waiting {
    bytes: usize,
    ticket: Box<CommitTicket>,
}

/// A message that waits for them. It may have a secret.
pub(super) enum Held {
    Text(Zeroizing<String>),
    Binary,
}

impl Commits {
    /// Whether another envelope may join.
    fn has_room(&self) -> bool {
        self.held.is_none()
            && self.reply.is_none()
            && self.waiting.len() < WAITING_MAX
            && self.bytes < WAITING_BYTES_MAX
    }

    /// Holds the reply to the Register until nothing waits any more.
    pub(super) fn hold_reply(&mut self, reply: Frame) {
        self.reply = Some(reply);
    }

    #[cold]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(first) = self.waiting.front_mut() {
            let Poll::Ready(outcome) = first.ticket.poll(cx) else { break };
            self.done.push(outcome);
            self.bytes -= self.waiting.pop_front().map_or(0, |waiting| waiting.bytes);
        }
        if self.done.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Connection {
    /// Ready when envelopes that waited for the disk are on it, or refused: then it wants [`super::Input::Committed`].
    #[inline]
    pub fn poll_commits(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.commits.as_mut().map_or(Poll::Pending, |commits| commits.poll(cx))
    }

    /// Whether the next message may be read, as far as commits are concerned.
    pub(super) fn may_join(&self) -> bool {
        self.commits.as_ref().is_none_or(|commits| commits.has_room())
    }

    /// Whether the reply to the Register waits, so that nothing of the session may be sent.
    pub(super) fn is_reply_held(&self) -> bool {
        self.commits.as_ref().is_some_and(|commits| commits.reply.is_some())
    }

    /// Sends the reply to the Register, if it waits.
    pub(super) fn release_reply(&mut self) {
        let reply = self.commits.as_mut().and_then(|commits| commits.reply.take());
        self.replies.extend(reply);
    }

    /// Lets an envelope wait for the disk.
    pub(super) fn wait_for_commit(&mut self, bytes: usize, ticket: Box<CommitTicket>) {
        let commits = self.commits.get_or_insert_default();
        commits.bytes += bytes;
        commits.waiting.push_back(Waiting { bytes, ticket });
    }

    /// Holds a message that may not overtake what waits for the disk.
    pub(super) fn hold(&mut self, text: Option<&str>) {
        if let Some(commits) = &mut self.commits {
            commits.held = Some(text.map_or(Held::Binary, |text| Held::Text(Zeroizing::new(text.to_owned()))));
            self.secret_read = true;
        }
    }

    /// Waits for the receivers of what is on disk, if their queues are over half. Goes on with the held message when nothing
    /// waits any more.
    pub(super) fn committed(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let done = self.commits.as_mut().map(|commits| std::mem::take(&mut commits.done)).unwrap_or_default();
        let session = self.session().cloned();
        for outcome in done {
            match outcome {
                Ok(routed) => self.routed(now, session.as_ref(), None, routed),
                Err(Denied { refusal, .. }) => self.log_refusal(None, &refusal),
            }
        }
        let (held, reply) = match &mut self.commits {
            Some(commits) if commits.waiting.is_empty() => (commits.held.take(), commits.reply.take()),
            Some(_) | None => return None,
        };
        self.commits = None;
        self.replies.extend(reply);
        match held? {
            Held::Text(text) => self.message(now, Some(&text), router),
            Held::Binary => self.message(now, None, router),
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
