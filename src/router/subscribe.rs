//! Subscribing, and one's own list of subscriptions. `unsubscribe` is how they end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::auth::Permissions;
use crate::router::access::receive::Interest;
use crate::router::disk::unreadable;
use crate::router::history::{
    Ahead, Found, Locked, LogName, LookNext, LookTicket, Position, Recovered, Recovery, no_log,
};
use crate::router::index::{Listing, Observes, Subscription};
use crate::router::policy::Policy;
use crate::router::replay::{Cursor, Replay};
use crate::router::request::lane::Ordered;
use crate::router::session::{Role, Session};
use crate::router::{Router, SubscriptionId, access};
use crate::websocket::Frame;
use wire::Pattern;
use wire::command::{self, Retained, Subscribe};
use wire::{ErrorCode, Refusal};

/// The groups of a session with one pattern. Without a bound, one session could multiply what an event costs others.
const GROUPS_MAX: usize = 16;

/// How often a subscription looks at its log, because memory has lost again what followed.
const LOOKS_MAX: usize = 3;

/// One of a session's own subscriptions: a row of `Subscription/List`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: SubscriptionId,
    /// As it was written.
    pub pattern: Pattern,
    /// What it is for.
    pub role: command::Role,
    /// The group that shares the messages.
    pub group: Option<String>,
}

/// A subscription that a session made, or had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Its id.
    pub id: SubscriptionId,
    /// Permissions allow only a part of its pattern.
    pub is_narrowed: bool,
    /// Where its log is, if it has one.
    pub position: Option<Position>,
    /// What became of `data.recover`.
    pub recovered: Option<Recovered>,
}

/// The log of a subscription, whose lock is held, and what was counted of it before.
type OwnLog<'a, 'l> = Option<(&'a LogName<'a>, &'a mut Locked<'l>, Ahead)>;

impl Router {
    /// Subscribes, as [`Router::subscribe_when_read`], to what needs nothing from the disk.
    ///
    /// # Errors
    /// Those of [`Router::subscribe_when_read`]; `STORAGE_UNAVAILABLE` if it needs something from the disk.
    pub fn subscribe(
        &self,
        now: Instant,
        session: &Arc<Session>,
        wanted: &Subscribe,
        told: impl FnOnce(Subscribed) -> Option<Frame>,
    ) -> Result<(), Refusal> {
        match self.subscribe_when_read(now, session, wanted, None, told)? {
            None => Ok(()),
            Some(_) => Err(unreadable()),
        }
    }

    /// Subscribes. The same pattern, role, group and user again: the subscription that is there. `told` makes the reply,
    /// which comes before everything that the subscription brings.
    ///
    /// With a ticket, nothing was done, because events of its log have to be read from the disk, or retained values from the
    /// storage of a cluster: it is called again with what was `found`.
    ///
    /// # Errors
    /// `FORBIDDEN`, `RESERVED_CHANNEL`, `TOO_MANY_SUBSCRIPTIONS`; `INVALID_ENVELOPE` for `recover` without a log;
    /// `NOT_REGISTERED` for a session that has ended; `STORAGE_UNAVAILABLE` if the disk cannot be read.
    pub fn subscribe_when_read(
        &self,
        now: Instant,
        session: &Arc<Session>,
        wanted: &Subscribe,
        mut found: Option<Found>,
        told: impl FnOnce(Subscribed) -> Option<Frame>,
    ) -> Result<Option<LookTicket>, Refusal> {
        let observes = access::observes(session, wanted)?;
        access::check_pattern(wanted)?;
        let observes = observes.as_ref();
        if found.take_if(|found| found.is_of_values()).is_none()
            && found.is_none()
            && let Some(ticket) = self.wait_for_values(now, session, wanted)
        {
            return Ok(Some(ticket));
        }
        let Ok(name) = self.log_of(session, wanted, observes) else {
            return self.subscribe_with(now, session, (wanted, observes), None, told).map(|()| None);
        };
        if wanted.recover.is_some() {
            self.check_interest(&interest(session, &session.permissions(), wanted, observes))?;
            self.check_recover(session, (wanted, observes), true)?;
        }
        let mut told = Some(told);
        for _ in 0..LOOKS_MAX {
            // Until the subscription is made, this node follows its log.
            let (ahead, _following) = match self.look_ahead(now, &name, (session, wanted, observes), found.take())? {
                LookNext::Subscribe(ahead, following) => (ahead, following),
                LookNext::Wait(ticket) => return Ok(Some(ticket)),
            };
            // Held until the subscription is in the index, so that it receives each event once, replayed or live.
            let subscribed = self.history.with(&name, |log| {
                if self.has_to_look(now, (&name, log), wanted.recover.as_ref(), &ahead) || self.has_lost_place(log) {
                    return None;
                }
                let is_its_log = self.log_of(session, wanted, observes).as_ref() == Ok(&name);
                let own = is_its_log.then_some((&name, &mut *log, ahead));
                let told = told.take()?;
                let subscribed = self.subscribe_with(now, session, (wanted, observes), own, told);
                self.has_subscribed(log);
                Some(subscribed)
            });
            if let Some(subscribed) = subscribed {
                return subscribed.map(|()| None);
            }
        }
        Err(unreadable())
    }

