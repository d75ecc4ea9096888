//! Rule 4: an event goes to every matching subscriber once, however many of its patterns match.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use wire::{Envelope, ErrorCode, Field, Refusal, Splice, check_name};

use crate::router::commit::To;
use crate::router::decide::Facts;
use crate::router::deliver::Traced;
use crate::router::history::{Kept, Position};
use crate::router::index::receivers::Receivers;
use crate::router::index::{Audience, Matches, Subscription};
use crate::router::outbox::{Kind, OnFull, Pressure, PushError};
use crate::router::session::Session;
use crate::router::{Receipt, Routed, Router, Scope};
use crate::websocket::Frame;

/// An event's two forms, without `user` and with it. Each is spliced once, when the first receiver needs it.
pub(super) struct Forms<'e> {
    pub(super) envelope: &'e Envelope<'e>,
    source: &'e str,
    pub(super) scope: Scope<'e>,
    /// Its place in a log, if its channel has history.
    position: Option<&'e Position>,
    plain: Option<Frame>,
    attributed: Option<Frame>,
}

impl<'e> Forms<'e> {
    pub(super) fn new(envelope: &'e Envelope<'e>, source: &'e str, scope: Scope<'e>) -> Self {
        Self { envelope, source, scope, position: None, plain: None, attributed: None }
    }

    /// The forms of an event that is in a log.
    pub(super) fn at(self, position: &'e Position) -> Self {
        Self { position: Some(position), ..self }
    }

    fn splice(&self) -> Splice<'_> {
        let splice = Splice::new(self.envelope).cut(Field::User);
        let splice = if self.envelope.source().is_none() { splice.string("source", self.source) } else { splice };
        match self.position {
            None => splice,
            Some(Position { offset, epoch }) => splice.number("offset", *offset).string("epoch", epoch),
        }
    }

    /// The form for a receiver. On a shared channel everyone sees the user, elsewhere services and observers do.
    #[inline]
    fn for_receiver(&mut self, subscription: &Subscription) -> Frame {
        let user = match self.scope {
            Scope::User(user) if subscription.sees_user() => Some(user),
            Scope::User(_) | Scope::Shared(None) => None,
            Scope::Shared(user) => user,
        };
        let form = if user.is_some() { &self.attributed } else { &self.plain };
        match form {
            Some(frame) => frame.clone(),
            None => self.make(user),
        }
    }

    /// Makes the form without `user`, or the one with it.
    #[cold]
    fn make(&mut self, user: Option<&str>) -> Frame {
        let splice = self.splice();
        let (splice, is_plain) = match user {
            None => (splice, true),
            Some(user) => (splice.string("user", user), false),
        };
        let frame = Frame::from(splice);
        let form = if is_plain { &mut self.plain } else { &mut self.attributed };
        form.insert(frame).clone()
    }

    /// The text of what is kept, without mark and place.
    pub(super) fn stored(&self) -> String {
        Frame::from(
            self.with_sender(Self { position: None, ..Self::new(self.envelope, self.source, self.scope) }.splice()),
        )
        .text()
        .to_owned()
    }

    /// The form that is kept as a retained value.
    pub(super) fn retained(&self) -> Frame {
        self.kept("retained")
    }

    /// The form that is kept in a log.
    pub(super) fn replayed(&self) -> Frame {
        self.kept("replayed")
    }

    /// The form that is kept, with a mark. On a user-scoped channel `user` is spliced in when it is sent again.
    fn kept(&self, mark: &'static str) -> Frame {
        self.with_sender(self.splice()).flag(mark).into()
    }

    /// On a shared channel, the user belongs to what is kept.
    fn with_sender<'s>(&'s self, splice: Splice<'s>) -> Splice<'s> {
        match self.scope {
            Scope::Shared(Some(user)) => splice.string("user", user),
            Scope::User(_) | Scope::Shared(None) => splice,
        }
    }
}

impl Subscription {
    /// Whether its session sees the user of an event on a user-scoped channel: services, and observers of others.
    pub(super) fn sees_user(&self) -> bool {
        self.observes.is_some() || self.session.user().is_none()
    }
}

impl Router {
    /// Publishes an event, and keeps it if it is to be retained. On a durable channel it waits for its commit first.
    pub(super) fn publish(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        matches: &Matches,
        facts: &Facts<'_>,
    ) -> Result<Routed, Refusal> {
        if self.is_durable(envelope, facts) {
            let ticket = self.commit(now, sender, envelope, To::Rules)?;
            return Ok(Routed { ticket: Some(Box::new(ticket)), ..Routed::default() });
        }
        self.publish_now(now, sender, envelope, scope, matches, facts)
    }

