//! Subscribing, unsubscribing, and one's own list.

use std::sync::Arc;
use std::time::Instant;

use crate::router::index::{Observes, Subscription};
use crate::router::outbox::Kind;
use crate::router::policy::Policy;
use crate::router::request::turn::Ordered;
use crate::router::session::{Role, Session};
use crate::router::{Router, SubscriptionId};
use crate::websocket::Frame;
use wire::command::{self, Subscribe};
use wire::{BROKER, Pattern, notice};
use wire::{ErrorCode, Refusal};

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

impl Router {
    /// Subscribes. The same pattern, role, group and user again: the subscription that is there. `told` makes the reply,
    /// which comes before everything that the subscription brings.
    ///
    /// # Errors
    /// `FORBIDDEN`, `RESERVED_CHANNEL`, `TOO_MANY_SUBSCRIPTIONS`, `INVALID_ENVELOPE`.
    pub fn subscribe(
        &self,
        now: Instant,
        member: &Arc<Session>,
        wanted: &Subscribe,
        told: impl FnOnce(SubscriptionId) -> Option<Frame>,
    ) -> Result<(), Refusal> {
        let watch = watch(member, wanted)?;
        self.check(member, wanted)?;
        let mut holds = member.holds.lock();
        if let Some(same) = holds.subscriptions.iter().find(|it| is_same(&self.policy, it, wanted, watch.as_ref())) {
            if let Some(reply) = told(same.id) {
                // A session that is ending hears nothing more.
                member.push(now, reply, Kind::Kept).ok();
            }
            return Ok(());
        }
        let most = self.policy.limits.subscriptions;
        if holds.subscriptions.len() >= most {
            return Err(Refusal::new(
                ErrorCode::TooManySubscriptions,
                format!("this session holds {most} subscriptions, the limit; unsubscribe, or use a wildcard"),
            ));
        }
        let subscription = Arc::new(Subscription {
            id: self.ids.subscription(),
            member: Arc::clone(member),
            pattern: wanted.pattern.clone(),
            role: wanted.role.clone(),
            group: wanted.group.as_deref().map(Box::from),
            watch,
            ordered: matches!(wanted.role, command::Role::Handler { ordered: true, .. }).then(Ordered::default),
        });
        holds.subscriptions.push(Arc::clone(&subscription));
        drop(holds);
        // While the outbox is held nothing else comes in: what the index brings from now on waits behind the reply, and
        // an event behind its triple's retained value.
        member.outbox().push_all(now, |push| {
            if let Some(reply) = told(subscription.id) {
                push(reply, Kind::Kept);
            }
            match subscription.role {
                command::Role::Handler { .. } => {
                    self.served.insert(&subscription);
                    self.handlers.insert(&self.policy, &subscription);
                }
                command::Role::Subscriber => {
                    self.events.insert(&self.policy, &subscription);
                    self.retained.replay(&self.policy, &subscription, &mut |frame| push(frame, Kind::Retained));
                }
            }
        });
        Ok(())
    }

