//! [`Outlook`]: who would get an envelope now, chosen as delivery chooses.

use std::collections::HashSet;
use std::sync::Arc;

use wire::Envelope;

use super::answer::{Chosen, Effect};
use crate::router::decide::Facts;
use crate::router::ids::Serial;
use crate::router::index::{Matches, Subscription};
use crate::router::outbox::{Fate, OnFull, PushError};
use crate::router::recipients::{Origin, Seen, offer_to_each};
use crate::router::request::candidates::{Candidates, Preference};
use crate::router::request::turn::Begin;
use crate::router::{Router, Scope};
use wire::command::State;

/// Who would get an envelope.
#[derive(Default)]
pub(super) struct Outlook {
    /// By which subscription each session gets it.
    pub(super) picked: Vec<Picked>,
    /// The member of each group that gets it.
    pub(super) members: Vec<Arc<Subscription>>,
    /// The handlers that may have a request, best first.
    pub(super) ranked: Vec<(Preference, Arc<Subscription>)>,
    /// Ordered handlers whose turn has another request.
    pub(super) occupied: HashSet<Serial>,
}

/// One session that gets an envelope.
pub(super) struct Picked {
    pub(super) subscription: Arc<Subscription>,
    pub(super) effect: Effect,
    pub(super) chosen: Option<Chosen>,
}

impl Picked {
    fn new(subscription: &Arc<Subscription>, effect: Effect) -> Self {
        Self { subscription: Arc::clone(subscription), effect, chosen: None }
    }
}

impl Outlook {
    /// The numbers of the sessions that get the envelope.
    pub(super) fn receivers(&self) -> HashSet<u64> {
        self.picked.iter().map(|it| it.subscription.session.number).collect()
    }

    /// The handler that is chosen, with what decided.
    pub(super) fn chosen(&self) -> Option<&(Preference, Arc<Subscription>)> {
        let taken = |it: &&Picked| it.effect != Effect::Closes;
        let serial = self.picked.iter().find(taken)?.subscription.serial;
        self.ranked.iter().find(|(_, handler)| handler.serial == serial)
    }

    /// What the chosen handler is better in than this one.
    pub(super) fn why_not(&self, own: &(Preference, Arc<Subscription>)) -> Chosen {
        match self.chosen() {
            _ if self.occupied.contains(&own.1.serial) => Chosen::Turn,
            Some((chosen, _)) => better_in(chosen, own),
            None => Chosen::Load,
        }
    }
}

/// What a handler is better in than another one, which comes after it.
fn better_in(better: &Preference, (other, handler): &(Preference, Arc<Subscription>)) -> Chosen {
    if better.is_away != other.is_away {
        Chosen::Away
    } else if better.is_doubtful != other.is_doubtful {
        if handler.session.state() == State::Asleep { Chosen::Asleep } else { Chosen::Missed }
    } else if better.rank != other.rank {
        Chosen::Rank
    } else {
        Chosen::Load
    }
}

/// Whether one of these is of the session of a subscription.
fn has_session(picked: &[Picked], subscription: &Subscription) -> bool {
    picked.iter().any(|it| it.subscription.session.number == subscription.session.number)
}

/// What becomes of a message, unless its session is ending.
fn effect_of(fate: Fate) -> Option<Effect> {
    match fate {
        Fate::Queued => Some(Effect::Queued),
        Fate::DropsOldest => Some(Effect::DropsOldest),
        Fate::Dropped => Some(Effect::Dropped),
        Fate::Closes => Some(Effect::Closes),
        Fate::Ended => None,
    }
}

