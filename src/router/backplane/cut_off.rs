//! What is left of other nodes while this one is cut off: which envelopes their handlers took. Such an envelope must not turn
//! into an event because nobody is there to answer it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wire::{ErrorCode, Pattern, Refusal, Triple};

use super::Cluster;
use crate::router::decide::Facts;
use crate::router::session::Session;
use crate::router::{Router, Scope};

/// How long requests for lost handlers are refused.
const REMEMBERED: Duration = Duration::from_mins(1);

/// Patterns of handlers by their user; `None`: services.
type ByUser = HashMap<Option<Box<str>>, Vec<Pattern>>;

/// The handlers of nodes that were lost.
#[derive(Default)]
pub(super) struct CutOff {
    is_cut_off: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    until: Option<Instant>,
    by_node: HashMap<Box<str>, Lost>,
}

/// The handlers of one lost node, by channel.
struct Lost {
    at: Instant,
    handlers: HashMap<Box<str>, ByUser>,
}

impl CutOff {
    /// A node is lost.
    pub(super) fn lost(&self, now: Instant, node: &str) {
        let mut state = self.state.lock();
        state.by_node.retain(|_, lost| now.saturating_duration_since(lost.at) < REMEMBERED);
        state.by_node.insert(Box::from(node), Lost { at: now, handlers: HashMap::new() });
    }

    /// The stand-in of a handler of that node is about to end.
    pub(super) fn remember(&self, node: &str, session: &Session) {
        let holds = session.holds.lock();
        let handlers = holds.subscriptions.iter().filter(|it| it.is_handler());
        let patterns: Vec<_> = handlers.map(|it| it.pattern.clone()).collect();
        drop(holds);
        let mut state = self.state.lock();
        let Some(lost) = state.by_node.get_mut(node) else { return };
        for pattern in patterns {
            let Some(channel) = &pattern.channel else { continue };
            let by_user = lost.handlers.entry(channel.clone()).or_default();
            let known = by_user.entry(session.user().map(Box::from)).or_default();
            if !known.contains(&pattern) {
                known.push(pattern);
            }
        }
    }

    /// There is a link to the node again.
    pub(super) fn found(&self, node: &str) {
        self.state.lock().by_node.remove(node);
    }

    fn handled(&self, triple: &Triple<'_>, scope: Scope<'_>) -> bool {
        let state = self.state.lock();
        let matches = |patterns: &Vec<Pattern>| patterns.iter().any(|pattern| pattern.matches_any_case(triple));
        state.by_node.values().filter_map(|lost| lost.handlers.get(&*triple.channel)).any(|by_user| match scope {
            Scope::User(user) => {
                let own = by_user.get(&Some(Box::from(user)));
                own.into_iter().chain(by_user.get(&None)).any(matches)
            }
            Scope::Shared(_) => by_user.values().any(matches),
        })
    }
}

impl Router {
    /// This node is cut off from all others, or no longer.
    pub fn set_cut_off(&self, now: Instant, is_cut_off: bool) {
        let Some(cluster) = &self.cluster else { return };
        let until = is_cut_off.then(|| now + REMEMBERED);
        cluster.cut_off.state.lock().until = until;
        cluster.cut_off.is_cut_off.store(is_cut_off, Ordering::Release);
        if let Some(until) = until {
            self.requests.wake_before(until);
        }
    }

    /// Checks that no node from which this one is cut off handles an envelope that nobody here handles.
    ///
    /// # Errors
    /// `UPSTREAM_UNAVAILABLE`.
    pub(in crate::router) fn check_cut_off(
        &self,
        triple: &Triple<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
    ) -> Result<(), Refusal> {
        let is_cut_off = |cluster: &&Cluster| cluster.cut_off.is_cut_off.load(Ordering::Acquire);
        let Some(cluster) = self.cluster.as_deref().filter(is_cut_off) else { return Ok(()) };
        // Handlers of other users never get a protected request.
        if !cluster.cut_off.handled(triple, if facts.protected { facts.scope_of(scope.user()) } else { scope }) {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::UpstreamUnavailable,
            "its handler is on a node of the cluster from which this one is cut off; try again",
        ))
    }

    /// When the memory of lost handlers ends.
    pub(in crate::router) fn cut_off_deadline(&self) -> Option<Instant> {
        self.cluster.as_ref().and_then(|cluster| cluster.cut_off.state.lock().until)
    }

    /// Forgets lost handlers when it is time.
    pub(in crate::router) fn expire_cut_off(&self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        let mut state = cluster.cut_off.state.lock();
        if state.until.is_some_and(|until| until <= now) {
            (state.until, state.by_node) = (None, HashMap::new());
            cluster.cut_off.is_cut_off.store(false, Ordering::Release);
        }
    }
}
