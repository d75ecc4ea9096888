//! Unsubscribing, and taking a subscription that has ended out of the index.

use std::sync::Arc;
use std::time::Instant;

use crate::router::ended::SubscriptionEnd;
use crate::router::index::Subscription;
use crate::router::resume::transit::Transit;
use crate::router::session::Session;
use crate::router::subscribe::same_pattern;
use crate::router::{Router, SubscriptionId, access};
use wire::command::{self, SubscriptionFilter};
use wire::{ErrorCode, Refusal};

impl Router {
    /// Ends a subscription, by its id.
    ///
    /// # Errors
    /// `NO_SUCH_SUBSCRIPTION`.
    pub fn unsubscribe(&self, now: Instant, session: &Arc<Session>, id: &str) -> Result<(), Refusal> {
        let id: Option<SubscriptionId> = id.parse().ok();
        self.end_subscriptions(now, session, |it| Some(it.id) == id)
    }

    /// Ends every subscription of a session that fits.
    ///
    /// # Errors
    /// `NO_SUCH_SUBSCRIPTION` if none does.
    pub fn unsubscribe_matching(
        &self,
        now: Instant,
        session: &Arc<Session>,
        filter: &SubscriptionFilter,
    ) -> Result<(), Refusal> {
        self.end_subscriptions(now, session, |it| {
            same_pattern(&self.policy, &it.pattern, &filter.pattern)
                && filter.role.is_none_or(|role| it.role.name() == role)
                && filter.group.as_deref().is_none_or(|group| it.group.as_deref() == Some(group))
                && filter.user.as_deref().is_none_or(|user| it.observes == access::observed(session, user))
        })
    }

    fn end_subscriptions(
        &self,
        now: Instant,
        session: &Arc<Session>,
        mut fits: impl FnMut(&Subscription) -> bool,
    ) -> Result<(), Refusal> {
        let mut holds = session.holds.lock();
        let ended: Vec<_> = holds.subscriptions.extract_if(.., |it| fits(it)).collect();
        holds.note_ended(self.date(now), &ended, SubscriptionEnd::Unsubscribed);
        drop(holds);
        if ended.is_empty() {
            return Err(Refusal::new(
                ErrorCode::NoSuchSubscription,
                "this session has no such subscription; Broker/Subscription/List shows those that it has",
            ));
        }
        for subscription in &ended {
            self.note_unsubscribed(now, subscription, None);
            self.unlist(now, subscription);
        }
        Ok(())
    }

    /// Takes a subscription that has ended out of the index.
    pub(super) fn unlist(&self, now: Instant, subscription: &Arc<Subscription>) {
        subscription.listing.end();
        self.hints.remove(subscription);
        self.announce_end(subscription);
        match subscription.role {
            command::Role::Subscriber => self.events.remove(subscription),
            command::Role::Handler { .. } => {
                self.handlers.remove(subscription);
                let session = &subscription.session;
                // The requests that wait for one that has gone to another node wait on.
                if subscription.ordered.is_some() && !session.transit().is_some_and(Transit::has_gone) {
                    for (pending, handler) in session.turns.leave(&self.requests, subscription) {
                        self.handler_left(now, &pending, &handler);
                    }
                    // What it owed no longer blocks the others.
                    self.serve_turns(now, session);
                }
            }
        }
    }
}
