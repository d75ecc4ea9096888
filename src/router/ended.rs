//! What has ended: the last session of each application, and the last subscriptions of each session. Explain says so of an
//! application that is not there, or does not subscribe any more.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::router::change::Reason;
use crate::router::end::Ending;
use crate::router::holdings::Holdings;
use crate::router::index::Subscription;
use crate::router::session::{Role, Session};

/// How many subscriptions that have ended a session remembers.
const SUBSCRIPTIONS_MAX: usize = 16;

/// A source, and its user unless it is a service.
type Application = (Arc<str>, Option<Arc<str>>);

/// How the last session of an application ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndedSession {
    pub(super) at: SystemTime,
    pub(super) ending: Ending,
}

/// The last session of each application, those that ended last.
#[derive(Default)]
pub(super) struct EndedSessions(Mutex<ByApplication>);

#[derive(Default)]
struct ByApplication {
    /// In the order in which they ended.
    ended: BTreeMap<u64, (Application, EndedSession)>,
    /// The number that each has in `ended`.
    numbers: HashMap<Application, u64, foldhash::fast::RandomState>,
    next: u64,
}

impl EndedSessions {
    /// Remembers that a session has ended, and at most this number of applications.
    pub(super) fn insert(&self, at: SystemTime, session: &Session, ending: Ending, most: usize) {
        let user = match &session.role {
            Role::User(user) => Some(Arc::clone(user)),
            Role::Service => None,
            Role::Adapter => return,
        };
        let application = (Arc::clone(&session.source), user);
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        if let Some(earlier) = state.numbers.insert(application.clone(), number) {
            state.ended.remove(&earlier);
        }
        state.ended.insert(number, (application, EndedSession { at, ending }));
        while state.ended.len() > most
            && let Some((_, (oldest, _))) = state.ended.pop_first()
        {
            state.numbers.remove(&oldest);
        }
    }

    /// The session of a source that ended last, of a user that `fits` accepts; `None` is a service.
    pub(super) fn last(
        &self,
        source: &str,
        fits: impl Fn(Option<&str>) -> bool,
    ) -> Option<(Option<Arc<str>>, EndedSession)> {
        let state = self.0.lock();
        let mut latest = state.ended.values().rev();
        let ((_, user), ended) = latest.find(|((own, user), _)| **own == *source && fits(user.as_deref()))?;
        Some((user.clone(), *ended))
    }
}

impl Holdings {
    /// Remembers subscriptions that end.
    pub(super) fn note_ended(&mut self, at: SystemTime, ended: &[Arc<Subscription>], why: SubscriptionEnd) {
        if !ended.is_empty() {
            self.ended.get_or_insert_default().extend(at, ended, why);
        }
    }
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionEnd {
    /// The session unsubscribed.
    Unsubscribed,
    /// Its rights, or the scope of the channel, changed.
    Changed(Reason),
}

/// A subscription that has ended.
#[derive(Clone, Debug)]
pub(super) struct EndedSubscription {
    pub(super) pattern: Box<str>,
    pub(super) role: &'static str,
    pub(super) at: SystemTime,
    pub(super) why: SubscriptionEnd,
}

/// The last subscriptions of a session that have ended.
#[derive(Default)]
pub(super) struct EndedSubscriptions(VecDeque<EndedSubscription>);

impl EndedSubscriptions {
    /// Remembers subscriptions that end.
    pub(super) fn extend(&mut self, at: SystemTime, ended: &[Arc<Subscription>], why: SubscriptionEnd) {
        let skipped = ended.len().saturating_sub(SUBSCRIPTIONS_MAX);
        for subscription in ended.iter().skip(skipped) {
            if self.0.len() == SUBSCRIPTIONS_MAX {
                self.0.pop_front();
            }
            let pattern = subscription.pattern.to_string().into();
            self.0.push_back(EndedSubscription { pattern, role: subscription.role.as_str(), at, why });
        }
    }

    /// The last one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &EndedSubscription> {
        self.0.iter().rev()
    }
}

impl SubscriptionEnd {
    /// Why, in words. `channel`: of the pattern.
    pub(super) fn words(self, channel: &str) -> String {
        match self {
            Self::Unsubscribed => "unsubscribed".to_owned(),
            Self::Changed(Reason::Renewed) => "the rights of its new proof do not allow it".to_owned(),
            Self::Changed(Reason::Reloaded) => "its rights after a reload do not allow it".to_owned(),
            Self::Changed(Reason::Scope) => format!("scope of {channel} changed"),
            Self::Changed(Reason::Folding) => format!("fold_case of {channel} changed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::auth::{Identity, Permissions, Principal};
    use crate::config::Config;
    use crate::router::sync::start;
    use crate::router::{Ids, Outbox, Policy, Registration, Router};

    const THREADS: usize = 8;

    /// How many sessions each thread ends.
    const SESSIONS: usize = 200;

    #[test]
    fn with_many_threads_exactly_the_last_applications_are_remembered() {
        let mut config = Config::default();
        config.limits.ended_sessions = 10;
        let now = start();
        let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(&config), Ids::seeded(1), Vec::new());
        let run = |thread: usize| {
            for number in 0..SESSIONS {
                // Every other application has sessions of all threads.
                let of = if number % 2 == 0 { 0 } else { thread };
                let source = format!("app-{of}-{number}");
                let identity = Identity::unproved(Principal::Service, Permissions::all());
                let outbox = Outbox::refusing();
                let registration = Registration { source, identity, echo: false, address: None, outbox, will: None };
                let session = router.attach(now, registration).unwrap();
                router.detach(now, &session);
            }
        };
        thread::scope(|scope| (0..THREADS).for_each(|thread| drop(scope.spawn(move || run(thread)))));
        let state = router.ended.0.lock();
        let counts = (state.ended.len(), state.numbers.len(), state.next);
        assert_eq!(counts, (10, 10, (THREADS * SESSIONS) as u64));
        assert!(state.ended.iter().all(|(number, (application, _))| state.numbers.get(application) == Some(number)));
    }
}
