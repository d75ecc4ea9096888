//! Hints: an event that reached nobody, though a similar triple is served, was most likely meant for that handler.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::router::index::Subscription;
use crate::router::session::Session;
use crate::router::{Router, Scope, SubscriptionId};
use wire::{Envelope, Triple};

/// How many handlers of a user, and of all services and adapters, are looked at: a broker with very many of them answers
/// without a hint rather than late.
const LOOKED_AT: usize = 256;

/// How many triples the log names at most.
const LOGGED_MAX: usize = 1024;

/// Handler subscriptions by whose they are (`None`: services and adapters), for hints.
#[derive(Default)]
pub(super) struct Served {
    by_user: DashMap<Option<Arc<str>>, BTreeMap<SubscriptionId, Arc<Subscription>>, foldhash::fast::RandomState>,
    /// Triples that the log has named.
    logged: Mutex<HashSet<String>>,
}

impl Served {
    pub(super) fn insert(&self, handler: &Arc<Subscription>) {
        self.by_user.entry(user_of(handler)).or_default().insert(handler.id, Arc::clone(handler));
    }

    pub(super) fn remove(&self, handler: &Subscription) {
        self.by_user.remove_if_mut(&user_of(handler), |_, handlers| {
            handlers.remove(&handler.id);
            handlers.is_empty()
        });
    }

    /// The likest served triple, earliest first.
    fn likest(&self, sender: &Session, triple: &Triple<'_>, user: Option<&str>) -> Option<String> {
        let mut likest = None;
        let mut users = vec![None];
        users.extend(user.map(|user| Some(Arc::from(user))));
        for user in users {
            let Some(handlers) = self.by_user.get(&user) else { continue };
            for handler in handlers.values().take(LOOKED_AT).filter(|it| it.session.number != sender.number) {
                if let Some(distance) = distance(handler, triple) {
                    likest = likest.max(Some((Reverse((distance, handler.id)), handler.pattern.to_string())));
                }
            }
        }
        likest.map(|(_, pattern)| pattern)
    }
}

fn user_of(handler: &Subscription) -> Option<Arc<str>> {
    handler.session.user().map(Arc::from)
}

/// How far a triple is from what a handler serves. A pattern with a wildcard is similar to too much.
fn distance(handler: &Subscription, triple: &Triple<'_>) -> Option<usize> {
    let part = |own: &Option<Box<str>>, others: &str| likeness(own.as_deref()?, others);
    Some(
        part(&handler.pattern.channel, &triple.channel)?
            + part(&handler.pattern.topic, &triple.topic)?
            + part(&handler.pattern.subtopic, &triple.subtopic)?,
    )
}

/// How far two parts are from each other; `None`: they have nothing to do with each other.
fn likeness(own: &str, others: &str) -> Option<usize> {
    if own == others {
        return Some(0);
    }
    if own.eq_ignore_ascii_case(others) {
        return Some(1);
    }
    // One slip of the pen in four letters. Lengths first: most parts end here.
    let slips = own.len().max(4) / 4;
    if own.len().abs_diff(others.len()) > slips {
        return None;
    }
    let distance = strsim::damerau_levenshtein(&own.to_lowercase(), &others.to_lowercase());
    (distance <= slips).then_some(1 + distance)
}

impl Router {
    /// What to tell the sender of an event that reached nobody; the log is told once a triple.
    pub(super) fn hint(&self, sender: &Session, envelope: &Envelope<'_>, scope: Scope<'_>) -> Option<String> {
        let likest = self.served.likest(sender, envelope.triple(), scope.user())?;
        let triple = envelope.triple().to_string();
        let mut logged = self.served.logged.lock();
        if logged.len() < LOGGED_MAX && logged.insert(triple.clone()) {
            drop(logged);
            let source = &*sender.source;
            tracing::info!(source, triple, likest, "an event reached nobody, though a similar triple is served");
        }
        Some(format!("nobody received it, but {likest} is served by a handler; did you mean that?"))
    }
}
