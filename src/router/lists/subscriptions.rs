//! The list of subscriptions, of both roles.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Filter, Load, part_text};
use crate::router::index::{Observes, Subscription};
use crate::router::{Router, SessionId, SubscriptionId};

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Its name on the wire.
    pub id: SubscriptionId,
    /// Whose it is.
    pub session: SessionId,
    /// The source of that session.
    pub source: String,
    /// Its user; `None` for a service.
    pub user: Option<String>,
    /// `subscriber` or `handler`.
    pub role: &'static str,
    /// The first part of its pattern; `*` for any.
    pub channel: String,
    /// The second part.
    pub topic: String,
    /// The third part.
    pub subtopic: String,
    /// Its group: one member of it receives an event.
    pub group: Option<String>,
    /// The user whose events it receives besides, `*` for all.
    pub observes: Option<String>,
    /// It handles one request after the other.
    pub ordered: bool,
    /// What it may receive is less than its pattern says.
    pub narrowed: bool,
}

/// A subscription, of which [`SubscriptionItem::row`] makes a row.
pub struct SubscriptionItem(Arc<Subscription>);

impl Router {
    /// The subscriptions that a filter allows, in no order.
    pub fn list_subscriptions(&self, filter: &Filter) -> Vec<SubscriptionItem> {
        let mut found = Vec::new();
        for session in self.sessions_of(filter) {
            let holds = session.holds.lock();
            let of_pattern = holds.subscriptions.iter().filter(|it| filter.allows_pattern(&it.pattern));
            found.extend(of_pattern.map(|it| SubscriptionItem(Arc::clone(it))));
        }
        found
    }
}

impl SubscriptionItem {
    /// Its name on the wire.
    #[must_use]
    pub fn id(&self) -> SubscriptionId {
        self.0.id
    }

    /// When its session subscribed.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.0.since
    }

    /// How busy its session is.
    #[must_use]
    pub fn load(&self) -> Load {
        Load::of(&self.0.session)
    }

    /// What an operator sees of it.
    #[must_use]
    pub fn row(&self) -> SubscriptionRow {
        row(&self.0)
    }
}

fn row(subscription: &Subscription) -> SubscriptionRow {
    let Subscription { session, pattern, .. } = subscription;
    SubscriptionRow {
        id: subscription.id,
        session: session.id,
        source: session.source.to_string(),
        user: session.user().map(str::to_owned),
        role: subscription.role.as_str(),
        channel: part_text(pattern.channel.as_deref()).to_owned(),
        topic: part_text(pattern.topic.as_deref()).to_owned(),
        subtopic: part_text(pattern.subtopic.as_deref()).to_owned(),
        group: subscription.group.as_deref().map(str::to_owned),
        observes: subscription.observes.as_ref().map(|observes| match observes {
            Observes::User(user) => user.to_string(),
            Observes::All => "*".to_owned(),
        }),
        ordered: subscription.ordered.is_some(),
        narrowed: subscription.is_checked(),
    }
}