    fn subscribe_with(
        &self,
        now: Instant,
        session: &Arc<Session>,
        (wanted, observes): (&Subscribe, Option<&Observes>),
        log: OwnLog<'_, '_>,
        told: impl FnOnce(Subscribed) -> Option<Frame>,
    ) -> Result<(), Refusal> {
        // Held until the subscription is in the index, so that a task that ends it, or changes the permissions, finds it
        // there.
        let mut holds = session.holds.lock();
        if holds.is_closed() {
            return Err(Refusal::new(ErrorCode::NotRegistered, "the session has ended; register again"));
        }
        let permissions = session.permissions();
        let interest = interest(session, &permissions, wanted, observes);
        self.check_interest(&interest)?;
        self.check_recover(session, (wanted, observes), log.is_some())?;
        let is_narrowed = self.is_narrowed(&interest);
        let is_checked = self.is_checked(&interest);
        let reply = |subscription: &Subscription, recovery: Option<&Recovery>| {
            let position = recovery.map(|it| it.position.clone());
            let recovered = recovery.and_then(|it| it.recovered);
            told(Subscribed { id: subscription.id, is_narrowed, position, recovered })
        };
        if let Some(same) = holds.subscriptions.iter().find(|it| is_same(&self.policy, it, wanted, observes)) {
            let recovery = log.map(|log| self.recovery(now, log, same, wanted.recover.as_ref()));
            let reply = reply(same, recovery.as_ref());
            self.subscribe_again(now, same, wanted, reply, recovery);
            return Ok(());
        }
        // Adapters have as many as the configuration names.
        if session.role != Role::Adapter {
            self.check_room(&holds.subscriptions, wanted)?;
        }
        let serial = self.ids.serial();
        let subscription = Arc::new(Subscription {
            id: self.ids.subscription(serial),
            serial,
            since: self.date(now),
            session: Arc::clone(session),
            pattern: wanted.pattern.clone(),
            role: wanted.role.clone(),
            group: wanted.group.as_deref().map(Box::from),
            checked: AtomicBool::new(is_checked),
            observes: observes.cloned(),
            ordered: Ordered::of(&wanted.pattern, &wanted.role, self.policy.folds_channel_of(&wanted.pattern)),
            listing: Listing::default(),
        });
        holds.subscriptions.push(Arc::clone(&subscription));
        if subscription.ordered.is_some() {
            // Before a request can find it.
            session.turns.join(&subscription);
        }
        // The reply comes before everything that the subscription brings.
        let recovery = log.map(|log| self.recovery(now, log, &subscription, wanted.recover.as_ref()));
        let reply = reply(&subscription, recovery.as_ref());
        match subscription.role {
            command::Role::Handler { .. } => {
                session.outbox().push_replays(now, reply, None);
                self.handlers.insert(&self.policy, &subscription);
            }
            command::Role::Subscriber => self.retained.at_rest(|last_stamp| {
                let last_stamp = (wanted.retained != Retained::Never).then_some(last_stamp);
                session.outbox().push_replays(now, reply, self.replays(&subscription, last_stamp, recovery));
                self.events.insert(&self.policy, &subscription);
            }),
        }
        self.hints.insert(&subscription);
        self.announce_subscription(&subscription);
        drop(holds);
        self.note_subscribed(now, &subscription);
        if let command::Role::Handler { .. } = subscription.role {
            self.note_protected_handler(now, session, &subscription.pattern);
        }
        Ok(())
    }

