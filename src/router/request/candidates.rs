//! Who may answer: the candidates for a request, and which of them is chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::router::index::receivers::Receivers;
use crate::router::index::{Audience, Subscription};
use crate::router::session::{Role, Session};
use crate::router::{Router, Scope};
use wire::Envelope;

/// The handlers that match a request and may have it.
#[derive(Default)]
pub(in crate::router) struct Candidates {
    /// With the rank of each: lower ones are asked first.
    handlers: Vec<(u8, Arc<Subscription>)>,
    /// The sender handles the triple itself: what it sends on it is an event or a reply.
    pub(in crate::router) sender_handles: bool,
}

impl Candidates {
    /// Just this one.
    pub(in crate::router) fn only(handler: Arc<Subscription>) -> Self {
        Self { handlers: vec![(0, handler)], sender_handles: false }
    }

    /// Whether one of them is in the process.
    pub(in crate::router) fn has_adapter(&self) -> bool {
        self.handlers.iter().any(|(_, handler)| handler.member.standing == Role::Adapter)
    }

    pub(in crate::router) fn len(&self) -> usize {
        self.handlers.len()
    }

    pub(in crate::router) fn is_empty(&self) -> bool {
        self.handlers.is_empty()
    }

    /// Best first: who is doubtful (asleep, silent when last asked) comes last of all; then by rank, the least busy, the
    /// one longest unserved.
    pub(in crate::router) fn best_first(mut self) -> impl Iterator<Item = Arc<Subscription>> {
        self.handlers.sort_by_cached_key(|(rank, handler)| {
            let member = &handler.member;
            (member.is_doubtful(), *rank, member.busy(), member.served(), handler.id)
        });
        self.handlers.into_iter().map(|(_, handler)| handler)
    }

    /// Every session once, and one member of each group, in the order of subscribing.
    pub(in crate::router) fn everyone(self) -> Vec<Arc<Subscription>> {
        let mut sessions = BTreeMap::new();
        let mut groups = BTreeSet::new();
        for handler in self.best_first() {
            let taken = match &handler.group {
                None => sessions.contains_key(&handler.member.number),
                Some(group) => !groups.insert((handler.member.user().map(str::to_owned), group.clone())),
            };
            if !taken {
                sessions.entry(handler.member.number).or_insert(handler);
            }
        }
        let mut everyone: Vec<_> = sessions.into_values().collect();
        everyone.sort_by_key(|handler| handler.id);
        everyone
    }
}

impl Router {
    /// The handlers that match an envelope and may have it. The sender is never one of them: who handles a triple and
    /// asks on it by `timeout` wants another's answer.
    pub(in crate::router) fn candidates(
        &self,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        whose: Scope<'_>,
    ) -> Candidates {
        let triple = self.policy.canonical(envelope.triple());
        let folded = self.policy.folds(&triple.channel);
        let matches = match whose {
            Scope::User(user) => {
                self.handlers.matches(&[Audience::User(user), Audience::Adapters, Audience::Services], &triple, folded)
            }
            Scope::Shared(_) => {
                self.handlers.matches(&[Audience::Everyone, Audience::Adapters, Audience::Services], &triple, folded)
            }
        };
        let mut candidates = Candidates::default();
        if matches.is_empty() {
            return candidates;
        }
        let protected = self.policy.is_protected(envelope.triple());
        let all = || matches.iter().flat_map(Receivers::iter);
        let served_inside = protected && all().any(|handler| handler.member.standing == Role::Adapter);
        for handler in all() {
            let member = &handler.member;
            if envelope.target().is_some_and(|target| target != &*member.source) {
                continue;
            }
            let own = whose.user() == member.user();
            let rank = match member.standing {
                Role::User(_) if own => 0,
                Role::Adapter => 1,
                Role::Service => 2,
                Role::User(_) => 3,
            };
            // Even on a shared channel no agent's password request goes to another agent's application.
            let foreign = rank == 3;
            if protected && (foreign || !member.may_handle(envelope.triple(), self.policy.open, served_inside)) {
                continue;
            }
            if Arc::ptr_eq(member, sender) {
                candidates.sender_handles = true;
            } else {
                candidates.handlers.push((rank, Arc::clone(handler)));
            }
        }
        candidates
    }
}
