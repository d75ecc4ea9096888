//! How an event enters its log, and is delivered in the order of the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use wire::{Envelope, ErrorCode, Refusal};

use super::known::First;
use super::log::{Address, Entry, Of};
use super::{Locked, LogName, Position, name_of};
use crate::config::LogBounds;
use crate::router::decide::Facts;
use crate::router::event::Published;
use crate::router::fan_out::{Delivered, Delivery};
use crate::router::forms::Forms;
use crate::router::index::Audience;
use crate::router::recipients::{Origin, may_repeat};
use crate::router::session::Session;
use crate::router::{Router, Scope};

/// The place of an event in its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The place.
    pub position: Position,
    /// It was sent before, so it was not delivered again: the place and the receivers are those of the first one.
    pub is_duplicate: bool,
}

/// How an event that is to be retained is kept.
#[derive(Clone, Copy)]
pub(in crate::router) enum Keeping {
    /// By this node.
    Here,
    /// By the bucket of a cluster, which has it with this revision. `None`: it does not have it.
    Revised(Option<u64>),
}

impl Router {
    /// Publishes an event on a channel with history. `None`: since the event was decided, a reload has ended the history of the
    /// channel, or changed its scope.
    pub(in crate::router) fn publish_logged(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
    ) -> Result<Option<Published>, Refusal> {
        let name = LogName::of(&facts.canonical.channel, scope);
        let bounds = || {
            let is_as_decided = self.policy.is_shared(name.channel) == facts.shared;
            self.policy.history(name.channel).filter(|_| is_as_decided)
        };
        let published = self.history.with(&name, |log| match bounds() {
            Some(bounds) => self.publish_into(now, (log, &bounds), sender, envelope, scope, facts).map(Some),
            None => Ok(None),
        });
        self.bound_history(now);
        published
    }

