//! The old node of a session: it stops the session, waits until all peers have what the session has sent, hands it over in
//! parts, and keeps it until the last one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use super::ask::hash_of;
use super::message::{Asked, Moving, Why};
use super::parts::{Facts, Part, Question, SubscriptionFacts, TurnOf};
use super::stayed::Unanswered;
use super::{FOLLOW_MAX, Gone};
use crate::auth::Principal;
use crate::router::backplane::message::Id;
use crate::router::backplane::{Peer, date};
use crate::router::outbox::moving::{Progress, Road};
use crate::router::request::pending::Pending;
use crate::router::resume::{HeldHere, NotHere};
use crate::router::session::{Role, Session};
use crate::router::{Router, SessionId};
use crate::telemetry::recorder::What;
use wire::command;

/// The parts that are sent before one of them is answered.
const PARTS: usize = 8;

/// Subscriptions in one part.
const SUBSCRIPTIONS: usize = 64;

/// The messages that are made of a replay at once.
const UNROLLED: usize = 256;

/// A session that another node asks for.
pub(super) struct Going {
    ask: u64,
    to: Arc<Peer>,
    session: Arc<Session>,
    /// The peers that may not have everything that the session has sent.
    fences: BTreeSet<Box<str>>,
    /// Something that it has sent may have gone to peers after the fences.
    sent_late: bool,
    step: Step,
    /// The parts that have not been answered.
    under_way: usize,
}

/// What is handed over next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Facts,
    /// How many subscriptions were handed over.
    Subscriptions(usize),
    Logs,
    Entries,
}

/// Which session is handed over, for which question, and to which node.
struct Giving {
    id: Id,
    ask: u64,
    to: Arc<Peer>,
}

/// What was handed over.
enum Gave {
    /// This number of parts. This is next.
    Parts(Step, usize),
    /// Something has to happen first. It is looked at again.
    Waits,
    /// The session was given away; or whatever is waited for goes on with it.
    Over,
    /// The session cannot be given away.
    Cannot,
}

impl Giving {
    fn part(&self, part: Part<'_>) -> bool {
        self.to.say(Moving::Part { ask: self.ask, part })
    }
}

/// What became of the replays in a queue.
enum Unrolled {
    /// None is left.
    All,
    /// Events have to be read first.
    Waits,
    /// There are more messages than are kept for a session.
    Exceeds,
}

impl Router {
    /// A peer asks for a session.
    pub(super) fn take_from(&self, now: Instant, peer: &Arc<Peer>, ask: u64, asked: &Asked<'_>) {
        let id = SessionId::from_bytes(asked.session);
        let fits = |session: &Session| {
            let principal = asked.user.map_or(Principal::Service, |user| Principal::User(Arc::from(user)));
            *session.source == *asked.source
                && session.role == Role::of(&principal)
                && hash_of(&session.permissions()) == asked.permissions
        };
        if self.legs_are_used_up(id) {
            peer.say(Moving::Stays { ask, why: Why::Unknown });
            return;
        }
        match self.stop(now, id, asked.number, fits) {
            Ok(HeldHere { session, went_away }) => {
                if went_away {
                    self.note(now, &session, What::State("away"));
                }
                self.begin_to_give(now, peer, ask, &session);
            }
            Err(NotHere::At(node)) => drop(peer.say(Moving::At { ask, node: &node })),
            Err(NotHere::Why(why)) => drop(peer.say(Moving::Stays { ask, why })),
        }
    }

    fn begin_to_give(&self, now: Instant, peer: &Arc<Peer>, ask: u64, session: &Arc<Session>) {
        let Some(cluster) = &self.cluster else { return };
        let id = *session.id.as_bytes();
        let (to, session) = (Arc::clone(peer), Arc::clone(session));
        let going =
            Going { ask, to, session, fences: BTreeSet::new(), sent_late: false, step: Step::Facts, under_way: 0 };
        // Its client has returned to yet another node, and that one counts.
        let earlier = cluster.moves.state.lock().going.insert(id, going);
        if let Some(earlier) = earlier {
            earlier.to.say(Moving::Stays { ask: earlier.ask, why: Why::Replaced });
        }
        self.fence(peer, id);
        self.give_next(now, id);
    }