impl Outlook {
    /// Who would get an event.
    pub(super) fn of_event(
        origin: Origin<'_>,
        envelope: &Envelope<'_>,
        (scope, matches, facts): (Scope<'_>, &Matches, &Facts<'_>),
    ) -> Self {
        let mut seen = Seen::new(true);
        let (mut picked, mut members) = (Vec::new(), Vec::new());
        let bytes = envelope.text().len();
        let offer = |subscription: &Arc<Subscription>| {
            let session = &subscription.session;
            if let Some(has_it) = seen.before(session.number) {
                return has_it;
            }
            if !subscription.may_receive(envelope.triple(), scope) {
                seen.not_pushed(session.number, PushError::Forbidden);
                return false;
            }
            let fate = session.outbox().look(bytes, facts.on_full);
            picked.extend(effect_of(fate).map(|effect| Picked::new(subscription, effect)));
            let has_it = matches!(fate, Fate::Queued | Fate::DropsOldest);
            if !has_it {
                seen.not_pushed(session.number, PushError::Full);
            }
            has_it
        };
        offer_to_each(origin, envelope.target(), matches, offer, |member| {
            members.push(Arc::clone(member));
        });
        Self { picked, members, ..Self::default() }
    }
}

impl Router {
    /// Who would get a request.
    pub(super) fn outlook_of_request(
        &self,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        candidates: Candidates,
    ) -> Outlook {
        let mut outlook = Outlook { ranked: candidates.ranked(), ..Outlook::default() };
        if envelope.gather() {
            for handler in candidates.everyone() {
                let effect = self.effect_of_request(envelope, scope, &handler);
                outlook.picked.extend(effect.map(|effect| Picked::new(&handler, effect)));
                outlook.members.push(handler);
            }
            return outlook;
        }
        let is_occupied =
            |handler: &Subscription| handler.ordered.is_some() && handler.session.turns.look(handler) == Begin::NotFree;
        let occupied = outlook.ranked.iter().map(|(_, handler)| handler).filter(|handler| is_occupied(handler));
        outlook.occupied = occupied.map(|handler| handler.serial).collect();
        let mut waits = Vec::new();
        let mut is_placed = false;
        for (_, handler) in &outlook.ranked {
            // A session that is closed because of it gets nothing by its other subscriptions.
            if has_session(&outlook.picked, handler) {
                continue;
            }
            match self.effect_of_request(envelope, scope, handler) {
                Some(Effect::Waits) if has_session(&waits, handler) => {}
                Some(Effect::Waits) => waits.push(Picked::new(handler, Effect::Waits)),
                Some(effect @ (Effect::Queued | Effect::DropsOldest)) => {
                    outlook.picked.push(Picked::new(handler, effect));
                    is_placed = true;
                    break;
                }
                // The next one gets it.
                Some(effect) => outlook.picked.push(Picked::new(handler, effect)),
                None => {}
            }
        }
        waits.retain(|waiting| !has_session(&outlook.picked, &waiting.subscription));
        if !is_placed {
            outlook.picked.extend(waits);
        }
        outlook.note_why();
        outlook
    }

    /// What would become of a request at a handler; `None` if it cannot have it.
    fn effect_of_request(&self, envelope: &Envelope<'_>, scope: Scope<'_>, handler: &Subscription) -> Option<Effect> {
        let session = &handler.session;
        if !self.may_take(handler, envelope.triple(), scope.user()) {
            return None;
        }
        if handler.ordered.is_some() {
            match session.turns.look(handler) {
                Begin::Begun => {}
                Begin::NotFree => return Some(Effect::Waits),
                Begin::Left => return None,
            }
        }
        match session.door() {
            // A handler inside the process takes what it is offered, within bounds of its own.
            Some(_) => Some(Effect::Queued),
            None => effect_of(session.outbox().look(envelope.text().len(), OnFull::Close)),
        }
    }
}

impl Outlook {
    /// Notes what the handler that gets a request is better in than the next one.
    fn note_why(&mut self) {
        let Some((chosen, handler)) = self.chosen() else { return };
        let is_other = |(_, other): &&(Preference, Arc<Subscription>)| other.session.number != handler.session.number;
        let runner_up = self.ranked.iter().filter(|it| it.0 != *chosen).find(is_other);
        let why = match runner_up {
            None => Chosen::Only,
            Some((_, other)) if self.occupied.contains(&other.serial) => Chosen::Turn,
            Some(other) => better_in(chosen, other),
        };
        let serial = handler.serial;
        let is_chosen = |it: &&mut Picked| it.subscription.serial == serial && it.effect != Effect::Waits;
        for picked in self.picked.iter_mut().filter(is_chosen) {
            picked.chosen = Some(why);
        }
    }
}
