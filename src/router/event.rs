//! Rule 4: an event goes to every matching subscriber once, however many of its patterns match.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::router::decide::Facts;
use crate::router::index::receivers::Receivers;
use crate::router::index::{Audience, Matches, Subscription};
use crate::router::outbox::{OnFull, Pressure};
use crate::router::session::Session;
use crate::router::{Receipt, Routed, Router, Scope};
use crate::websocket::Frame;
use wire::{Envelope, Field, Splice, check_name};
use wire::{ErrorCode, Refusal};

/// An event's two forms: as its user's sessions see it, and with `user` for services and observers. Each is spliced once,
/// when the first receiver needs it.
struct Forms<'e> {
    envelope: &'e Envelope<'e>,
    source: &'e str,
    user: Option<&'e str>,
    plain: Option<Frame>,
    attributed: Option<Frame>,
}

impl Forms<'_> {
    fn splice(&self) -> Splice<'_> {
        let splice = Splice::new(self.envelope).cut(Field::User);
        if self.envelope.source().is_none() { splice.string("source", self.source) } else { splice }
    }

    fn plain(&mut self) -> Frame {
        if let Some(frame) = &self.plain {
            return frame.clone();
        }
        let frame = Frame::from(self.splice());
        self.plain = Some(frame.clone());
        frame
    }

    fn attributed(&mut self) -> Frame {
        let Some(user) = self.user else { return self.plain() };
        if let Some(frame) = &self.attributed {
            return frame.clone();
        }
        let frame = Frame::from(self.splice().string("user", user));
        self.attributed = Some(frame.clone());
        frame
    }
}

impl Subscription {
    /// Whether its session sees whose envelope it is: services, and observers of others.
    pub(super) fn sees_user(&self) -> bool {
        self.observes.is_some() || self.session.user().is_none()
    }
}

impl Router {
    /// Publishes an event, and keeps it if it is to be retained.
    pub(super) fn publish(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        mut matches: Matches,
        facts: &Facts<'_>,
    ) -> Result<Routed, Refusal> {
        let mut forms = Forms { envelope, source: &sender.source, user: scope.user(), plain: None, attributed: None };
        if envelope.retain() {
            self.retained.keep(&self.policy, envelope, scope, forms.splice().flag("retained").into())?;
            // Looked up again: a subscription that was made meanwhile gets the event one way or the other.
            matches = self.subscribers(facts, scope);
        }
        let Delivery { receivers, pressed, .. } = self.give_to_all(now, sender, &matches, &mut forms, facts);
        let hint = if receivers == 0 { self.hint(sender, envelope, scope) } else { None };
        Ok(Routed { receipt: Some(Receipt { receivers, hint }), pressed })
    }

    /// Publishes what an adapter received from outside: for `user`, or for every user there is and the services. It is an
    /// event whatever subscribes to its triple: no handler takes it for a request.
    ///
    /// # Errors
    /// `INVALID_ENVELOPE` if the user is not a valid name, `FORBIDDEN` for a protected triple, which is never an event.
    pub fn announce(
        &self,
        now: Instant,
        adapter: &Arc<Session>,
        envelope: &Envelope<'_>,
        user: Option<&str>,
    ) -> Result<Routed, Refusal> {
        if let Some(Err(fault)) = user.map(check_name) {
            return Err(Refusal::new(ErrorCode::InvalidEnvelope, format!("the user {fault}")));
        }
        let facts = self.policy.facts(envelope.triple());
        if facts.protected {
            return Err(Refusal::new(ErrorCode::Forbidden, "a protected triple is never an event"));
        }
        let mut forms = Forms { envelope, source: &adapter.source, user, plain: None, attributed: None };
        let matches = match user {
            _ if facts.shared => self.subscribers(&facts, Scope::Shared(user)),
            Some(user) => self.subscribers(&facts, Scope::User(user)),
            None => self.subscribers_of_all(&facts),
        };
        let Delivery { receivers, pressed, .. } = self.give_to_all(now, adapter, &matches, &mut forms, &facts);
        Ok(Routed { receipt: Some(Receipt { receivers, hint: None }), pressed })
    }

