//! How a session ends.

use std::sync::Arc;
use std::time::Instant;

use crate::router::Router;
use crate::router::outbox::End;
use crate::router::presence::Change;
use crate::router::session::{Role, Session};

/// Why a session ends. This decides whether its will is published: docs/protocol.md, "Wills".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The application leaves.
    Left,
    /// The broker drains.
    Drained,
    /// Anything else, such as a lost connection.
    Failed,
}

impl Router {
    /// Ends the session of an application that leaves, or of an adapter.
    pub fn detach(&self, now: Instant, session: &Arc<Session>) {
        self.end(now, session, Ending::Left);
    }

    /// Ends a session: its subscriptions end, its will is published, what it asked is withdrawn, what it was given fails.
    pub fn end(&self, now: Instant, session: &Arc<Session>, ending: Ending) {
        let (subscriptions, will, given, asked) = {
            let mut holds = session.holds.lock();
            holds.close();
            let asked: Vec<_> = holds.asked.values().cloned().collect();
            (std::mem::take(&mut holds.subscriptions), holds.will.take(), holds.given_in_order(), asked)
        };
        // From here on nothing is pushed to it, and it is given nothing.
        session.outbox().end(End::Detached);
        let waited = session.turns.close(&self.requests);
        for subscription in &subscriptions {
            self.unlist(now, subscription);
        }
        if let Some(will) = will.filter(|_| ending == Ending::Failed && !session.is_revoked()) {
            self.publish_will(now, session, &will);
        }
        if session.role != Role::Adapter {
            self.presence.leave(session);
            self.tell_presence(now, session, Change::Left);
        }
        for (pending, handler) in waited {
            self.handler_left(now, &pending, &handler);
        }
        for pending in given {
            self.handler_gone(now, &pending, session);
        }
        for pending in asked {
            if let Some(gather) = &pending.gather {
                gather.cancel();
            }
            self.withdraw(now, &pending, "the requester left");
        }
        debug_assert!(session.holds.lock().is_idle(), "a session that has gone holds no request");
        debug_assert_eq!((session.busy(), session.turns.len(), session.turns.waiting()), (0, 0, 0));
    }

    /// Ends the session with the longest queue, in bytes, because all queues together use too much memory. Its connection
    /// closes it. Returns `false` if nothing waits for any session.
    pub fn end_longest_queue(&self) -> bool {
        let mut longest: Option<(usize, Arc<Session>)> = None;
        self.presence.each(|session| {
            let bytes = session.outbox().bytes_held();
            // Of two, the older session, so that the order of the map does not decide.
            let is_longer =
                longest.as_ref().is_none_or(|(most, other)| (bytes, other.number) > (*most, session.number));
            if bytes > 0 && is_longer {
                longest = Some((bytes, Arc::clone(session)));
            }
        });
        if let Some((_, session)) = &longest {
            session.outbox().discard(End::Longest);
        }
        longest.is_some()
    }
}
