//! [`Router::rescope`]: channels of which a reload has changed the scope, or whether they fold.
//!
//! Subscriptions that name such a channel are in the index for the old scope or in the old form, so they end, and the session
//! subscribes again. Those for all channels are listed for both scopes and in both forms, and stay. Retained values of the
//! channel are removed: they belong to one user or to all, as the old scope says, and are kept by triples in the old form.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::router::Router;
use crate::router::change::{Reason, tell};
use crate::router::ended::SubscriptionEnd;
use crate::router::index::Subscription;
use crate::router::session::Session;
use crate::store::history::Place;

impl Router {
    /// Ends what is listed for these channels. The policy with their new scope or folding is in force: whatever is made from
    /// now on has it, and a session that subscribes at the same time is either found here or subscribes by the new policy.
    pub(super) fn rescope(&self, now: Instant, channels: &BTreeSet<String>, reason: Reason) {
        if channels.is_empty() {
            return;
        }
        let removed = self.retained.remove_channels(channels);
        if let Some(commits) = &self.commits {
            let is_on_disk = |place: &Place| {
                let channel = place.triple.split('/').next().unwrap_or_default();
                self.policy.retains_durably(channel)
            };
            commits.forgotten.add_values(removed.into_iter().filter(is_on_disk));
        }
        let mut sessions = Vec::new();
        self.presence.each(|session| sessions.push(Arc::clone(session)));
        for session in &sessions {
            self.end_on(now, session, channels, reason);
        }
    }

    /// Ends the subscriptions of a session that name one of these channels. Their requests go on, or go to other handlers, as
    /// after Unsubscribe.
    fn end_on(&self, now: Instant, session: &Arc<Session>, channels: &BTreeSet<String>, reason: Reason) {
        let names_one =
            |it: &Arc<Subscription>| it.pattern.channel.as_deref().is_some_and(|channel| channels.contains(channel));
        let mut holds = session.holds.lock();
        if holds.is_closed() || !holds.subscriptions.iter().any(names_one) {
            return;
        }
        let ended: Vec<_> = holds.subscriptions.extract_if(.., |it| names_one(it)).collect();
        // Nothing is pushed meanwhile, and what was decided before is checked from then on.
        let change = || {
            for subscription in &ended {
                subscription.listing.end();
                subscription.checked.store(true, Ordering::Relaxed);
            }
        };
        // What waits stays.
        session.outbox().hold(now, change, |_, _| true);
        holds.note_ended(self.date(now), &ended, SubscriptionEnd::Changed(reason));
        tell(now, session, &ended, &[], reason);
        drop(holds);
        for subscription in &ended {
            self.note_unsubscribed(now, subscription, Some(reason));
            self.unlist(now, subscription);
        }
    }
}