    fn check(&self, member: &Session, wanted: &Subscribe) -> Result<(), Refusal> {
        let pattern = &wanted.pattern;
        let handler = matches!(wanted.role, command::Role::Handler { .. });
        if pattern.channel.as_deref() == Some(BROKER) {
            let heard = ["Joined", "Left"].iter().any(|it| pattern.matches(&notice::triple("Application", it)));
            if handler || !heard {
                return Err(Refusal::new(
                    ErrorCode::ReservedChannel,
                    "the channel 'Broker' has two events to subscribe to, Application/Joined and Application/Left",
                ));
            }
        }
        if handler && self.policy.is_all_protected(pattern) && !self.may_handle_all(member, pattern) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the pattern is protected: passwords travel on it; the key 'handle' in [[applications]] allows an \
                 application to answer it, and in open mode anybody may, unless an adapter serves it",
            ));
        }
        Ok(())
    }

    fn may_handle_all(&self, member: &Session, pattern: &Pattern) -> bool {
        match member.standing {
            Role::Adapter | Role::Service => true,
            Role::User(_) if self.policy.open => {
                !self.declarations.iter().flat_map(|it| &it.serves).any(|served| served.overlaps_any_case(pattern))
            }
            Role::User(_) => member.handle.allows_all_of(pattern),
        }
    }

    /// Ends a subscription, by its id.
    ///
    /// # Errors
    /// `NO_SUCH_SUBSCRIPTION`.
    pub fn unsubscribe(&self, now: Instant, member: &Arc<Session>, id: &str) -> Result<(), Refusal> {
        let id: Option<SubscriptionId> = id.parse().ok();
        self.end_subscription(now, member, |it| Some(it.id) == id)
    }

    /// Ends a subscription, by what was subscribed to.
    ///
    /// # Errors
    /// `NO_SUCH_SUBSCRIPTION`, `FORBIDDEN`.
    pub fn unsubscribe_same(&self, now: Instant, member: &Arc<Session>, wanted: &Subscribe) -> Result<(), Refusal> {
        let watch = watch(member, wanted)?;
        self.end_subscription(now, member, |it| is_same(&self.policy, it, wanted, watch.as_ref()))
    }

    fn end_subscription(
        &self,
        now: Instant,
        member: &Arc<Session>,
        wanted: impl Fn(&Subscription) -> bool,
    ) -> Result<(), Refusal> {
        let ended = {
            let subscriptions = &mut member.holds.lock().subscriptions;
            subscriptions.iter().position(|it| wanted(it)).map(|place| subscriptions.remove(place))
        };
        match ended {
            Some(subscription) => {
                self.unlist(now, &subscription);
                Ok(())
            }
            None => Err(Refusal::new(
                ErrorCode::NoSuchSubscription,
                "this session holds no such subscription; Broker/Subscription/List tells which it holds",
            )),
        }
    }

    /// Takes a subscription that has ended out of the index.
    pub(super) fn unlist(&self, now: Instant, subscription: &Arc<Subscription>) {
        match subscription.role {
            command::Role::Subscriber => self.events.remove(&self.policy, subscription),
            command::Role::Handler { .. } => {
                self.handlers.remove(&self.policy, subscription);
                self.served.remove(subscription);
                for request in Self::leave_turn(subscription) {
                    self.leave_waiting(now, request, subscription);
                }
            }
        }
    }

    /// A session's own subscriptions, in the order of subscribing.
    pub fn subscriptions(&self, member: &Session) -> Vec<Listed> {
        let holds = member.holds.lock();
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

/// Scope envelopes the subscription is for, where it names a user.
fn watch(member: &Session, wanted: &Subscribe) -> Result<Option<Observes>, Refusal> {
    let Some(user) = wanted.user.as_deref() else { return Ok(None) };
    if wanted.role != command::Role::Subscriber {
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            "data.user is for subscribers: an observer hears events, never requests",
        ));
    }
    match &member.standing {
        Role::User(own) if **own == *user => Ok(None),
        Role::User(_) if !member.observe => Err(Refusal::new(
            ErrorCode::Forbidden,
            "data.user names another user; that needs 'observe = true' in [[applications]]",
        )),
        _ if user == "*" => Ok(Some(Observes::All)),
        _ => Ok(Some(Observes::User(Box::from(user)))),
    }
}

fn is_same(policy: &Policy, held: &Subscription, wanted: &Subscribe, watch: Option<&Observes>) -> bool {
    let same_role = matches!(
        (&held.role, &wanted.role),
        (command::Role::Subscriber, command::Role::Subscriber)
            | (command::Role::Handler { .. }, command::Role::Handler { .. })
    );
    same_role
        && same_pattern(policy, &held.pattern, &wanted.pattern)
        && held.group.as_deref() == wanted.group.as_deref()
        && held.watch.as_ref() == watch
}

/// Whether two patterns are written alike, with the channel's folding.
fn same_pattern(policy: &Policy, held: &Pattern, wanted: &Pattern) -> bool {
    let folds = held.channel.as_deref().is_some_and(|channel| policy.folds(channel));
    held == wanted
        || (folds && held.channel == wanted.channel && held.covers_any_case(wanted) && wanted.covers_any_case(held))
}
