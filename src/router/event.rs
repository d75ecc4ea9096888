//! Rule 4: an event goes to every matching subscriber once, however many of its patterns match.

use std::sync::Arc;
use std::time::Instant;

use wire::{Envelope, ErrorCode, Refusal, check_name};

use crate::router::backplane::message::{SentScope, placed};
use crate::router::commit::To;
use crate::router::decide::Facts;
use crate::router::fan_out::Delivered;
use crate::router::forms::Forms;
use crate::router::history::Kept;
use crate::router::index::{Audience, Matches};
use crate::router::observe::Expected;
use crate::router::session::{Role, Session};
use crate::router::{Receipt, Routed, Router, Scope};

/// An event that was published.
pub(super) struct Published {
    pub(super) delivered: Delivered,
    /// A pattern of the sender's own scope names exactly its triple.
    pub(super) exact: bool,
    /// Its place in a log, if its channel has history.
    pub(super) kept: Option<Box<Kept>>,
}

impl Router {
    /// Publishes an event, and keeps it if it is to be retained. On a durable channel it waits for its commit first. While
    /// an adapter has events that wait, its other events wait behind them; an application's connection keeps that order.
    pub(super) fn publish(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        matches: &Matches,
        facts: &Facts<'_>,
    ) -> Result<Routed, Refusal> {
        if self.is_durable(envelope, facts) || sender.role == Role::Adapter && sender.commits.any() {
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
                let mut forms = Forms::new(envelope, &sender.source, scope).by(sender.number);
                let delivered = self.give_to_all(now, sender, matches, &mut forms, facts);
                Published { delivered, exact: matches.exact, kept: None }
            }
        };
        let place = published.kept.as_ref().map(|kept| placed(&kept.position, false, false));
        let nodes = self.forward(now, sender, envelope, scope.into(), place);
        Ok(self.after_publishing(now, sender, envelope, scope, facts, (published, nodes)))
    }

    /// What an event's sender is told, now that it was delivered here and sent to other nodes. `nodes`: to how many.
    pub(super) fn after_publishing(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
        (published, nodes): (Published, Option<usize>),
    ) -> Routed {
        let Published { delivered: Delivered { receivers, deliveries, mut pressed }, exact, kept } = published;
        if nodes.is_some() {
            sender.pressed.take(&mut pressed);
        }
        let gets_receipt = envelope.id().is_some() || sender.is_call();
        let hint = if gets_receipt && !exact && nodes.is_none_or(|nodes| nodes == 0) {
            self.hint(now, sender, envelope, scope, facts, receivers)
        } else {
            None
        };
        Routed { receipt: Some(Receipt { receivers, hint, kept, nodes }), pressed, deliveries, ..Routed::default() }
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
        let matches = self.retained.keep(now, &self.policy, sender, envelope, scope, facts, frame, look_up)?;
        let delivered = self.give_to_all(now, sender, &matches, &mut forms, facts);
        Ok(Published { delivered, exact: matches.exact, kept: None })
    }

    /// Publishes what an adapter received from outside: for `user`, or for every user there is and the services. It is an
    /// event whatever subscribes to its triple: no handler takes it for a request. With a ticket, it is not published yet: its
    /// source may forget it only when the ticket says that it was.
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
        let _steady = self.steady();
        let facts = self.policy.facts(envelope.triple());
        if facts.protected {
            return Err(Refusal::new(ErrorCode::Forbidden, "a protected triple is never an event"));
        }
        if self.is_durable(envelope, &facts) || adapter.commits.any() {
            let ticket = self.commit(now, adapter, envelope, To::Announced(user.map(Box::from)))?;
            return Ok(Routed { ticket: Some(Box::new(ticket)), ..Routed::default() });
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
                let mut forms = Forms::new(envelope, &adapter.source, scope).by(adapter.number);
                (self.give_to_all(now, adapter, &matches, &mut forms, facts), None)
            }
        };
        let Delivered { receivers, deliveries, mut pressed } = delivered;
        let sent = if is_for_all { SentScope::All } else { scope.into() };
        let nodes = self.forward(now, adapter, envelope, sent, None);
        if nodes.is_some() {
            adapter.pressed.take(&mut pressed);
        }
        let receipt = Some(Receipt { receivers, hint: None, kept, nodes });
        let routed = Routed { receipt, pressed, deliveries, ..Routed::default() };
        self.observe(now, adapter, envelope, facts, (Expected::EVENT, Ok(&routed)));
        Ok(routed)
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

    /// The receivers of such a broadcast that are services, or observe all users.
    pub(super) fn watchers(&self, facts: &Facts<'_>) -> Matches {
        self.events.matches(&[Audience::Services, Audience::ObservesAll], &facts.canonical, facts.folded)
    }

    /// Receivers of a broadcast on a user-scoped channel. Looks each present user up: broadcasts are rare, and a key of
    /// their own would cost every subscription.
    pub(super) fn subscribers_of_all(&self, facts: &Facts<'_>) -> Matches {
        let (triple, folded) = (&facts.canonical, facts.folded);
        let mut matches = self.events.matches(&[Audience::Services, Audience::ObservesAll], triple, folded);
        for user in self.presence.users() {
            matches.extend(self.events.matches(&[Audience::User(&user), Audience::Observes(&user)], triple, folded));
        }
        matches
    }
}
