//! Hints: an event or a request whose triple no exact pattern names was most likely meant for a similar triple.
//!
//! The triples are indexed when they are subscribed to ([`Names`]). A search looks at a bounded number of them, and a
//! session gets ten searches a second.

mod distance;
mod names;
pub(super) mod pattern;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use wire::{Envelope, ErrorCode, Refusal, Triple};

use crate::router::decide::Facts;
use crate::router::index::{Audience, Subscription};
use crate::router::session::Session;
use crate::router::{Router, Scope, access};
use names::Names;

/// The time in which a session earns another search.
const EARNED_EVERY: Duration = Duration::from_millis(100);

/// The searches that a session can save up.
const SAVED_MAX: u32 = 10;

/// The number of triples that the log names at most.
const LOGGED_MAX: usize = 1024;

/// The triples that can be hinted at.
#[derive(Default)]
pub(super) struct Hints {
    names: Names,
    /// Triples that the log has named.
    logged: Mutex<HashSet<String>>,
}

/// A session's allowance of searches.
#[derive(Default)]
pub(super) struct HintAllowance {
    /// When all searches will have been earned again. `None`: none was spent.
    full_at: Mutex<Option<Instant>>,
}

impl HintAllowance {
    /// Spends a search, if there is one.
    fn spend(&self, now: Instant) -> bool {
        let mut full_at = self.full_at.lock();
        let at = full_at.map_or(now, |at| at.max(now));
        let has_one = at.saturating_duration_since(now) <= EARNED_EVERY * (SAVED_MAX - 1);
        if has_one {
            *full_at = Some(at + EARNED_EVERY);
        }
        has_one
    }
}

impl Hints {
    /// Adds a subscription. Observers are left out: nobody learns that they watch.
    pub(super) fn insert(&self, subscription: &Subscription) {
        if subscription.observes.is_none() {
            self.names.insert(&subscription.pattern);
        }
    }

    /// Takes a subscription out.
    pub(super) fn remove(&self, subscription: &Subscription) {
        if subscription.observes.is_none() {
            self.names.remove(&subscription.pattern);
        }
    }

    /// The number of subscriptions in the index.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    fn log(&self, sender: &Session, triple: &Triple<'_>, meant: &str) {
        let triple = triple.to_string();
        let mut logged = self.logged.lock();
        if logged.len() < LOGGED_MAX && logged.insert(triple.clone()) {
            drop(logged);
            let source = &*sender.source;
            tracing::info!(source, triple, meant, "no exact pattern names the triple, but a similar one is named");
        }
    }
}

impl Router {
    /// The hint in the receipt of an event that `receivers` sessions of the sender's scope received.
    pub(super) fn hint(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
        receivers: usize,
    ) -> Option<String> {
        if self.is_named(&facts.canonical, facts.shared, scope) {
            return None;
        }
        self.search(now, sender, envelope.triple(), scope, receivers == 0)
    }

    /// Searches what a sender may have meant. `alone`: nobody in its scope subscribes to the triple or handles it.
    fn search(
        &self,
        now: Instant,
        sender: &Session,
        triple: &Triple<'_>,
        scope: Scope<'_>,
        alone: bool,
    ) -> Option<String> {
        if !sender.hints.spend(now) {
            return None;
        }
        let sent = self.policy.canonical(triple);
        let rights = sender.rights();
        let may_know = |named: &Triple<'_>| rights.as_ref().is_none_or(|rights| access::send::may_know(rights, named));
        let in_scope = |text: &str| {
            parse(text).is_some_and(|named| {
                let canonical = self.policy.canonical(&named);
                let is_named = || self.is_named(&canonical, self.policy.is_shared(&named.channel), scope);
                canonical != sent && may_know(&named) && is_named()
            })
        };
        if let Some(similar) = self.hints.names.similar(triple, in_scope) {
            self.hints.log(sender, triple, similar.text());
            return Some(format!("no exact pattern names this triple; did you mean {}?", similar.text()));
        }
        let same = |text: &str| parse(text).is_some_and(|named| self.policy.canonical(&named) == sent);
        let by_others = alone && self.hints.names.any(triple, same);
        by_others.then(|| "sessions of other users subscribe to this triple".to_owned())
    }

    /// Adds the hint to `NO_HANDLER`.
    pub(super) fn hinted(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
        refusal: Refusal,
    ) -> Refusal {
        if refusal.code != ErrorCode::NoHandler {
            return refusal;
        }
        let Ok(scope) = access::scope(sender, envelope, facts) else { return refusal };
        let alone = !self.is_named(&facts.canonical, facts.shared, scope);
        match self.search(now, sender, envelope.triple(), scope, alone) {
            Some(hint) => refusal.with("Hint", hint),
            None => refusal,
        }
    }

    /// Whether an exact pattern of a sender's scope names a canonical triple. `is_shared`: its channel is shared.
    fn is_named(&self, canonical: &Triple<'_>, is_shared: bool, scope: Scope<'_>) -> bool {
        let mut audiences = SmallVec::<[Audience<'_>; 3]>::from_slice(&[Audience::Services, Audience::Adapters]);
        if is_shared {
            audiences.push(Audience::Everyone);
        } else {
            audiences.extend(scope.user().map(Audience::User));
        }
        self.events.names(&audiences, canonical) || self.handlers.names(&audiences, canonical)
    }
}

/// The triple of a written text.
fn parse(text: &str) -> Option<Triple<'_>> {
    let mut parts = text.split('/');
    Some(Triple::new(parts.next()?, parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter")]
    fn ten_searches_a_second_are_allowed() {
        let (now, allowance) = (Instant::now(), HintAllowance::default());
        let spent = |at| (0..100).take_while(|_| allowance.spend(at)).count();
        assert_eq!(spent(now), 10);
        assert_eq!(spent(now + Duration::from_millis(99)), 0);
        assert_eq!(spent(now + Duration::from_millis(300)), 3);
        assert_eq!(spent(now + Duration::from_mins(1)), 10);
    }
}
