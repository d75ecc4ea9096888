//! The new node of a session: it asks for the session, collects the parts, and takes it over.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use wire::command;

use super::Come;
use super::logs::Positions;
use super::message::{Asked, Leg, Moving, Why};
use super::parts::{Counts, Entry, Facts, Part, SubscriptionFacts, TurnOf};
use super::stayed::{Unanswered, forget_answered};
use crate::auth::Permissions;
use crate::router::access::receive::Interest;
use crate::router::backplane::message::Message;
use crate::router::backplane::{Peer, date};
use crate::router::index::{Listing, Observes, Subscription};
use crate::router::outbox::moving::Waiting;
use crate::router::request::lane::Ordered;
use crate::router::resume::{Arrival, ResumeReason, Token, Wanted};
use crate::router::session::{Registration, Role, Session};
use crate::router::{Router, SessionId, SubscriptionId};
use wire::Pattern;

/// How many nodes a question is passed on to, one after the other.
const HOPS_MAX: u8 = 8;

/// A session that this node has asked for.
pub(super) struct Coming {
    peer: Arc<Peer>,
    hops: u8,
    token: Token,
    wish: Wish,
    arrived: Arrived,
    ticket: MoveTicket,
}

/// What the session is made of here.
struct Wish {
    registration: Registration,
    reloads: u64,
    /// When its proof ends, if it does.
    proof_ends: Option<Instant>,
}

/// What has arrived of it.
#[derive(Default)]
struct Arrived {
    facts: Option<OwnedFacts>,
    subscriptions: Vec<OwnedSubscription>,
    /// Where its old node was in the logs that it reads.
    logs: Positions,
    entries: Vec<Waiting>,
}

struct OwnedFacts {
    /// How often it had moved before.
    moves: u64,
    echo: bool,
    state: command::State,
    missed: bool,
    since: SystemTime,
    arrival: Arrival,
    will: Option<Box<str>>,
    asked: Vec<Unanswered>,
}

struct OwnedSubscription {
    id: SubscriptionId,
    since: SystemTime,
    pattern: Pattern,
    role: command::Role,
    group: Option<Box<str>>,
    observes: Option<Observes>,
}

/// What became of a question for a session of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The session is here: [`Router::register`] finds it.
    Here,
    /// It does not continue.
    Not(ResumeReason),
}

/// A question for a session of another node. Clones are the same question.
#[derive(Clone)]
pub struct MoveTicket(Arc<Mutex<Answer>>);

#[derive(Default)]
struct Answer {
    outcome: Option<Fetched>,
    /// How many parts of the session have arrived.
    parts: u64,
    waiting: Option<Waker>,
}