    /// Publishes an event that need not be committed, or was.
    pub(super) fn publish_now(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        matches: &Matches,
        facts: &Facts<'_>,
    ) -> Result<Routed, Refusal> {
        let logged = if facts.history { self.publish_logged(now, sender, envelope, scope, facts)? } else { None };
        let published = match logged {
            Some(published) => published,
            None if envelope.retain() => self.publish_retained(now, sender, envelope, scope, facts)?,
            None => {
                let mut forms = Forms::new(envelope, &sender.source, scope);
                let delivered = self.give_to_all(now, sender, matches, &mut forms, facts);
                Published { delivered, exact: matches.exact, kept: None }
            }
        };
        let Published { delivered: Delivered { receivers, pressed }, exact, kept } = published;
        let hint = match envelope.id() {
            Some(_) if !exact => self.hint(now, sender, envelope, scope, receivers),
            _ => None,
        };
        Ok(Routed { receipt: Some(Receipt { receivers, hint, kept }), pressed, ..Routed::default() })
    }

    /// Publishes an event on a channel without history, and keeps it as the last value.
    #[cold]
    fn publish_retained(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
    ) -> Result<Published, Refusal> {
        let mut forms = Forms::new(envelope, &sender.source, scope);
        // Held over the pushes: the value that is kept at last is the one that is delivered last.
        let _order = self.retained.order(&facts.canonical);
        let (frame, look_up) = ((forms.retained(), None), || self.subscribers(facts, scope));
        let matches = self.retained.keep(&self.policy, sender, envelope, scope, facts, frame, look_up)?;
        let delivered = self.give_to_all(now, sender, &matches, &mut forms, facts);
        Ok(Published { delivered, exact: matches.exact, kept: None })
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
        if self.is_durable(envelope, &facts) {
            // Its outcome is not waited for. A refusal is logged.
            self.commit(now, adapter, envelope, To::Announced(user.map(Box::from)))?;
            return Ok(Routed::default());
        }
        self.announced(now, adapter, envelope, user, &facts, None)
    }

    /// Publishes what an adapter announces, and need not be committed or was. `committed`: the users in whose logs it is.
    pub(super) fn announced(
        &self,
        now: Instant,
        adapter: &Arc<Session>,
        envelope: &Envelope<'_>,
        user: Option<&str>,
        facts: &Facts<'_>,
        committed: Option<&[Arc<str>]>,
    ) -> Result<Routed, Refusal> {
        let is_for_all = user.is_none() && !facts.shared;
        let scope = match user {
            Some(user) if !facts.shared => Scope::User(user),
            user => Scope::Shared(user),
        };
        let logged = match facts.history && !is_for_all {
            true => self.publish_logged(now, adapter, envelope, scope, facts)?,
            false => None,
        };
        let (delivered, kept) = match logged {
            Some(Published { delivered, kept, .. }) => (delivered, kept),
            None if facts.history && is_for_all => {
                (self.announce_to_logs(now, adapter, envelope, facts, committed), None)
            }
            None => {
                let matches = if is_for_all { self.subscribers_of_all(facts) } else { self.subscribers(facts, scope) };
                let mut forms = Forms::new(envelope, &adapter.source, scope);
                (self.give_to_all(now, adapter, &matches, &mut forms, facts), None)
            }
        };
        let Delivered { receivers, pressed } = delivered;
        let routed = Routed { receipt: Some(Receipt { receivers, hint: None, kept }), pressed, ..Routed::default() };
        if tracing::enabled!(tracing::Level::TRACE) {
            Traced::EVENT.log(adapter, envelope, Ok(&routed));
        }
        Ok(routed)
    }

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

    /// The lists of subscriptions that an event reaches.
    pub(super) fn subscribers(&self, facts: &Facts<'_>, scope: Scope<'_>) -> Matches {
        let (triple, folded) = (&facts.canonical, facts.folded);
        match scope {
            Scope::User(user) => {
                let audiences =
                    [Audience::User(user), Audience::Services, Audience::Observes(user), Audience::ObservesAll];
                self.events.matches(&audiences, triple, folded)
            }
            Scope::Shared(None) => self.events.matches(&[Audience::Everyone, Audience::Services], triple, folded),
            Scope::Shared(Some(user)) => {
                let audiences = [Audience::Everyone, Audience::Services, Audience::Observes(user)];
                self.events.matches(&audiences, triple, folded)
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

/// An event that was published.
pub(super) struct Published {
    pub(super) delivered: Delivered,
    /// A pattern of the sender's own scope names exactly its triple.
    pub(super) exact: bool,
    /// Its place in a log, if its channel has history.
    pub(super) kept: Option<Box<Kept>>,
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
