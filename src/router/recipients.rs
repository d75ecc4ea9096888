//! Which subscriptions of some lists an event is offered to: each session once, and one member of each group.
//!
//! Delivery pushes what is offered; explain only looks. Both walk the lists with the same function, so that they agree.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::router::ids::Serial;
use crate::router::index::receivers::Receivers;
use crate::router::index::{Matches, Subscription};
use crate::router::outbox::PushError;
use crate::router::session::{Role, Session};

/// Offers an event to the subscriptions of some lists: to each that is in no group, then to the members of each group until
/// one takes it. `offer` returns whether the session has the event now; `chosen` is called with the member that took it.
///
/// `target`: the only source that takes part, if the event names one.
pub(super) fn offer_to_each(
    origin: Origin<'_>,
    target: Option<&str>,
    matches: &Matches,
    mut offer: impl FnMut(&Arc<Subscription>) -> bool,
    mut chosen: impl FnMut(&Arc<Subscription>),
) {
    let takes_part = |subscription: &Subscription| {
        let is_target = target.is_none_or(|target| target == &*subscription.session.source);
        is_target && origin.reaches(subscription)
    };
    // Ranked before the first offer. An offer of delivery makes a queue longer, one of explain does not, and both have to
    // choose the same members.
    let grouped = ranked_members(matches, takes_part);
    matches.iter().for_each(|receivers| {
        receivers.iter().for_each(|subscription| {
            if takes_part(subscription) && subscription.group.is_none() {
                offer(subscription);
            }
        });
    });
    for members in grouped.chunk_by(|(one, _), (other, _)| group_of(one) == group_of(other)) {
        // A member that is ending, or may not receive the event, does not take it, and the next one is asked.
        if let Some((member, _)) = members.iter().find(|(member, _)| offer(member)) {
            chosen(member);
        }
    }
}

/// Where an event comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// A session of this node, which takes part if it wants its own events.
    Session(&'a Arc<Session>),
    /// Another node, which has chosen the members of groups, and whose adapters have seen the event.
    Node,
}

impl Origin<'_> {
    fn reaches(self, subscription: &Subscription) -> bool {
        match self {
            Self::Session(sender) => !Arc::ptr_eq(&subscription.session, sender) || sender.echoes(),
            Self::Node => subscription.group.is_none() && subscription.session.role != Role::Adapter,
        }
    }
}

/// What decides between the members of a group, in this order: whether it has no connection, how many messages wait for it,
/// when it was last served, and when it subscribed. The least is asked first.
type MemberRank = (bool, usize, u64, Serial);

/// The members of groups in some lists, group by group, each group in the order in which its members are asked.
fn ranked_members(
    matches: &Matches,
    takes_part: impl Fn(&Subscription) -> bool,
) -> Vec<(&Arc<Subscription>, MemberRank)> {
    let mut grouped = Vec::new();
    for receivers in matches.iter().filter(|receivers| receivers.has_special()) {
        let members = receivers.iter().filter(|it| it.group.is_some() && takes_part(it));
        grouped.extend(members.map(|it| {
            let session = &it.session;
            (it, (session.is_away(), session.outbox().depth().messages, session.served(), it.serial))
        }));
    }
    grouped.sort_by(|(one, rank), (other, other_rank)| (group_of(one), rank).cmp(&(group_of(other), other_rank)));
    grouped
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