impl MoveTicket {
    /// How many parts of the session have arrived. While it grows, it is worth waiting.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.0.lock().parts
    }

    /// Ready when the question is answered.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Fetched> {
        let mut answer = self.0.lock();
        if let Some(outcome) = answer.outcome {
            return Poll::Ready(outcome);
        }
        answer.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn settle(&self, outcome: Fetched) {
        let waiting = {
            let mut answer = self.0.lock();
            answer.outcome = Some(outcome);
            answer.waiting.take()
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A hash that is the same for the same permissions on every node.
pub(super) fn hash_of(permissions: &Permissions) -> [u8; 32] {
    // All its lists have an order, so the text has no chance in it.
    Sha256::digest(format!("{permissions:?}")).into()
}

impl OwnedFacts {
    fn new(now: Instant, facts: &Facts<'_>) -> Self {
        Self {
            moves: facts.moves,
            echo: facts.echo,
            state: if facts.asleep { command::State::Asleep } else { command::State::Active },
            missed: facts.missed,
            since: date::from_ms(facts.since_ms),
            arrival: Arrival::new(now, facts),
            will: facts.will.map(Box::from),
            asked: facts.asked.iter().map(Unanswered::new).collect(),
        }
    }
}

impl OwnedSubscription {
    fn new(held: &SubscriptionFacts<'_>) -> Self {
        Self {
            id: SubscriptionId::from_number(held.id),
            since: date::from_ms(held.since_ms),
            pattern: held.pattern(),
            role: held.role(),
            group: held.group.map(Box::from),
            observes: held.observes(),
        }
    }
}

impl Coming {
    fn ask(&self, ask: u64) -> bool {
        let identity = &self.wish.registration.identity;
        let asked = Asked {
            session: *self.token.session.as_bytes(),
            number: self.token.number,
            source: &self.wish.registration.source,
            user: identity.principal.user(),
            permissions: hash_of(&identity.permissions),
        };
        self.peer.say(Moving::Take { ask, asked })
    }
}

impl Router {
    /// Asks for the session with which a client wants to continue, if another node has it. `proof_ends`: when the proof of the
    /// registration ends. `None`: it need not wait.
    pub fn fetch(
        &self,
        wanted: &Wanted<'_>,
        proof_ends: Option<Instant>,
        registration: impl FnOnce() -> Registration,
    ) -> Option<MoveTicket> {
        let cluster = self.cluster.as_ref().filter(|_| !self.policy.resume().grace.is_zero())?;
        let command::Resume::Continue { token, .. } = wanted.resume else { return None };
        let (token, node) = self.resumes.elsewhere(token.expose_secret())?;
        // Where it is announced, if that is known: its old node may have ended since.
        let announced = cluster.peers.load().iter().find(|peer| peer.has(*token.session.as_bytes())).cloned();
        let peer = announced.or_else(|| cluster.peer(&node))?;
        let ticket = MoveTicket(Arc::default());
        let wish = Wish { registration: registration(), reloads: wanted.reloads, proof_ends };
        let coming = Coming { peer, hops: 0, token, wish, arrived: Arrived::default(), ticket: ticket.clone() };
        let mut state = cluster.moves.state.lock();
        state.asks += 1;
        let ask = state.asks;
        // Under the lock: its answer finds it.
        if !coming.ask(ask) {
            return None;
        }
        state.coming.insert(ask, coming);
        Some(ticket)
    }

    /// Takes a question of this peer off the list.
    fn answered(&self, peer: &Arc<Peer>, ask: u64) -> Option<Coming> {
        let mut state = self.cluster.as_ref()?.moves.state.lock();
        state.coming.get(&ask).filter(|coming| Arc::ptr_eq(&coming.peer, peer))?;
        state.coming.remove(&ask)
    }

    /// The session stays where it is.
    pub(super) fn stays_from(&self, peer: &Arc<Peer>, ask: u64, why: Why) {
        if let Some(coming) = self.answered(peer, ask) {
            coming.ticket.settle(Fetched::Not(why.into()));
        }
    }

    /// The session is at another node, which is asked next.
    pub(super) fn at_from(&self, peer: &Arc<Peer>, ask: u64, node: &str) {
        let Some(mut coming) = self.answered(peer, ask) else { return };
        if self.resumes.is_here(coming.token.session) {
            return coming.ticket.settle(Fetched::Here);
        }
        let Some(cluster) = &self.cluster else { return };
        let next = cluster.peer(node).filter(|_| coming.hops < HOPS_MAX);
        let ticket = coming.ticket.clone();
        let asked = next.is_some_and(|next| {
            (coming.peer, coming.hops) = (next, coming.hops + 1);
            let mut state = cluster.moves.state.lock();
            let asked = coming.ask(ask);
            if asked {
                state.coming.insert(ask, coming);
            }
            asked
        });
        if !asked {
            ticket.settle(Fetched::Not(ResumeReason::Unknown));
        }
    }

    /// A part of the session.
    pub(super) fn part_from(&self, now: Instant, peer: &Arc<Peer>, ask: u64, part: &Part<'_>) {
        let Some(cluster) = &self.cluster else { return };
        {
            let mut state = cluster.moves.state.lock();
            let coming = state.coming.get_mut(&ask).filter(|coming| Arc::ptr_eq(&coming.peer, peer));
            let Some(Coming { arrived, ticket, .. }) = coming else { return };
            ticket.0.lock().parts += 1;
            match part {
                Part::Facts(facts) => {
                    *arrived = Arrived { facts: Some(OwnedFacts::new(now, facts)), ..Arrived::default() }
                }
                Part::Subscriptions(held) => arrived.subscriptions.extend(held.iter().map(OwnedSubscription::new)),
                Part::Logs(logs) => arrived.logs.extend(logs.iter().map(|it| (it.log.into(), it.position()))),
                Part::Entries(entries) => {
                    arrived.entries.extend(entries.iter().map(|it| (it.frame(), it.on_full(), it.kind())));
                }
            }
        }
        peer.say(Moving::Next { ask });
    }

    /// The last part: the session belongs to this node.
    pub(super) fn yours_from(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        ask: u64,
        counts: Counts,
        (entries, turns): (&[Entry<'_>], &[TurnOf<'_>]),
    ) {
        let Some(Coming { token, wish, mut arrived, ticket, .. }) = self.answered(peer, ask) else { return };
        let Some(mut facts) = arrived.facts.take() else { return ticket.settle(Fetched::Not(ResumeReason::Unknown)) };
        arrived.entries.extend(entries.iter().map(|it| (it.frame(), it.on_full(), it.kind())));
        // Some were answered after the facts were told.
        for (frame, ..) in &arrived.entries {
            forget_answered(&mut facts.asked, frame.text());
        }
        self.take_over(now, peer, token.session, wish, facts, (arrived, counts, turns));
        ticket.settle(Fetched::Here);
    }

    fn take_over(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        id: SessionId,
        wish: Wish,
        facts: OwnedFacts,
        (arrived, counts, turns): (Arrived, Counts, &[TurnOf<'_>]),
    ) {
        let Some(cluster) = &self.cluster else { return };
        let Wish { registration, reloads, proof_ends } = wish;
        let is_exclusive = registration.identity.exclusive;
        let registration = Registration { echo: facts.echo, will: facts.will, ..registration };
        let role = Role::of(&registration.identity.principal);
        let mut session = Session::new(id, self.ids.stamp(), role, facts.since, registration, reloads, None);
        session.set_state(facts.state);
        session.set_missed(facts.missed);
        self.resumes.adopt(now, &mut session, facts.arrival, (counts, arrived.entries));
        let session = Arc::new(session);
        let (source, user) = (session.source(), session.user());
        tracing::debug!(source, user, session = %id, from = peer.node(), "a session has arrived from another node");
        // From here on, this node's events are for the session here.
        let mark = cluster.moves.steady.write();
        let peers = cluster.peers.load();
        if let Some(transit) = session.transit() {
            let nodes = peers.iter().map(|peer| Some(peer.node()));
            transit.come(nodes.chain([None]), !arrived.logs.is_empty() || self.may_read_logs(&arrived.subscriptions));
            transit.mark(now, &session, None);
        }
        let before = Leg { session: *id.as_bytes(), number: facts.moves };
        let come = Come { session: Arc::clone(&session), from: Arc::clone(peer), asked: facts.asked, is_idle: false };
        cluster.moves.state.lock().come.insert(before, come);
        self.presence.list_moved(&session);
        self.begin_away(now, &session, proof_ends);
        for held in arrived.subscriptions {
            self.subscribe_moved(&session, held);
        }
        // Before others can give it requests.
        self.set_turns(now, &session, turns);
        drop(self.moved_away(now, peer, *id.as_bytes()));
        self.announce_moved(&session, peer.node());
        // In the order of what this node has sent before, as those of other nodes.
        peer.say(Moving::Cut { session: *id.as_bytes() });
        drop(mark);
        self.begin_logs(now, peer, &session, arrived.logs);
        if is_exclusive {
            self.seek_lease_moved(now, &session);
        }
        self.requests.wake_before(now + self.policy.resume().grace);
        self.bound_away(now);
    }

    /// Whether events of logs can come by some of these subscriptions.
    fn may_read_logs(&self, subscriptions: &[OwnedSubscription]) -> bool {
        subscriptions.iter().any(|held| match held.pattern.channel.as_deref() {
            Some(channel) => self.policy.history(channel).is_some(),
            None => self.policy.keeps_history(),
        })
    }

    /// Subscribes a session as it was subscribed on its old node. Nobody is told yet.
    fn subscribe_moved(&self, session: &Arc<Session>, held: OwnedSubscription) {
        let permissions = session.permissions();
        let OwnedSubscription { id, since, pattern, role, group, observes } = held;
        let is_handler = matches!(role, command::Role::Handler { .. });
        let interest = Interest {
            role: &session.role,
            permissions: &permissions,
            pattern: &pattern,
            is_handler,
            observes: observes.as_ref(),
        };
        let checked = AtomicBool::new(self.is_checked(&interest));
        let ordered = Ordered::of(&pattern, &role, self.policy.folds_channel_of(&pattern));
        let subscription = Arc::new(Subscription {
            id,
            serial: self.ids.serial(),
            since,
            session: Arc::clone(session),
            pattern,
            role,
            group,
            checked,
            observes,
            ordered,
            listing: Listing::default(),
        });
        session.holds.lock().subscriptions.push(Arc::clone(&subscription));
        if subscription.ordered.is_some() {
            session.turns.join(&subscription);
        }
        match subscription.role {
            command::Role::Handler { .. } => self.handlers.insert(&self.policy, &subscription),
            command::Role::Subscriber => self.events.insert(&self.policy, &subscription),
        }
        self.hints.insert(&subscription);
    }

    /// The nodes that were asked and are lost.
    pub(super) fn coming_lost(&self, peer: &Arc<Peer>) {
        let Some(cluster) = &self.cluster else { return };
        let lost: Vec<_> =
            cluster.moves.state.lock().coming.extract_if(.., |_, it| Arc::ptr_eq(&it.peer, peer)).collect();
        for (_, coming) in lost {
            coming.ticket.settle(Fetched::Not(ResumeReason::Unknown));
        }
    }
}

impl Peer {
    /// Gives it a message about a session that moves. Returns `false` if there is no link any more.
    pub(super) fn say(&self, moving: Moving<'_>) -> bool {
        self.send(&Message::Moving(moving))
    }
}
