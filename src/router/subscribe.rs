//! Subscribing, unsubscribing, and one's own list.

use std::sync::Arc;
use std::time::Instant;

use crate::router::application::{Member, Standing};
use crate::router::index::{Subscription, Watch};
use crate::router::ordered::Ordered;
use crate::router::outbox::Kind;
use crate::router::policy::Policy;
use crate::router::{Router, SubscriptionId};
use crate::websocket::Frame;
use wire::command::{Role, Subscribe, SubscriptionFilter};
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
    pub role: Role,
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
        member: &Arc<Member>,
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
            ordered: matches!(wanted.role, Role::Handler { ordered: true, .. }).then(Ordered::default),
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
                Role::Handler { .. } => {
                    self.served.insert(&subscription);
                    self.handlers.insert(&self.policy, &subscription);
                }
                Role::Subscriber => {
                    self.events.insert(&self.policy, &subscription);
                    self.retained.replay(&self.policy, &subscription, &mut |frame| push(frame, Kind::Retained));
                }
            }
        });
        Ok(())
    }

    fn check(&self, member: &Member, wanted: &Subscribe) -> Result<(), Refusal> {
        let pattern = &wanted.pattern;
        let handler = matches!(wanted.role, Role::Handler { .. });
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

    fn may_handle_all(&self, member: &Member, pattern: &Pattern) -> bool {
        match member.standing {
            Standing::Adapter | Standing::Service => true,
            Standing::User(_) if self.policy.open => {
                !self.declarations.iter().flat_map(|it| &it.serves).any(|served| served.overlaps_any_case(pattern))
            }
            Standing::User(_) => member.handle.allows_all_of(pattern),
        }
    }

    /// Ends a subscription, by its id.
    ///
    /// # Errors
    /// `NO_SUCH_SUBSCRIPTION`.
    pub fn unsubscribe(&self, now: Instant, member: &Arc<Member>, id: &str) -> Result<(), Refusal> {
        let id: Option<SubscriptionId> = id.parse().ok();
        self.end_subscriptions(now, member, |it| Some(it.id) == id)
    }

    /// Ends every subscription of a session that fits.
    ///
    /// # Errors
    /// `NO_SUCH_SUBSCRIPTION` if none does.
    pub fn unsubscribe_matching(
        &self,
        now: Instant,
        member: &Arc<Member>,
        filter: &SubscriptionFilter,
    ) -> Result<(), Refusal> {
        self.end_subscriptions(now, member, |it| {
            same_pattern(&self.policy, &it.pattern, &filter.pattern)
                && filter.role.is_none_or(|role| it.role.name() == role)
                && filter.group.as_deref().is_none_or(|group| it.group.as_deref() == Some(group))
                && filter.user.as_deref().is_none_or(|user| it.watch == watched(member, user))
        })
    }

    fn end_subscriptions(
        &self,
        now: Instant,
        member: &Arc<Member>,
        mut fits: impl FnMut(&Subscription) -> bool,
    ) -> Result<(), Refusal> {
        let ended: Vec<_> = member.holds.lock().subscriptions.extract_if(.., |it| fits(it)).collect();
        if ended.is_empty() {
            return Err(Refusal::new(
                ErrorCode::NoSuchSubscription,
                "this session has no such subscription; Broker/Subscription/List shows those that it has",
            ));
        }
        for subscription in &ended {
            self.unlist(now, subscription);
        }
        Ok(())
    }

    /// Takes a subscription that has ended out of the index.
    pub(super) fn unlist(&self, now: Instant, subscription: &Arc<Subscription>) {
        match subscription.role {
            Role::Subscriber => self.events.remove(&self.policy, subscription),
            Role::Handler { .. } => {
                self.handlers.remove(&self.policy, subscription);
                self.served.remove(subscription);
                for request in Self::leave_turn(subscription) {
                    self.leave_waiting(now, request, subscription);
                }
            }
        }
    }

    /// A session's own subscriptions, in the order of subscribing.
    pub fn subscriptions(&self, member: &Member) -> Vec<Listed> {
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

/// Whose envelopes the subscription is for, where it names a user.
fn watch(member: &Member, wanted: &Subscribe) -> Result<Option<Watch>, Refusal> {
    let Some(user) = wanted.user.as_deref() else { return Ok(None) };
    if wanted.role != Role::Subscriber {
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            "data.user is for subscribers: an observer hears events, never requests",
        ));
    }
    let watch = watched(member, user);
    match &member.standing {
        Standing::User(_) if watch.is_some() && !member.observe => Err(Refusal::new(
            ErrorCode::Forbidden,
            "data.user names another user; that needs 'observe = true' in [[applications]]",
        )),
        _ => Ok(watch),
    }
}

/// Returns the users that a session observes when it names this one. Its own user needs no observing.
fn watched(member: &Member, user: &str) -> Option<Watch> {
    match &member.standing {
        Standing::User(own) if **own == *user => None,
        _ if user == "*" => Some(Watch::All),
        _ => Some(Watch::User(Box::from(user))),
    }
}

fn is_same(policy: &Policy, held: &Subscription, wanted: &Subscribe, watch: Option<&Watch>) -> bool {
    let same_role = matches!(
        (&held.role, &wanted.role),
        (Role::Subscriber, Role::Subscriber) | (Role::Handler { .. }, Role::Handler { .. })
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