    /// Asks all peers but one whether they have everything that a session has sent until now.
    fn fence(&self, to: &Arc<Peer>, id: Id) {
        let Some(cluster) = &self.cluster else { return };
        let others = cluster.peers.load();
        let others = || others.iter().filter(|other| !Arc::ptr_eq(other, to));
        if let Some(going) = cluster.moves.state.lock().going.get_mut(&id) {
            going.fences = others().map(|other| Box::from(other.node())).collect();
            going.sent_late = false;
        }
        for other in others() {
            if !other.say(Moving::Fence { session: id }) {
                self.passed(id, other.node());
            }
        }
    }

    /// A peer has everything that a session has sent.
    pub(super) fn fenced_from(&self, now: Instant, peer: &Arc<Peer>, id: Id) {
        self.passed(id, peer.node());
        self.give_next(now, id);
    }

    fn passed(&self, id: Id, node: &str) {
        let Some(cluster) = &self.cluster else { return };
        if let Some(going) = cluster.moves.state.lock().going.get_mut(&id) {
            going.fences.remove(node);
        }
    }

    /// A part has arrived.
    pub(super) fn next_from(&self, now: Instant, peer: &Arc<Peer>, ask: u64) {
        let Some(cluster) = &self.cluster else { return };
        let id = {
            let mut state = cluster.moves.state.lock();
            let is_it = |going: &Going| going.ask == ask && Arc::ptr_eq(&going.to, peer);
            let Some((id, going)) = state.going.iter_mut().find(|(_, going)| is_it(going)) else { return };
            going.under_way = going.under_way.saturating_sub(1);
            *id
        };
        self.give_next(now, id);
    }

    /// Hands the next parts of a session over, if nothing is waited for.
    pub(super) fn give_next(&self, now: Instant, id: Id) {
        let Some(cluster) = &self.cluster else { return };
        loop {
            let (giving, session, step) = {
                let state = cluster.moves.state.lock();
                let is_due = |going: &&Going| going.fences.is_empty() && going.under_way < PARTS;
                let Some(going) = state.going.get(&id).filter(is_due) else { return };
                let giving = Giving { id, ask: going.ask, to: Arc::clone(&going.to) };
                (giving, Arc::clone(&going.session), going.step)
            };
            let (next, parts) = match self.give_step(now, &giving, &session, step) {
                Gave::Parts(next, parts) => (next, parts),
                Gave::Waits => (step, 0),
                Gave::Over => return,
                Gave::Cannot => return self.keep_after_all(now, id, Why::Unknown),
            };
            let mut state = cluster.moves.state.lock();
            let Some(going) = state.going.get_mut(&id).filter(|going| going.ask == giving.ask) else { return };
            going.step = next;
            going.under_way += parts;
            if parts == 0 && next == step {
                let asks_again = going.under_way == 0;
                going.under_way += usize::from(asks_again);
                drop(state);
                if asks_again {
                    // The answer looks again.
                    giving.part(Part::Entries(Vec::new()));
                }
                return;
            }
        }
    }

