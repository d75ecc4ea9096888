//! [`Replay`]: events of a log on their way to a subscription.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use wire::{Pattern, Triple};

use super::counted::OnDisk;
use super::from_disk::{FromDisk, Next};
use super::log::{Address, Of, Snapshot};
use crate::router::index::{Observes, Subscription};
use crate::router::policy::Policy;
use crate::router::replay::{COPIED_BYTES_MAX, LOOKED_AT_MAX, attributed, matches, parts};
use crate::router::session::{Role, Session};
use crate::router::{Router, Scope};
use crate::websocket::Frame;

/// Events of a log on their way to a subscription.
pub(in crate::router) struct Replay {
    /// Weak: the session of the subscription owns the outbox that owns the replay.
    subscription: Weak<Subscription>,
    /// The user to whom the log belongs; `None` on a shared channel.
    owner: Option<Arc<str>>,
    /// Those that only the disk has, which precede the others.
    from_disk: Option<Box<FromDisk>>,
    left: Snapshot,
}

impl Replay {
    pub(super) fn new(
        subscription: &Arc<Subscription>,
        owner: Option<Arc<str>>,
        (epoch, on_disk): (Arc<str>, Option<OnDisk>),
        left: Snapshot,
    ) -> Self {
        let from_disk = on_disk.map(|on_disk| Box::new(FromDisk::new(epoch, on_disk)));
        Self { subscription: Arc::downgrade(subscription), owner, from_disk, left }
    }

    /// Ready unless it waits for events from the disk.
    pub(in crate::router) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.from_disk.as_mut().map_or(Poll::Ready(()), |from_disk| from_disk.poll_ready(cx))
    }

    /// Pulls up to `most` frames. Returns whether it is exhausted. If events cannot be read from the disk, or are no longer
    /// kept there, it ends the session, whose last message says why: the client was told that it receives them.
    pub(in crate::router) fn pull(&mut self, router: &Router, most: usize, frames: &mut Vec<Frame>) -> bool {
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
            if frames.len() >= end || copied >= COPIED_BYTES_MAX {
                break;
            }
            let from_memory;
            let from_disk;
            let (address, frame) = match &mut self.from_disk {
                Some(disk) => match disk.next(router, subscription.session.outbox().memory()) {
                    Next::Entry(entry) => {
                        from_disk = entry;
                        (&from_disk.address, &from_disk.frame)
                    }
                    Next::Waits => return false,
                    Next::Exhausted => {
                        self.from_disk = None;
                        continue;
                    }
                    Next::Failed(failure) => {
                        failure.end(subscription.session.outbox());
                        return true;
                    }
                },
                None => {
                    let Some(entry) = self.left.next() else { break };
                    from_memory = entry;
                    (&from_memory.address, &from_memory.frame)
                }
            };
            if !reader.wants(&router.policy, address, |triple, scope| subscription.may_receive(triple, scope)) {
                continue;
            }
            frames.push(match (&address.of, &self.owner) {
                (Of::Owner, Some(owner)) if subscription.sees_user() => {
                    copied += frame.len();
                    attributed(frame, owner)
                }
                (Of::Owner | Of::Everyone | Of::Sender(_), _) => frame.clone(),
            });
        }
        self.from_disk.is_none() && self.left.is_empty()
    }

    /// The bytes of entries that only replays have, because their log has dropped them.
    pub(in crate::router) fn bytes(&self) -> usize {
        let from_disk = self.from_disk.iter().map(|from_disk| from_disk.bytes()).sum::<usize>();
        let dropped = self.left.iter().map(|entry| &entry.frame).filter(|frame| frame.is_counted()).map(Frame::len);
        from_disk + dropped.sum::<usize>()
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
        address: &Address,
        may_receive: impl FnOnce(&Triple<'_>, Scope<'_>) -> bool,
    ) -> bool {
        // A service that names a user wants that user's events only, on shared channels too.
        let is_of_user = match (&self.session.role, self.observes, &address.of) {
            (Role::Service | Role::Adapter, Some(Observes::User(user)), Of::Sender(sender)) => {
                sender.as_deref() == Some(&**user)
            }
            _ => true,
        };
        let may_receive = || {
            let [channel, topic, subtopic] = parts(&address.triple);
            let triple = Triple::new(channel, topic, subtopic);
            let scope = match &address.of {
                Of::Owner => Scope::User(self.owner.unwrap_or_default()),
                Of::Everyone => Scope::Shared(None),
                Of::Sender(user) => Scope::Shared(user.as_deref()),
            };
            !policy.is_protected(&triple) && may_receive(&triple, scope)
        };
        is_of_user
            && address.target.as_deref().is_none_or(|target| *target == *self.session.source)
            && matches(policy, self.pattern, &address.triple)
            && may_receive()
    }
}
