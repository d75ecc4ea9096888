//! [`Replay`]: events of a log on their way to a subscription.

use std::sync::{Arc, Weak};

use wire::{Pattern, Triple};

use super::log::{Entry, Of, Snapshot};
use crate::router::Scope;
use crate::router::index::{Observes, Subscription};
use crate::router::policy::Policy;
use crate::router::replay::{COPIED_BYTES_MAX, LOOKED_AT_MAX, attributed, matches, parts};
use crate::router::session::{Role, Session};
use crate::websocket::Frame;

/// Events of a log on their way to a subscription.
pub(in crate::router) struct Replay {
    /// Weak: the session of the subscription owns the outbox that owns the replay.
    subscription: Weak<Subscription>,
    /// The user to whom the log belongs; `None` on a shared channel.
    owner: Option<Arc<str>>,
    left: Snapshot,
}

impl Replay {
    pub(super) fn new(subscription: &Arc<Subscription>, owner: Option<Arc<str>>, left: Snapshot) -> Self {
        Self { subscription: Arc::downgrade(subscription), owner, left }
    }

    /// Pulls up to `most` frames. Returns whether it is exhausted.
    pub(in crate::router) fn pull(&mut self, policy: &Policy, most: usize, frames: &mut Vec<Frame>) -> bool {
        let Some(subscription) = self.subscription.upgrade().filter(|it| !it.listing.has_ended()) else { return true };
        let reader = Reader {
            session: &subscription.session,
            pattern: &subscription.pattern,
            observes: subscription.observes.as_ref(),
            owner: self.owner.as_deref(),
        };
        let end = frames.len().saturating_add(most);
        let mut copied = 0;
        for _ in 0..LOOKED_AT_MAX {
            if self.left.is_empty() || frames.len() >= end || copied >= COPIED_BYTES_MAX {
                break;
            }
            let Some(entry) = self.left.next() else { break };
            if !reader.wants(policy, &entry, |triple, scope| subscription.may_receive(triple, scope)) {
                continue;
            }
            frames.push(match (&entry.of, &self.owner) {
                (Of::Owner, Some(owner)) if subscription.sees_user() => {
                    copied += entry.frame.len();
                    attributed(&entry.frame, owner)
                }
                (Of::Owner | Of::Everyone | Of::Sender(_), _) => entry.frame.clone(),
            });
        }
        self.left.is_empty()
    }

    /// The bytes of entries that only replays have, because their log has dropped them.
    pub(in crate::router) fn bytes(&self) -> usize {
        self.left.iter().map(|entry| &entry.frame).filter(|frame| frame.is_counted()).map(Frame::len).sum()
    }
}

/// The session and the pattern that entries are for.
#[derive(Clone, Copy)]
pub(super) struct Reader<'s> {
    pub(super) session: &'s Session,
    pub(super) pattern: &'s Pattern,
    pub(super) observes: Option<&'s Observes>,
    /// The user to whom the log belongs; `None` on a shared channel.
    pub(super) owner: Option<&'s str>,
}

impl Reader<'_> {
    /// Whether an entry is for it, and `may_receive` lets it have an event of this triple and scope. Nobody may have one
    /// whose triple is protected now.
    pub(super) fn wants(
        &self,
        policy: &Policy,
        entry: &Entry,
        may_receive: impl FnOnce(&Triple<'_>, Scope<'_>) -> bool,
    ) -> bool {
        // A service that names a user wants that user's events only, on shared channels too.
        let is_of_user = match (&self.session.role, self.observes, &entry.of) {
            (Role::Service | Role::Adapter, Some(Observes::User(user)), Of::Sender(sender)) => {
                sender.as_deref() == Some(&**user)
            }
            _ => true,
        };
        let may_receive = || {
            let [channel, topic, subtopic] = parts(&entry.triple);
            let triple = Triple::new(channel, topic, subtopic);
            let scope = match &entry.of {
                Of::Owner => Scope::User(self.owner.unwrap_or_default()),
                Of::Everyone => Scope::Shared(None),
                Of::Sender(user) => Scope::Shared(user.as_deref()),
            };
            !policy.is_protected(&triple) && may_receive(&triple, scope)
        };
        is_of_user
            && entry.target.as_deref().is_none_or(|target| *target == *self.session.source)
            && matches(policy, self.pattern, &entry.triple)
            && may_receive()
    }
}