    /// Hands over what is next.
    fn give_step(&self, now: Instant, giving: &Giving, session: &Arc<Session>, step: Step) -> Gave {
        match step {
            Step::Facts => {
                let earlier = self.asked_earlier(session);
                match self.unroll(session) {
                    Unrolled::All => {}
                    Unrolled::Waits => return Gave::Waits,
                    Unrolled::Exceeds => return Gave::Cannot,
                }
                session.outbox().begin_handing();
                give_facts(now, session, &earlier, |facts| giving.part(Part::Facts(facts)));
                Gave::Parts(Step::Subscriptions(0), 1)
            }
            Step::Subscriptions(from) => {
                let holds = session.holds.lock();
                let held: Vec<_> = holds
                    .subscriptions
                    .iter()
                    .skip(from)
                    .take(SUBSCRIPTIONS)
                    .map(|it| SubscriptionFacts::of(it))
                    .collect();
                let next = match held.len() {
                    SUBSCRIPTIONS => Step::Subscriptions(from + SUBSCRIPTIONS),
                    _ => Step::Logs,
                };
                giving.part(Part::Subscriptions(held));
                Gave::Parts(next, 1)
            }
            Step::Logs => match self.give_logs(&giving.to, giving.ask, session) {
                Some(parts) => Gave::Parts(Step::Entries, parts),
                None => Gave::Cannot,
            },
            Step::Entries => self.give_entries(now, giving, session),
        }
    }

    /// Makes messages of the replays in the queue of a session: they are cursors into what this node has.
    fn unroll(&self, session: &Session) -> Unrolled {
        let outbox = session.outbox();
        // Nobody continues the session while a replay is not in its queue.
        let unrolled = session.while_away(|| {
            while let Some(mut replay) = outbox.take_to_unroll() {
                let mut frames = Vec::new();
                let is_exhausted = self.pull(&mut replay, UNROLLED, &mut frames);
                let is_waiting =
                    !is_exhausted && replay.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending();
                if !outbox.put_unrolled(frames, (!is_exhausted).then_some(replay)) {
                    return Unrolled::Exceeds;
                }
                if is_waiting {
                    return Unrolled::Waits;
                }
            }
            Unrolled::All
        });
        unrolled.unwrap_or(Unrolled::All)
    }

    /// Hands messages over: a part of them, or all that are left, and the session with them.
    fn give_entries(&self, now: Instant, giving: &Giving, session: &Arc<Session>) -> Gave {
        match session.outbox().hand_part(|entries| giving.part(Part::Entries(entries))) {
            Progress::Sent => return Gave::Parts(Step::Entries, 1),
            Progress::Restart => return Gave::Parts(Step::Facts, 0),
            Progress::Cannot => return Gave::Cannot,
            Progress::IsLast => {}
        }
        // A reply that another node expects has to find its way there from the next node, too.
        if session.turns.any_elsewhere() {
            return Gave::Cannot;
        }
        if session.is_moving() {
            // What was sent to it is still on its way. It goes on when that has arrived.
            return Gave::Over;
        }
        let Some(cluster) = &self.cluster else { return Gave::Cannot };
        let waits = session.commits.any();
        let sent_late = {
            let mut state = cluster.moves.state.lock();
            let Some(going) = state.going.get_mut(&giving.id) else { return Gave::Over };
            going.sent_late |= waits;
            going.sent_late
        };
        if sent_late && !waits {
            self.fence(&giving.to, giving.id);
        }
        if sent_late {
            // What it sent waits for the disk, or for peers that do not have it yet.
            return Gave::Waits;
        }
        match self.give_last(now, giving, session) {
            Progress::Sent => Gave::Over,
            Progress::Restart => Gave::Parts(Step::Facts, 0),
            Progress::Cannot | Progress::IsLast => Gave::Cannot,
        }
    }

