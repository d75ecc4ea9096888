//! Rule 4: an event goes to every matching subscriber once, however many of its patterns match.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::router::index::receivers::Receivers;
use crate::router::index::{Audience, Matches, Subscription};
use crate::router::outbox::{Kind, Outbox};
use crate::router::session::Session;
use crate::router::{Receipt, Routed, Router, Scope};
use crate::websocket::Frame;
use wire::{Envelope, Field, Splice, Triple, check_name};
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
    /// Whether its member sees whose envelope it is: services, and observers of others.
    pub(super) fn sees_user(&self) -> bool {
        self.watch.is_some() || self.member.user().is_none()
    }
}

impl Router {
    /// Publishes an event, and keeps it if it is to be retained.
    pub(super) fn publish(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        whose: Scope<'_>,
    ) -> Result<Routed, Refusal> {
        let mut forms = Forms { envelope, source: &sender.source, user: whose.user(), plain: None, attributed: None };
        if envelope.retain() {
            // Before the look-up, so that a subscription made meanwhile gets it one way or the other.
            self.retained.keep(&self.policy, envelope, whose, forms.splice().flag("retained").into())?;
        }
        let triple = self.policy.canonical(envelope.triple());
        let matches = self.subscribers(&triple, whose);
        let Delivery { receivers, pressed, .. } = self.deliver(now, sender, &matches, &mut forms);
        let hint = if receivers == 0 { self.hint(sender, envelope, whose) } else { None };
        Ok(Routed { receipt: Some(Receipt { receivers, hint }), pressed })
    }

    /// Publishes what an adapter heard from outside: for `user`, or for every user there is and the services. It is an
    /// event whatever subscribes to its triple: no handler takes it for a request.
    ///
    /// # Errors
    /// `INVALID_ENVELOPE` for a user that is no name, `FORBIDDEN` for a protected triple, which is never an event.
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
        if self.policy.is_protected(envelope.triple()) {
            return Err(Refusal::new(ErrorCode::Forbidden, "a protected triple is never an event"));
        }
        let mut forms = Forms { envelope, source: &adapter.source, user, plain: None, attributed: None };
        let triple = self.policy.canonical(envelope.triple());
        let matches = match user {
            _ if self.policy.is_shared(&triple.channel) => self.subscribers(&triple, Scope::Shared(user)),
            Some(user) => self.subscribers(&triple, Scope::User(user)),
            None => self.subscribers_of_all(&triple),
        };
        let Delivery { receivers, pressed, .. } = self.deliver(now, adapter, &matches, &mut forms);
        Ok(Routed { receipt: Some(Receipt { receivers, hint: None }), pressed })
    }

    /// Gives an event to the receivers of some lists, to each once.
    fn deliver(&self, now: Instant, sender: &Arc<Session>, matches: &Matches, forms: &mut Forms<'_>) -> Delivery {
        let envelope = forms.envelope;
        let channel = &envelope.triple().channel;
        // On a channel that folds, patterns that differ in letter case only are one key.
        let folds = self.policy.folds(channel);
        let twice = matches.len() > 1 || folds || matches.iter().any(Receivers::has_special);
        let mut delivery = Delivery::new(now, self.policy.event_kind(channel), twice);
        let mut groups = Groups::default();
        for subscription in matches.iter().flat_map(Receivers::iter) {
            let member = &subscription.member;
            let is_sender = Arc::ptr_eq(member, sender) && !sender.echo;
            if is_sender || envelope.target().is_some_and(|target| target != &*member.source) {
                continue;
            }
            if subscription.group.is_some() {
                groups.add(subscription);
                continue;
            }
            delivery.push(subscription, forms);
        }
        groups.each(|members| {
            // The member whose queue is shortest, then the one longest unserved; the next one where that one is ending.
            members.sort_by_cached_key(|it| (it.member.outbox().depth().messages, it.member.served(), it.id));
            if let Some(chosen) = members.iter().find(|it| delivery.push(it, forms)) {
                chosen.member.serve(self.ids.stamp());
            }
        });
        delivery
    }

    /// The lists of subscriptions that an event reaches.
    pub(super) fn subscribers(&self, triple: &Triple<'_>, whose: Scope<'_>) -> Matches {
        let folded = self.policy.folds(&triple.channel);
        match whose {
            Scope::User(user) => {
                let audiences =
                    [Audience::User(user), Audience::Services, Audience::Observes(user), Audience::WatchAll];
                self.events.matches(&audiences, triple, folded)
            }
            Scope::Shared(_) => self.events.matches(&[Audience::Everyone, Audience::Services], triple, folded),
        }
    }

    /// The lists that an event on a user-scoped channel reaches which is every user's. It asks for each user who is there:
    /// such events are rare, and a key of their own would cost every subscription.
    fn subscribers_of_all(&self, triple: &Triple<'_>) -> Matches {
        let folded = self.policy.folds(&triple.channel);
        let mut matches = self.events.matches(&[Audience::Services, Audience::WatchAll], triple, folded);
        for user in self.presence.users() {
            matches.extend(self.events.matches(&[Audience::User(&user), Audience::Observes(&user)], triple, folded));
        }
        matches
    }
}

/// One event on its way to its receivers.
struct Delivery {
    now: Instant,
    kind: Kind,
    /// Who has it already; kept only where somebody may stand in the lists twice.
    seen: Option<HashSet<u64, foldhash::fast::RandomState>>,
    receivers: usize,
    pressed: Vec<Arc<Outbox>>,
}

impl Delivery {
    fn new(now: Instant, kind: Kind, may_stand_twice: bool) -> Self {
        Self { now, kind, seen: may_stand_twice.then(HashSet::default), receivers: 0, pressed: Vec::new() }
    }

    /// `false`: the receiver is ending.
    fn push(&mut self, subscription: &Subscription, forms: &mut Forms<'_>) -> bool {
        let member = &subscription.member;
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(member.number)) {
            return true;
        }
        let frame = if subscription.sees_user() { forms.attributed() } else { forms.plain() };
        let Ok(pressed) = member.push(self.now, frame, self.kind) else { return false };
        self.receivers += 1;
        if pressed {
            self.pressed.push(Arc::clone(member.outbox()));
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
            self.members.entry((subscription.member.user(), group)).or_default().push(subscription);
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
