//! [`Asks`]: what this node asks others for an operator, or for a session that asks why others do not get what it sends.
//!
//! An operator's rights are checked by the node that the operator asked, and what a session may be told by the node of that
//! session: so a question has no token and no rights in it, and an answer is cut down where it arrives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::message::{Answer, Message, Question};
use super::peer::Peer;
use crate::router::operator::CLOSED_BECAUSE_BYTES_MAX;
use crate::router::{Close, Router, Sessions};

/// How many questions wait for their answers at most. Beyond that, nobody is asked.
const OPEN_MAX: usize = 256;

/// The questions that are not answered by all.
#[derive(Default)]
pub(super) struct Asks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Questions that were asked.
    asked: u64,
    open: BTreeMap<u64, Open>,
}

/// A question that some nodes have not answered.
struct Open {
    until: Instant,
    /// Those that have not.
    waits_for: Vec<Arc<Peer>>,
    answers: Answers,
    done: Done,
}

/// What is done when all have answered, or the time is over. No lock is held then.
type Done = Box<dyn FnOnce(&Router, Instant, Answers) + Send>;

/// What other nodes have answered.
#[derive(Default)]
pub(in crate::router) struct Answers {
    /// The node, and what it says.
    pub(in crate::router) told: Vec<(Arc<str>, Answered)>,
    /// The nodes that did not answer.
    pub(in crate::router) silent: Vec<String>,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router) enum Answered {
    /// JSON.
    Explained(Box<[u8]>),
    /// How many sessions it has closed.
    Closed(u64),
}

impl Open {
    fn finish(mut self, router: &Router, now: Instant) {
        let silent = self.waits_for.iter().map(|peer| peer.node().to_owned());
        self.answers.silent.extend(silent);
        self.answers.silent.sort_unstable();
        (self.done)(router, now, self.answers);
    }
}

impl Router {
    /// The nodes to which there is a link, or was one until a moment ago.
    pub(in crate::router) fn all_peers(&self) -> Vec<Arc<Peer>> {
        self.cluster.as_ref().map(|cluster| cluster.peers.load().to_vec()).unwrap_or_default()
    }

    /// Asks other nodes, each its own question. `done` is called when all have answered, are lost, or `wait` is over: at once,
    /// if nobody is to be asked.
    pub(in crate::router) fn ask_peers<'q>(
        &self,
        now: Instant,
        wait: Duration,
        questions: impl Iterator<Item = (Arc<Peer>, Question<'q>)>,
        done: impl FnOnce(&Self, Instant, Answers) + Send + 'static,
    ) {
        let questions: Vec<_> = questions.collect();
        let until = now + wait;
        let waits_for: Vec<_> = questions.iter().map(|(peer, _)| Arc::clone(peer)).collect();
        let open = Open { until, waits_for, answers: Answers::default(), done: Box::new(done) };
        let Some(cluster) = self.cluster.as_ref().filter(|_| !questions.is_empty()) else {
            return open.finish(self, now);
        };
        let ask = {
            let mut state = cluster.asks.state.lock();
            if state.open.len() >= OPEN_MAX {
                drop(state);
                return open.finish(self, now);
            }
            state.asked += 1;
            let ask = state.asked;
            state.open.insert(ask, open);
            ask
        };
        self.requests.wake_before(until);
        for (peer, question) in questions {
            if !peer.send(&Message::Ask { ask, question }) {
                self.note_told(now, &peer, ask, None);
            }
        }
    }

    /// A peer asks.
    pub(super) fn asked_from(&self, now: Instant, peer: &Arc<Peer>, ask: u64, question: &Question<'_>) {
        let explained;
        let answer = match question {
            Question::Explain(question) => {
                explained = self.explain_here(question);
                Answer::Explained(&explained)
            }
            Question::Close { source, user, session, reason, reconnect } => {
                let text = |text: Option<&str>| text.map(str::to_owned);
                let which = Sessions { source: text(*source), user: text(*user), id: text(*session) };
                let end = reason.floor_char_boundary(CLOSED_BECAUSE_BYTES_MAX);
                let reason = reason.get(..end).unwrap_or_default().to_owned();
                // A question of a node with a defect must not close every session.
                let names_some = which != Sessions::default();
                let close = Close { which, reason, reconnect: *reconnect };
                let closed = if names_some { self.close_here(now, &close) } else { 0 };
                tracing::info!(node = peer.node(), closed, "an admin of another node closed sessions");
                Answer::Closed(closed)
            }
        };
        peer.send(&Message::Told { ask, answer });
    }

    /// A peer answers.
    pub(super) fn told_from(&self, now: Instant, peer: &Arc<Peer>, ask: u64, answer: Answer<'_>) {
        let answer = match answer {
            Answer::Explained(json) => Answered::Explained(json.into()),
            Answer::Closed(sessions) => Answered::Closed(sessions),
        };
        self.note_told(now, peer, ask, Some(answer));
    }

    /// Notes what a peer answers; `None`: it does not.
    fn note_told(&self, now: Instant, peer: &Arc<Peer>, ask: u64, answer: Option<Answered>) {
        let Some(cluster) = &self.cluster else { return };
        let finished = {
            let mut state = cluster.asks.state.lock();
            let Some(open) = state.open.get_mut(&ask) else { return };
            let Some(at) = open.waits_for.iter().position(|it| Arc::ptr_eq(it, peer)) else { return };
            let node = open.waits_for.swap_remove(at);
            match answer {
                Some(answer) => open.answers.told.push((Arc::clone(node.name()), answer)),
                None => open.answers.silent.push(node.node().to_owned()),
            }
            if open.waits_for.is_empty() { state.open.remove(&ask) } else { None }
        };
        if let Some(open) = finished {
            open.finish(self, now);
        }
    }

    /// A peer is lost, or its link begins anew: it does not answer any more.
    pub(super) fn asks_lost(&self, now: Instant, peer: &Arc<Peer>) {
        let Some(cluster) = &self.cluster else { return };
        let asks: Vec<_> = cluster.asks.state.lock().open.keys().copied().collect();
        for ask in asks {
            self.note_told(now, peer, ask, None);
        }
    }

    /// When [`Router::expire_asks`] has to be called.
    pub(in crate::router) fn asks_deadline(&self) -> Option<Instant> {
        self.cluster.as_ref()?.asks.state.lock().open.values().map(|open| open.until).min()
    }

    /// Gives up the questions that were not answered in time.
    pub(in crate::router) fn expire_asks(&self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        let over: Vec<_> = cluster.asks.state.lock().open.extract_if(.., |_, open| open.until <= now).collect();
        for (_, open) in over {
            open.finish(self, now);
        }
    }
}