    /// Replies that a subscription exists. Its retained values and events of its log are sent again if that is wanted.
    fn subscribe_again(
        &self,
        now: Instant,
        same: &Arc<Subscription>,
        wanted: &Subscribe,
        reply: Option<Frame>,
        recovery: Option<Recovery>,
    ) {
        let again = wanted.retained == Retained::Again && same.role == command::Role::Subscriber;
        let last_stamp = again.then(|| self.retained.at_rest(|last_stamp| last_stamp));
        same.session.outbox().push_replays(now, reply, self.replays(same, last_stamp, recovery));
    }

    /// What a subscription receives before live events: retained values with stamps up to this one, then events of its log.
    fn replays(
        &self,
        subscription: &Arc<Subscription>,
        last_stamp: Option<u64>,
        recovery: Option<Recovery>,
    ) -> impl Iterator<Item = Box<Replay>> + use<> {
        let (events, stretch) = recovery.map_or((None, None), |it| (it.replay, it.stretch));
        let values = last_stamp.and_then(|last_stamp| self.retained.replay(subscription, last_stamp, stretch));
        let cursors = values.map(Cursor::Retained).into_iter().chain(events.map(Cursor::History));
        cursors.map(|cursor| Box::new(Replay(cursor)))
    }

    /// Checks `recover`.
    ///
    /// # Errors
    /// `INVALID_ENVELOPE`.
    fn check_recover(
        &self,
        session: &Session,
        (wanted, observes): (&Subscribe, Option<&Observes>),
        has_log: bool,
    ) -> Result<(), Refusal> {
        if wanted.recover.is_none() {
            return Ok(());
        }
        match self.log_of(session, wanted, observes) {
            Err(why) => Err(no_log(why)),
            Ok(_) if wanted.group.is_some() => {
                Err(no_log("the members of a group share its messages, so nothing is replayed to one of them"))
            }
            // A reload has just changed that.
            Ok(_) if !has_log => Err(no_log("the channel had no history a moment ago; try again")),
            Ok(_) => Ok(()),
        }
    }

    /// Whether a session may have one subscription more.
    ///
    /// # Errors
    /// `TOO_MANY_SUBSCRIPTIONS`.
    fn check_room(&self, held: &[Arc<Subscription>], wanted: &Subscribe) -> Result<(), Refusal> {
        let most = self.policy.limits().subscriptions;
        if held.len() >= most {
            return Err(Refusal::new(
                ErrorCode::TooManySubscriptions,
                format!("this session has {most} subscriptions, the limit; unsubscribe, or use a wildcard"),
            ));
        }
        let groups =
            || held.iter().filter(|it| it.group.is_some() && same_pattern(&self.policy, &it.pattern, &wanted.pattern));
        if wanted.group.is_some() && groups().count() >= GROUPS_MAX {
            return Err(Refusal::new(
                ErrorCode::TooManySubscriptions,
                format!("this session is in {GROUPS_MAX} groups with this pattern, the limit; leave one of them"),
            ));
        }
        Ok(())
    }

    /// A session's own subscriptions, in the order of subscribing.
    pub fn subscriptions(&self, session: &Session) -> Vec<Listed> {
        let holds = session.holds.lock();
        holds
            .subscriptions
            .iter()
            .map(|it| Listed {
                id: it.id,
                pattern: it.pattern.clone(),
                role: it.role.clone(),
                group: it.group.as_deref().map(str::to_owned),
            })
            .collect()
    }
}

/// What a subscription would bring a session with these permissions.
fn interest<'a>(
    session: &'a Session,
    permissions: &'a Permissions,
    wanted: &'a Subscribe,
    observes: Option<&'a Observes>,
) -> Interest<'a> {
    let is_handler = matches!(wanted.role, command::Role::Handler { .. });
    Interest { role: &session.role, permissions, pattern: &wanted.pattern, is_handler, observes }
}

fn is_same(policy: &Policy, held: &Subscription, wanted: &Subscribe, observes: Option<&Observes>) -> bool {
    let same_role = matches!(
        (&held.role, &wanted.role),
        (command::Role::Subscriber, command::Role::Subscriber)
            | (command::Role::Handler { .. }, command::Role::Handler { .. })
    );
    same_role
        && same_pattern(policy, &held.pattern, &wanted.pattern)
        && held.group.as_deref() == wanted.group.as_deref()
        && held.observes.as_ref() == observes
}

/// Whether two patterns are written alike, with the channel's folding.
pub(super) fn same_pattern(policy: &Policy, held: &Pattern, wanted: &Pattern) -> bool {
    let folds = policy.folds_channel_of(held);
    held == wanted
        || (folds && held.channel == wanted.channel && held.covers_any_case(wanted) && wanted.covers_any_case(held))
}