    fn publish_into(
        &self,
        now: Instant,
        (log, bounds): (&mut Locked<'_>, &LogBounds),
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
    ) -> Result<Published, Refusal> {
        let limits = self.policy.limits();
        let once = envelope.id().filter(|_| envelope.once()).map(|id| {
            let (retry, name) = (limits.history.retry, name_of(&log.log.key));
            self.history.unknown_id((now, retry), &name, &sender.source, scope.user(), id)
        });
        let once = match once.transpose() {
            Ok(name) => name,
            Err(First { position, receivers }) => {
                let delivered = Delivered { receivers, deliveries: 0, pressed: Vec::new() };
                let kept = Some(Box::new(Kept { position, is_duplicate: true }));
                return Ok(Published { delivered, exact: true, kept });
            }
        };
        let position = log.state.next();
        let published =
            self.publish_at(now, (log, bounds), sender, envelope, scope, facts, (&position, Keeping::Here))?;
        if let Some(name) = once {
            let first = First { position, receivers: published.delivered.receivers };
            let bounds = (limits.history.retry, limits.history.ids);
            self.history.known.lock().insert(now, name, first, bounds);
        }
        Ok(published)
    }

    /// Puts an event into its log at this position, the next one, and delivers it.
    #[expect(clippy::too_many_arguments, reason = "what is known of one event")]
    pub(in crate::router) fn publish_at(
        &self,
        now: Instant,
        (log, bounds): (&mut Locked<'_>, &LogBounds),
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
        (position, keeping): (&Position, Keeping),
    ) -> Result<Published, Refusal> {
        let mut forms = Forms::new(envelope, &sender.source, scope).at(position);
        // As without history; and what is not kept as the last value does not enter the log either.
        let _order = envelope.retain().then(|| self.retained.order(&facts.canonical));
        let look_up = || self.subscribers(facts, scope);
        let matches = match (envelope.retain(), keeping) {
            (true, Keeping::Here) => {
                let frame = (forms.retained(), Some(Box::new(position.clone())));
                self.retained.keep(now, &self.policy, sender, envelope, scope, facts, frame, look_up)?
            }
            (true, Keeping::Revised(Some(revision))) => {
                self.revise_event(now, sender.author(), (&forms, facts), revision, look_up)
            }
            (true, Keeping::Revised(None)) | (false, _) => look_up(),
        };
        self.append(log, entry(now, &forms, position), bounds);
        let key = Arc::clone(log.log);
        let may_repeat = may_repeat(&matches, facts.folded);
        let mut delivery = Delivery::new(now, None, facts.on_full, may_repeat).in_order_of(&key.key);
        self.give_to_each(Origin::Session(sender), &matches, &mut forms, &mut delivery);
        let delivered = delivery.delivered;
        let kept = Some(Box::new(Kept { position: position.clone(), is_duplicate: false }));
        Ok(Published { delivered, exact: matches.exact, kept })
    }

    /// Announces an adapter's event on a user-scoped channel with history to all: it enters the log of each user who has a
    /// session or a log now; of a durable channel, those for whom it was `committed`. Services and observers of all users
    /// receive it once. It is then of no single log, so it leaves without a position.
    pub(in crate::router) fn announce_to_logs(
        &self,
        now: Instant,
        adapter: &Arc<Session>,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
        committed: Option<&[Arc<str>]>,
    ) -> Delivered {
        let scope = Scope::Shared(None);
        let users = match committed {
            Some(users) => users.to_vec(),
            None => self.users_with_logs(&facts.canonical.channel).into_iter().collect(),
        };
        let mut delivery = Delivery::new(now, None, facts.on_full, true);
        let mut give = |audiences: &[Audience<'_>], forms: Forms<'_>| {
            let matches = self.events.matches(audiences, &facts.canonical, facts.folded);
            self.give_to_each(Origin::Session(adapter), &matches, &mut { forms }, &mut delivery);
        };
        for user in &users {
            let name = LogName { channel: &facts.canonical.channel, owner: Some(user) };
            self.history.with(&name, |log| {
                let forms = Forms::new(envelope, &adapter.source, scope);
                let audiences = [Audience::User(user), Audience::Observes(user)];
                let bounds = self.policy.history(name.channel).filter(|_| !self.policy.is_shared(name.channel));
                let Some(bounds) = bounds else { return give(&audiences, forms) };
                let position = log.state.next();
                let forms = forms.at(&position);
                let mut entry = entry(now, &forms, &position);
                entry.address.of = Of::Everyone;
                self.append(log, entry, &bounds);
                give(&audiences, forms);
            });
        }
        give(&[Audience::Services, Audience::ObservesAll], Forms::new(envelope, &adapter.source, scope));
        self.bound_history(now);
        delivery.delivered
    }

    /// The same, with the users who have a session on another node of the cluster.
    pub(in crate::router) fn users_of_cluster(&self, channel: &str) -> BTreeSet<Arc<str>> {
        let mut users = self.users_with_logs(channel);
        let mut elsewhere = Vec::new();
        self.applications_elsewhere(|user| user.is_some(), &mut elsewhere);
        users.extend(elsewhere.into_iter().filter_map(|it| it.user).map(Arc::from));
        users
    }

    /// The users who have a session, or a log in this channel.
    pub(in crate::router) fn users_with_logs(&self, channel: &str) -> BTreeSet<Arc<str>> {
        let mut users = self.presence.users();
        users.extend(self.history.users(channel));
        users
    }

    /// Puts an event at the end of a log. The only way into a log.
    pub(super) fn append(&self, log: &mut Locked<'_>, entry: Entry, bounds: &LogBounds) {
        self.metrics.history_appended.count(());
        if log.append(entry, bounds) {
            // There may be something to look at earlier than before.
            self.requests.earlier().notify_one();
        }
    }
}

/// An event as its log keeps it.
pub(super) fn entry(now: Instant, forms: &Forms<'_>, position: &Position) -> Entry {
    Entry {
        offset: position.offset,
        at: now,
        address: Address {
            triple: forms.envelope.triple().to_string().into(),
            target: forms.envelope.target().map(Box::from),
            of: match forms.scope {
                Scope::User(_) => Of::Owner,
                Scope::Shared(user) => Of::Sender(user.map(Box::from)),
            },
        },
        frame: forms.replayed(),
    }
}

/// Checks where `once` is: on an event with `id`, on a channel with history.
///
/// # Errors
/// `INVALID_ENVELOPE`.
pub(in crate::router) fn check_once(envelope: &Envelope<'_>, facts: &Facts<'_>) -> Result<(), Refusal> {
    if !envelope.once() {
        return Ok(());
    }
    if envelope.in_reply_to().is_some() {
        return Err(once_in_a_reply());
    }
    let words = if !facts.history {
        "the field 'once' is for events on a channel with history, which this channel does not have (the key 'history' of \
         its table in [channels])"
    } else if envelope.id().is_none() {
        "the field 'once' needs an 'id', by which the broker knows the event again"
    } else {
        return Ok(());
    };
    Err(Refusal::new(ErrorCode::InvalidEnvelope, words))
}

/// The refusal of `once` in a reply.
pub(in crate::router) fn once_in_a_reply() -> Refusal {
    Refusal::new(ErrorCode::InvalidEnvelope, "the field 'once' is for events, and this is a reply")
}