    /// Pushes an event to every receiver of some lists, once to each.
    fn give_to_all(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        matches: &Matches,
        forms: &mut Forms<'_>,
        facts: &Facts<'_>,
    ) -> Delivery {
        let envelope = forms.envelope;
        // On a channel that folds, patterns that differ in letter case only are one key.
        let twice = matches.len() > 1 || facts.folded || matches.iter().any(Receivers::has_special);
        let mut delivery = Delivery::new(now, facts.on_full, twice);
        let mut groups = Groups::default();
        for subscription in matches.iter().flat_map(Receivers::iter) {
            let session = &subscription.session;
            let is_sender = Arc::ptr_eq(session, sender) && !sender.echo;
            if is_sender || envelope.target().is_some_and(|target| target != &*session.source) {
                continue;
            }
            if subscription.group.is_some() {
                groups.add(subscription);
                continue;
            }
            delivery.push(subscription, forms);
        }
        groups.each(|members| {
            // The session whose queue is shortest, then the one longest unserved; the next one where that one is ending.
            members.sort_by_cached_key(|it| (it.session.outbox().depth().messages, it.session.served(), it.serial));
            if let Some(chosen) = members.iter().find(|it| delivery.push(it, forms)) {
                chosen.session.serve(self.ids.stamp());
            }
        });
        delivery
    }

    /// The lists of subscriptions that an event reaches.
    pub(super) fn subscribers(&self, facts: &Facts<'_>, scope: Scope<'_>) -> Matches {
        match scope {
            Scope::User(user) => {
                let audiences =
                    [Audience::User(user), Audience::Services, Audience::Observes(user), Audience::ObservesAll];
                self.events.matches(&audiences, &facts.canonical, facts.folded)
            }
            Scope::Shared(_) => {
                self.events.matches(&[Audience::Everyone, Audience::Services], &facts.canonical, facts.folded)
            }
        }
    }

    /// Receivers of a broadcast on a user-scoped channel. Looks each present user up: broadcasts are rare, and a key of
    /// their own would cost every subscription.
    fn subscribers_of_all(&self, facts: &Facts<'_>) -> Matches {
        let (triple, folded) = (&facts.canonical, facts.folded);
        let mut matches = self.events.matches(&[Audience::Services, Audience::ObservesAll], triple, folded);
        for user in self.presence.users() {
            matches.extend(self.events.matches(&[Audience::User(&user), Audience::Observes(&user)], triple, folded));
        }
        matches
    }
}

/// One event on its way to its receivers.
struct Delivery {
    now: Instant,
    on_full: OnFull,
    /// Who has it already; kept only where somebody may stand in the lists twice.
    seen: Option<HashSet<u64, foldhash::fast::RandomState>>,
    receivers: usize,
    pressed: Vec<Arc<Session>>,
}

impl Delivery {
    fn new(now: Instant, on_full: OnFull, may_stand_twice: bool) -> Self {
        Self { now, on_full, seen: may_stand_twice.then(HashSet::default), receivers: 0, pressed: Vec::new() }
    }

    /// `false`: the receiver is ending.
    fn push(&mut self, subscription: &Subscription, forms: &mut Forms<'_>) -> bool {
        let session = &subscription.session;
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(session.number)) {
            return true;
        }
        let frame = if subscription.sees_user() { forms.attributed() } else { forms.plain() };
        let Ok(pressure) = session.push(self.now, frame, self.on_full) else { return false };
        self.receivers += 1;
        if pressure == Pressure::Over {
            self.pressed.push(Arc::clone(session));
        }
        true
    }
}

/// Subscriptions that share their messages.
type Group<'s> = SmallVec<[&'s Arc<Subscription>; 4]>;

/// Groups, by whose they are and by name.
#[derive(Default)]
struct Groups<'s> {
    members: BTreeMap<(Option<&'s str>, &'s str), Group<'s>>,
}

impl<'s> Groups<'s> {
    fn add(&mut self, subscription: &'s Arc<Subscription>) {
        if let Some(group) = &subscription.group {
            self.members.entry((subscription.session.user(), group)).or_default().push(subscription);
        }
    }

    fn each(self, mut serve: impl FnMut(&mut Group<'s>)) {
        if self.members.is_empty() {
            return;
        }
        for (_, mut members) in self.members {
            serve(&mut members);
        }
    }
}
