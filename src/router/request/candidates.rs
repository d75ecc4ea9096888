//! Who may answer: the candidates for a request, and which of them is chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::router::decide::Facts;
use crate::router::ids::Serial;
use crate::router::index::receivers::Receivers;
use crate::router::index::{Audience, Matches, Subscription};
use crate::router::resume::transit::Transit;
use crate::router::session::{Role, Session};
use crate::router::{Router, Scope, SubscriptionId};
use wire::Envelope;

/// The handlers that match a request and may have it.
#[derive(Default)]
pub(in crate::router) struct Candidates {
    /// With the rank of each: lower ones are asked first.
    handlers: Vec<(u8, Arc<Subscription>)>,
    /// The sender handles the triple itself, so what it sends on it is an event or a reply.
    pub(in crate::router) sender_handles: bool,
}

impl Candidates {
    pub(in crate::router) fn len(&self) -> usize {
        self.handlers.len()
    }

    pub(in crate::router) fn is_empty(&self) -> bool {
        self.handlers.is_empty()
    }

    /// Those that have a connection.
    pub(in crate::router) fn present(mut self) -> Self {
        self.handlers.retain(|(_, handler)| !handler.session.is_away());
        self
    }

    /// Whether one of them is on another node.
    pub(in crate::router) fn any_elsewhere(&self) -> bool {
        self.handlers.iter().any(|(_, handler)| handler.session.remote().is_some())
    }

    /// All but these.
    pub(in crate::router) fn without(mut self, subscriptions: &[SubscriptionId]) -> Self {
        self.handlers.retain(|(_, handler)| !subscriptions.contains(&handler.id));
        self
    }

    /// Whether one of them answers.
    pub(in crate::router) fn answer(&self) -> bool {
        self.handlers.iter().any(|(_, handler)| !handler.takes_commands())
    }

    /// Best first.
    pub(in crate::router) fn best_first(mut self) -> impl Iterator<Item = Arc<Subscription>> {
        self.handlers.sort_by_cached_key(|(rank, handler)| Preference::of(*rank, handler));
        self.handlers.into_iter().map(|(_, handler)| handler)
    }

    /// Best first, with what decides.
    pub(in crate::router) fn ranked(&self) -> Vec<(Preference, Arc<Subscription>)> {
        let preferred =
            |(rank, handler): &(u8, Arc<Subscription>)| (Preference::of(*rank, handler), Arc::clone(handler));
        let mut ranked: Vec<_> = self.handlers.iter().map(preferred).collect();
        ranked.sort_by_key(|(preference, _)| *preference);
        ranked
    }

    /// Each session once, and one session of each group, in the order of subscribing.
    pub(in crate::router) fn everyone(self) -> Vec<Arc<Subscription>> {
        let mut sessions = BTreeMap::new();
        let mut groups = BTreeSet::new();
        for handler in self.best_first() {
            let taken = match &handler.group {
                None => sessions.contains_key(&handler.session.number),
                Some(group) => !groups.insert((handler.session.user().map(str::to_owned), group.clone())),
            };
            if !taken {
                sessions.entry(handler.session.number).or_insert(handler);
            }
        }
        let mut everyone: Vec<_> = sessions.into_values().collect();
        everyone.sort_by_key(|handler| handler.serial);
        everyone
    }
}

/// Whether an adapter serves a protected triple that these handlers match.
pub(in crate::router) fn served_inside(facts: &Facts<'_>, matches: &Matches) -> bool {
    let mut handlers = matches.iter().flat_map(Receivers::iter);
    facts.protected && handlers.any(|handler| handler.session.role == Role::Adapter)
}

/// What decides between handlers; the least is asked first. Handlers without a connection come last of all, before them
/// doubtful ones (asleep, or silent when they were last asked). Among the others the rank decides, then the number of open
/// requests, then the time since the last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::router) struct Preference {
    pub(in crate::router) is_away: bool,
    pub(in crate::router) is_doubtful: bool,
    pub(in crate::router) rank: u8,
    pub(in crate::router) busy: usize,
    served: u64,
    serial: Serial,
}

impl Preference {
    fn of(rank: u8, handler: &Subscription) -> Self {
        let session = &handler.session;
        Self {
            is_away: session.is_away(),
            is_doubtful: session.is_doubtful(),
            rank,
            busy: session.load(),
            served: session.served(),
            serial: handler.serial,
        }
    }
}

impl Router {
    /// The lists of handlers that a request reaches.
    pub(in crate::router) fn handlers_of(&self, facts: &Facts<'_>, scope: Scope<'_>) -> Matches {
        let applications = match scope {
            Scope::User(user) => Audience::User(user),
            Scope::Shared(_) => Audience::Everyone,
        };
        let audiences = [applications, Audience::Adapters, Audience::Services];
        self.handlers.matches(&audiences, &facts.canonical, facts.folded)
    }

    /// The handlers that match an envelope and may have it. The sender is never one of them: a handler that sends a
    /// request with `timeout` on its own triple wants another handler's answer.
    pub(in crate::router) fn candidates(
        &self,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
    ) -> Candidates {
        let matches = self.handlers_of(facts, scope);
        let mut candidates = Candidates::default();
        if matches.is_empty() {
            return candidates;
        }
        let all = || matches.iter().flat_map(Receivers::iter);
        let served_inside = served_inside(facts, &matches);
        for handler in all() {
            let session = &handler.session;
            if envelope.target().is_some_and(|target| target != &*session.source) {
                continue;
            }
            // Its new node is asked instead.
            if session.transit().is_some_and(Transit::is_past) {
                continue;
            }
            let own = scope.user() == session.user();
            let rank = match session.role {
                Role::User(_) if own => 0,
                Role::Adapter => 2,
                Role::Service => 4,
                Role::User(_) => 6,
            };
            // Behind the same kind of handlers of this node.
            let rank = rank + u8::from(session.remote().is_some());
            if !handler.is_for(scope) || !self.may_handle(session, envelope.triple(), scope, facts, served_inside) {
                continue;
            }
            if Arc::ptr_eq(session, sender) {
                candidates.sender_handles = true;
            } else {
                candidates.handlers.push((rank, Arc::clone(handler)));
            }
        }
        candidates
    }
}
