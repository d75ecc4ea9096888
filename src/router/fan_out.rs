//! An event on its way to its receivers: every matching subscriber once, one member of each group.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use crate::router::decide::Facts;
use crate::router::forms::Forms;
use crate::router::index::receivers::Receivers;
use crate::router::index::{Matches, Subscription};
use crate::router::outbox::{Kind, OnFull, Pressure, PushError};
use crate::router::session::Session;
use crate::router::{Router, Scope};

/// One event on its way to its receivers.
pub(super) struct Delivery {
    now: Instant,
    on_full: OnFull,
    /// The sessions that have it already, and with `false` those whose queue does not take it. Kept only if a session may be
    /// in the lists twice.
    seen: Option<HashMap<u64, bool, foldhash::fast::RandomState>>,
    pub(super) delivered: Delivered,
}

/// What became of an event.
#[derive(Default)]
pub(super) struct Delivered {
    /// The receivers that the sender may know of.
    pub(super) receivers: usize,
    /// The receivers whose queues are over half now.
    pub(super) pressed: Vec<Arc<Session>>,
}

impl Router {
    /// Pushes an event to every receiver of some lists, once to each.
    pub(super) fn give_to_all(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        matches: &Matches,
        forms: &mut Forms<'_>,
        facts: &Facts<'_>,
    ) -> Delivered {
        // On a channel that folds, patterns that differ in letter case only are one key.
        let twice = matches.len() > 1 || facts.folded || matches.iter().any(Receivers::has_special);
        let mut delivery = Delivery::new(now, facts.on_full, twice);
        self.give_to_each(sender, matches, forms, &mut delivery);
        delivery.delivered
    }

    /// Pushes an event to every receiver of some lists that does not have it yet.
    #[inline]
    pub(super) fn give_to_each(
        &self,
        sender: &Arc<Session>,
        matches: &Matches,
        forms: &mut Forms<'_>,
        delivery: &mut Delivery,
    ) {
        let envelope = forms.envelope;
        let mut grouped = Vec::new();
        matches.iter().for_each(|receivers| {
            receivers.iter().for_each(|subscription| {
                let session = &subscription.session;
                let is_sender = Arc::ptr_eq(session, sender) && !sender.echoes();
                if is_sender || envelope.target().is_some_and(|target| target != &*session.source) {
                    return;
                }
                if subscription.group.is_some() {
                    grouped.push(subscription);
                    return;
                }
                delivery.push(subscription, forms);
            });
        });
        if !grouped.is_empty() {
            self.give_to_groups(grouped, delivery, forms);
        }
    }

    /// Pushes an event to one member of each group.
    fn give_to_groups(&self, mut grouped: Vec<&Arc<Subscription>>, delivery: &mut Delivery, forms: &mut Forms<'_>) {
        grouped.sort_by(|one, other| group_of(one).cmp(&group_of(other)));
        for members in grouped.chunk_by_mut(|one, other| group_of(one) == group_of(other)) {
            // A session that has a connection, then the one whose queue is shortest, then the one longest unserved; the next one if that one is ending, or
            // may not receive the event.
            if members.len() > 1 {
                members.sort_by_cached_key(|it| {
                    let session = &it.session;
                    (session.is_away(), session.outbox().depth().messages, session.served(), it.serial)
                });
            }
            if let Some(chosen) = members.iter().find(|it| delivery.push(it, forms)) {
                chosen.session.serve(self.ids.stamp());
            }
        }
    }
}

impl Delivery {
    pub(super) fn new(now: Instant, on_full: OnFull, twice: bool) -> Self {
        Self { now, on_full, seen: twice.then(HashMap::default), delivered: Delivered::default() }
    }

    /// Pushes the event to the session of a subscription, unless it has it. Returns `false` if the session is ending, or may
    /// not receive it by this subscription.
    fn push(&mut self, subscription: &Subscription, forms: &mut Forms<'_>) -> bool {
        let session = &subscription.session;
        if let Some(seen) = &mut self.seen {
            match seen.entry(session.number) {
                Entry::Occupied(seen) => return *seen.get(),
                Entry::Vacant(new) => new.insert(true),
            };
        }
        let pushed = match subscription.is_checked() {
            false => session.outbox().push_event(self.now, forms.for_receiver(subscription), self.on_full),
            true => Err(PushError::Unchecked),
        };
        let pressure = match pushed {
            Ok(pressure) => pressure,
            Err(PushError::Unchecked) => match self.push_checked(subscription, forms) {
                Ok(pressure) => pressure,
                Err(error) => return self.not_pushed(session, error),
            },
            Err(error) => return self.not_pushed(session, error),
        };
        self.delivered.receivers += usize::from(is_counted(subscription, forms.scope));
        if pressure == Pressure::Over {
            self.delivered.pressed.push(Arc::clone(session));
        }
        true
    }

    /// Notes that a session has not got the event. Another subscription may allow what this one does not, but no
    /// subscription makes room in the queue.
    #[cold]
    fn not_pushed(&mut self, session: &Session, error: PushError) -> bool {
        if let Some(seen) = &mut self.seen {
            match error {
                PushError::Closed | PushError::Full => seen.insert(session.number, false),
                PushError::Forbidden | PushError::Unchecked => seen.remove(&session.number),
            };
        }
        false
    }

    /// Pushes the event if the permissions of the session allow it. Apart, because most sessions do without it.
    #[inline(never)]
    fn push_checked(&self, subscription: &Subscription, forms: &mut Forms<'_>) -> Result<Pressure, PushError> {
        let content = (forms.for_receiver(subscription), Kind::Event);
        let may = || subscription.may_receive(forms.envelope.triple(), forms.scope);
        subscription.session.push_if(self.now, content, self.on_full, may)
    }
}

/// The group of a subscription. Its members are sessions of one user, or services.
fn group_of(subscription: &Subscription) -> (Option<&str>, Option<&str>) {
    (subscription.group.as_deref(), subscription.session.user())
}

/// Whether a receiver is of the sender's own scope, or a service. Observers are not counted, so that nobody learns from a
/// receipt that somebody watches.
fn is_counted(subscription: &Subscription, scope: Scope<'_>) -> bool {
    subscription.observes.is_none()
        || match scope {
            Scope::User(user) => subscription.session.user().is_none_or(|own| own == user),
            Scope::Shared(_) => true,
        }
}
