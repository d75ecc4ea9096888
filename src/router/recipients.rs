//! Which subscriptions of some lists an event is offered to: each session once, and one member of each group.
//!
//! Delivery pushes what is offered; explain only looks. Both walk the lists with the same function, so that they agree.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::router::index::receivers::Receivers;
use crate::router::index::{Matches, Subscription};
use crate::router::outbox::PushError;
use crate::router::session::Session;

/// Offers an event to the subscriptions of some lists: to each that is in no group, then to the members of each group until
/// one takes it. `offer` returns whether the session has the event now; `chosen` is called with the member that took it.
///
/// `target`: the only source that takes part, if the event names one. The sender takes part if it wants its own events.
pub(super) fn offer_to_each(
    sender: &Arc<Session>,
    target: Option<&str>,
    matches: &Matches,
    mut offer: impl FnMut(&Arc<Subscription>) -> bool,
    chosen: impl FnMut(&Arc<Subscription>),
) {
    let mut grouped = Vec::new();
    matches.iter().for_each(|receivers| {
        receivers.iter().for_each(|subscription| {
            let session = &subscription.session;
            let is_sender = Arc::ptr_eq(session, sender) && !sender.echoes();
            if is_sender || target.is_some_and(|target| target != &*session.source) {
                return;
            }
            if subscription.group.is_some() {
                grouped.push(subscription);
                return;
            }
            offer(subscription);
        });
    });
    if !grouped.is_empty() {
        offer_to_groups(grouped, offer, chosen);
    }
}

/// Offers an event to one member of each group.
fn offer_to_groups(
    mut grouped: Vec<&Arc<Subscription>>,
    mut offer: impl FnMut(&Arc<Subscription>) -> bool,
    mut chosen: impl FnMut(&Arc<Subscription>),
) {
    grouped.sort_by(|one, other| group_of(one).cmp(&group_of(other)));
    for members in grouped.chunk_by_mut(|one, other| group_of(one) == group_of(other)) {
        // A session that has a connection, then the one whose queue is shortest, then the one longest unserved; the next one
        // if that one is ending, or may not receive the event.
        if members.len() > 1 {
            members.sort_by_cached_key(|it| {
                let session = &it.session;
                (session.is_away(), session.outbox().depth().messages, session.served(), it.serial)
            });
        }
        if let Some(member) = members.iter().find(|it| offer(it)) {
            chosen(member);
        }
    }
}

/// The group of a subscription. Its members are sessions of one user, or services.
pub(super) fn group_of(subscription: &Subscription) -> (Option<&str>, Option<&str>) {
    (subscription.group.as_deref(), subscription.session.user())
}

/// Whether one session can be in some lists twice. `folded`: on a channel that folds, patterns that differ in letter case only
/// are one key.
pub(super) fn may_repeat(matches: &Matches, folded: bool) -> bool {
    matches.len() > 1 || folded || matches.iter().any(Receivers::has_special)
}

/// The sessions to which an event was offered, and whether they have it.
pub(super) struct Seen(Option<HashMap<u64, bool, foldhash::fast::RandomState>>);

impl Seen {
    /// `may_repeat`: a session may be in the lists twice. Otherwise nothing is kept.
    pub(super) fn new(may_repeat: bool) -> Self {
        Self(may_repeat.then(HashMap::default))
    }

    /// Returns whether the session with this number has the event from an earlier offer. `None`: this is the first one.
    pub(super) fn before(&mut self, session: u64) -> Option<bool> {
        match self.0.as_mut()?.entry(session) {
            Entry::Occupied(seen) => Some(*seen.get()),
            Entry::Vacant(new) => {
                new.insert(true);
                None
            }
        }
    }

    /// Notes that a session has not got the event. Another subscription may allow what this one does not, but no
    /// subscription makes room in the queue.
    #[cold]
    pub(super) fn not_pushed(&mut self, session: u64, error: PushError) {
        if let Some(seen) = &mut self.0 {
            match error {
                PushError::Closed | PushError::Full => seen.insert(session, false),
                PushError::Forbidden | PushError::Unchecked => seen.remove(&session),
            };
        }
    }
}