    /// Hands the last part over, and the session with it.
    fn give_last(&self, now: Instant, giving: &Giving, session: &Arc<Session>) -> Progress {
        let Some(cluster) = &self.cluster else { return Progress::Cannot };
        let Giving { id, ask, to } = giving;
        let known_until = now + self.policy.resume().grace;
        let gave = self.give_away(session, (to.node(), known_until), || {
            let Some(transit) = session.transit() else { return Progress::Cannot };
            transit.go();
            let road = Road::new(to, session.leg());
            let facts = session.turns.facts();
            let turns = facts.iter().map(TurnOf::from).collect();
            let gave = session
                .outbox()
                .hand_over(road, |counts, entries| to.say(Moving::Yours { ask: *ask, counts, entries, turns }));
            if gave != Progress::Sent {
                transit.stay();
            }
            gave
        });
        if gave != Progress::Sent {
            return gave;
        }
        session.holds.lock().will = None;
        self.presence.leave(session);
        // Only now may its new node have it: there it is not at work without it.
        self.let_lease_go(session);
        let gone = Gone {
            session: Arc::clone(session),
            to: Arc::clone(to),
            follows_until: Some(now + FOLLOW_MAX),
            known_until,
            is_idle: false,
            handing: BTreeSet::new(),
            look_at: known_until,
        };
        let mut state = cluster.moves.state.lock();
        state.going.remove(id);
        state.gone.insert(session.leg(), gone);
        drop(state);
        // One may have begun or ended meanwhile.
        self.tell_turns(session);
        self.forget_first_legs(now, *id);
        self.requests.wake_before(now + FOLLOW_MAX);
        Progress::Sent
    }

    /// The session stays here, away.
    fn keep_after_all(&self, now: Instant, id: Id, why: Why) {
        let Some(cluster) = &self.cluster else { return };
        let Some(Going { ask, to, session, .. }) = cluster.moves.state.lock().going.remove(&id) else { return };
        to.say(Moving::Stays { ask, why });
        self.stays_away(now, &session);
    }

    /// A connection of this node continues the session, so it does not move.
    pub(in crate::router) fn keep_here(&self, session: &Session) {
        let Some(cluster) = &self.cluster else { return };
        let going = cluster.moves.state.lock().going.remove(session.id.as_bytes());
        if let Some(Going { ask, to, .. }) = going {
            to.say(Moving::Stays { ask, why: Why::Replaced });
        }
    }

    /// A peer is lost: sessions that it asked for stay, and nobody waits for it.
    pub(super) fn going_lost(&self, now: Instant, peer: &Arc<Peer>) {
        let Some(cluster) = &self.cluster else { return };
        let (mut lost, mut passed) = (Vec::new(), Vec::new());
        {
            let mut state = cluster.moves.state.lock();
            for (_, going) in state.going.extract_if(.., |_, it| Arc::ptr_eq(&it.to, peer)) {
                lost.push(going.session);
            }
            for (id, going) in &mut state.going {
                if going.fences.remove(peer.node()) {
                    passed.push(*id);
                }
            }
        }
        for session in &lost {
            self.stays_away(now, session);
        }
        for id in passed {
            self.give_next(now, id);
        }
    }

    /// What follows from the loss of a connection, for a session that was to move and does not.
    fn stays_away(&self, now: Instant, session: &Arc<Session>) {
        if session.is_away() {
            self.announce_state(session, false);
            self.hand_over(now, session);
            self.bound_away(now);
        }
    }
}

/// What the new node has to know of a request, if its requester can tell its answer from others.
fn question(pending: &Pending) -> Option<Question<'_>> {
    let id = pending.asker_id.as_deref()?;
    let triple = &pending.triple;
    Some(Question { id, triple: [&triple.channel, &triple.topic, &triple.subtopic] })
}

/// Hands over what a session is. `earlier`: what it has asked at other nodes.
fn give_facts(now: Instant, session: &Session, earlier: &[Unanswered], give: impl FnOnce(Facts<'_>) -> bool) {
    let holds = session.holds.lock();
    let asked = holds.asked.values().filter_map(|pending| question(pending));
    let facts = Facts {
        echo: session.echoes(),
        asleep: session.state() == command::State::Asleep,
        missed: session.has_missed(),
        since_ms: date::to_ms(session.since),
        will: holds.will.as_deref(),
        asked: asked.chain(earlier.iter().map(Unanswered::question)).collect(),
        ..session.line_facts(now)
    };
    give(facts);
}
