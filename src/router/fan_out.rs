//! An event on its way to its receivers: every matching subscriber once, one member of each group.

use std::sync::Arc;
use std::time::Instant;

use crate::router::decide::Facts;
use crate::router::forms::Forms;
use crate::router::history::InLog;
use crate::router::index::{Matches, Subscription};
use crate::router::outbox::{Kind, OnFull, Pressure, PushError};
use crate::router::recipients::{Origin, Seen, may_repeat, offer_to_each};
use crate::router::resume::transit::From;
use crate::router::session::Session;
use crate::router::{Router, Scope};

/// One event on its way to its receivers.
pub(super) struct Delivery<'n> {
    now: Instant,
    /// The node of its publisher; `None` is this one.
    from: From<'n>,
    on_full: OnFull,
    /// The key of the log in whose order the event is delivered.
    log: Option<&'n str>,
    seen: Seen,
    pub(super) delivered: Delivered,
}

/// What became of an event.
#[derive(Default)]
pub(super) struct Delivered {
    /// The receivers that the sender may know of.
    pub(super) receivers: usize,
    /// In how many queues it is.
    pub(super) deliveries: usize,
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
        let mut delivery = Delivery::new(now, None, facts.on_full, may_repeat(matches, facts.folded));
        self.give_to_each(Origin::Session(sender), matches, forms, &mut delivery);
        delivery.delivered
    }

    /// Pushes an event to every receiver of some lists that does not have it yet.
    #[inline]
    pub(super) fn give_to_each(
        &self,
        origin: Origin<'_>,
        matches: &Matches,
        forms: &mut Forms<'_>,
        delivery: &mut Delivery<'_>,
    ) {
        let target = forms.envelope.target();
        let serve = |chosen: &Arc<Subscription>| chosen.session.serve(self.ids.stamp());
        offer_to_each(origin, target, matches, |subscription| delivery.push(subscription, forms), serve);
    }
}

impl<'n> Delivery<'n> {
    /// `may_repeat`: a session may be in the lists twice.
    pub(super) fn new(now: Instant, from: From<'n>, on_full: OnFull, may_repeat: bool) -> Self {
        Self { now, from, on_full, log: None, seen: Seen::new(may_repeat), delivered: Delivered::default() }
    }

    /// The event is delivered in the order of the log with this key.
    pub(super) fn in_order_of(self, log: &'n str) -> Self {
        Self { log: Some(log), ..self }
    }

    /// Pushes the event to the session of a subscription, unless it has it. Returns `false` if the session is ending, or may
    /// not receive it by this subscription.
    pub(super) fn push(&mut self, subscription: &Subscription, forms: &mut Forms<'_>) -> bool {
        let session = &subscription.session;
        if let Some(has_it) = self.seen.before(session.number) {
            return has_it;
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
        self.delivered.deliveries += 1;
        self.delivered.receivers += usize::from(is_counted(subscription, forms.scope));
        if pressure == Pressure::Over {
            self.delivered.pressed.push(Arc::clone(session));
        }
        true
    }

    #[cold]
    fn not_pushed(&mut self, session: &Session, error: PushError) -> bool {
        self.seen.not_pushed(session.number, error);
        false
    }

    /// Pushes the event if the permissions of the session allow it. Apart, because most sessions do without it.
    #[inline(never)]
    fn push_checked(&self, subscription: &Subscription, forms: &mut Forms<'_>) -> Result<Pressure, PushError> {
        if let Some(remote) = subscription.session.remote() {
            if !subscription.may_receive(forms.envelope.triple(), forms.scope) {
                return Err(PushError::Forbidden);
            }
            let is_given = remote.event(subscription, &forms.sent());
            return if is_given { Ok(Pressure::Relieved) } else { Err(PushError::Closed) };
        }
        let content = (forms.for_receiver(subscription), self.on_full, Kind::Event);
        let may = || subscription.may_receive(forms.envelope.triple(), forms.scope);
        // The member of a group is chosen at the publisher's node, so others of the log need not reach it.
        let log = self.log.filter(|_| subscription.group.is_none());
        let place = log.zip(forms.position()).map(|(log, position)| InLog { log, position });
        subscription.session.push_from(self.now, (self.from, place), content, may)
    }
}

/// Whether a receiver is of the sender's own scope, or a service. Observers are not counted, so that nobody learns from a
/// receipt that somebody watches.
pub(super) fn is_counted(subscription: &Subscription, scope: Scope<'_>) -> bool {
    subscription.observes.is_none()
        || match scope {
            Scope::User(user) => subscription.session.user().is_none_or(|own| own == user),
            Scope::Shared(_) => true,
        }
}
