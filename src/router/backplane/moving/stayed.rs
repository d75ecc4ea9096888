//! The requests of sessions that have moved, which stay where they were: replies go back to them, and their answers follow.
//! When none is left, the leg that they belong to is forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::message::{Leg, Moving};
use super::parts::Question;
use super::{Come, FOLLOW_MAX, Gone, of_session};
use crate::router::backplane::Peer;
use crate::router::backplane::message::Id;
use crate::router::end::Rest;
use crate::router::outbox::OnFull;
use crate::router::session::Session;
use crate::router::{RequestId, Router, SessionId};
use wire::{DecodeLimits, Envelope, ErrorCode, Refusal, Triple, decode};

/// The legs of a session that are kept on a node, though no request needs them. What was about to be given to a session in the
/// moment in which it moved still finds it, and it has long been when the session has moved that often.
const LEGS_KEPT: usize = 16;

/// The legs of a session on a node. One with this many does not move on.
const LEGS_MAX: usize = 64;

/// How often it is seen whether the requests of a leg have ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A request of a session that has arrived, whose answer its old node expects.
#[derive(Clone)]
pub(super) struct Unanswered {
    id: Box<str>,
    triple: Triple<'static>,
}

impl Unanswered {
    pub(super) fn new(question: &Question<'_>) -> Self {
        let [channel, topic, subtopic] = question.triple;
        Self { id: Box::from(question.id), triple: Triple::new(channel, topic, subtopic).to_owned() }
    }

    /// What the next node has to know of it.
    pub(super) fn question(&self) -> Question<'_> {
        Question { id: &self.id, triple: [&self.triple.channel, &self.triple.topic, &self.triple.subtopic] }
    }
}

/// Forgets a request if a message for its requester is the last answer to it.
pub(super) fn forget_answered(asked: &mut Vec<Unanswered>, text: &str) {
    if !asked.is_empty()
        && let Ok(envelope) = decode(text, DecodeLimits::OWN)
        && let Some(answered) = envelope.in_reply_to().filter(|_| !envelope.more())
    {
        asked.retain(|it| *it.id != *answered);
    }
}

/// What became of a reply to a request that a session was given where it was before.
pub(in crate::router) enum There {
    /// It was passed on, or waits for the request.
    Passed,
    /// The request may have arrived here in this moment.
    Here,
    Nobody,
}

impl Router {
    /// Where a session came from, and its leg there, if requests of it may have stayed there.
    pub(in crate::router) fn old_node(&self, session: &Session) -> Option<(Arc<Peer>, Leg)> {
        let before = session.leg().before()?;
        let state = self.cluster.as_ref()?.moves.state.lock();
        state.come.get(&before).map(|come| (Arc::clone(&come.from), before))
    }

    /// The requests that a session has sent at the nodes where it was before, as far as their answers are expected there.
    pub(super) fn asked_earlier(&self, session: &Session) -> Vec<Unanswered> {
        let (Some(cluster), Some(before)) = (&self.cluster, session.leg().before()) else { return Vec::new() };
        let state = cluster.moves.state.lock();
        state.come.get(&before).map(|come| come.asked.clone()).unwrap_or_default()
    }

    /// Whether a session that is here has left as often as it may while requests need that. It does not move on then.
    pub(super) fn legs_are_used_up(&self, session: SessionId) -> bool {
        self.resumes.is_here(session) && self.ended_legs(*session.as_bytes()).len() >= LEGS_MAX
    }

    /// The legs of a session that have ended here, the first one first.
    fn ended_legs(&self, session: Id) -> Vec<Leg> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        cluster.moves.state.lock().gone.range(of_session(session)).map(|(leg, _)| *leg).collect()
    }

    /// Forgets the legs of a session beyond those that are kept anyway, the first ones first, if no request needs them.
    pub(super) fn forget_first_legs(&self, now: Instant, session: Id) {
        let legs = self.ended_legs(session);
        let most = legs.len().saturating_sub(LEGS_KEPT);
        for leg in legs.into_iter().take(most) {
            self.forget_gone(now, leg);
        }
    }

    /// Whether a leg that has ended here has requests, here or at nodes where the session was before.
    fn is_needed(&self, session: &Session) -> bool {
        if self.is_in_flight(session) || session.turns.waiting() > 0 {
            return true;
        }
        let (Some(cluster), Some(before)) = (&self.cluster, session.leg().before()) else { return false };
        let state = cluster.moves.state.lock();
        state.is_held(before) || state.come.get(&before).is_some_and(|come| !come.is_idle)
    }

    /// Tells the next node of a leg when no request needs it any more.
    pub(super) fn tell_idle(&self, now: Instant, leg: Leg) {
        let Some(cluster) = &self.cluster else { return };
        let session = {
            let state = cluster.moves.state.lock();
            let gone = state.gone.get(&leg).filter(|gone| gone.follows_until.is_none() && !gone.is_idle);
            gone.map(|gone| Arc::clone(&gone.session))
        };
        let Some(session) = session else { return };
        let is_idle = !self.is_needed(&session);
        let to = {
            let mut state = cluster.moves.state.lock();
            let Some(gone) = state.gone.get_mut(&leg) else { return };
            gone.is_idle = is_idle;
            if !is_idle {
                gone.look_at = gone.look_at.min(now + LOOK_AGAIN);
            }
            Arc::clone(&gone.to)
        };
        if is_idle {
            to.say(Moving::Idle { leg });
        } else {
            self.requests.wake_before(now + LOOK_AGAIN);
        }
    }

    /// No request needs a leg of a session any more that has arrived from that peer.
    pub(super) fn idle_from(&self, now: Instant, peer: &Arc<Peer>, leg: Leg) {
        let (Some(session), Some(cluster)) = (self.come_from(peer, leg), &self.cluster) else { return };
        if let Some(come) = cluster.moves.state.lock().come.get_mut(&leg) {
            come.is_idle = true;
        }
        // It may have gone on.
        self.tell_idle(now, session.leg());
    }

    /// The old node of a session has forgotten that leg of it.
    pub(super) fn forgotten_from(&self, now: Instant, peer: &Arc<Peer>, leg: Leg) {
        self.over_from(now, peer, leg);
        if let (Some(session), Some(cluster)) = (self.come_from(peer, leg), &self.cluster) {
            cluster.moves.state.lock().come.remove(&leg);
            self.forget_turns(now, &session);
            self.tell_idle(now, session.leg());
        }
    }

    /// A message may be the answer to a request that the session sent where it was before.
    pub(super) fn note_answer(&self, leg: Leg, text: &str) {
        let Some(cluster) = &self.cluster else { return };
        let mut state = cluster.moves.state.lock();
        if let Some(come) = state.come.get_mut(&leg) {
            forget_answered(&mut come.asked, text);
        }
    }

    /// Looks at a leg that has ended: tells when no request needs it, and forgets it when its tokens are known no longer, too.
    pub(super) fn look_at_gone(&self, now: Instant, leg: Leg) {
        self.tell_idle(now, leg);
        let Some(cluster) = &self.cluster else { return };
        let (is_over, later) = {
            let mut state = cluster.moves.state.lock();
            let Some(gone) = state.gone.get_mut(&leg) else { return };
            let later = if gone.known_until > now {
                gone.known_until
            } else {
                now + self.policy.resume().grace.max(FOLLOW_MAX)
            };
            gone.look_at = if gone.is_idle { later } else { later.min(now + LOOK_AGAIN) };
            (gone.known_until <= now, gone.look_at)
        };
        self.requests.wake_before(later);
        if is_over {
            self.forget_gone(now, leg);
        }
    }

    /// Forgets a leg that has ended, if nothing needs it.
    fn forget_gone(&self, now: Instant, leg: Leg) {
        let Some(cluster) = &self.cluster else { return };
        let session = {
            let state = cluster.moves.state.lock();
            let is_way = leg.before().is_some_and(|before| state.come.contains_key(&before) || state.is_held(before));
            let gone = state.gone.get(&leg).filter(|gone| gone.follows_until.is_none() && !is_way);
            gone.map(|gone| Arc::clone(&gone.session))
        };
        let Some(session) = session.filter(|session| session.turns.waiting() == 0) else { return };
        if !session.holds.lock().close_if_idle() {
            return;
        }
        let gone = cluster.moves.state.lock().gone.remove(&leg);
        for (pending, handler) in session.turns.close(&self.requests) {
            self.handler_left(now, &pending, &handler);
        }
        if let Some(Gone { to, .. }) = gone {
            to.say(Moving::Forgotten { leg });
        }
    }

    /// A session has ended that has arrived from another node.
    pub(in crate::router) fn forget_moved(&self, session: &Session) {
        let (Some(cluster), Some(before)) = (&self.cluster, session.leg().before()) else { return };
        let come = cluster.moves.state.lock().come.remove(&before);
        if let Some(Come { from, .. }) = come {
            from.say(Moving::Ended { leg: before });
        }
    }

    /// A session that has gone to this peer has ended there.
    pub(super) fn ended_from(&self, now: Instant, peer: &Arc<Peer>, leg: Leg) {
        let Some(cluster) = &self.cluster else { return };
        self.dissolve(now, leg);
        let gone = {
            let mut state = cluster.moves.state.lock();
            let is_it = state.gone.get(&leg).is_some_and(|gone| Arc::ptr_eq(&gone.to, peer));
            is_it.then(|| state.gone.remove(&leg)).flatten()
        };
        if let Some(Gone { session, .. }) = gone {
            self.end_gone(now, &session);
        }
    }

    /// Ends the requests of a session that has gone and has ended where it went, here and where it was before.
    fn end_gone(&self, now: Instant, session: &Arc<Session>) {
        let (given, asked) = {
            let mut holds = session.holds.lock();
            holds.close();
            (holds.given_in_order(), holds.asked.values().cloned().collect())
        };
        let waited = session.turns.close(&self.requests);
        self.end_requests(now, session, Rest { waited, given, asked });
        self.resumes.forget_moved(session.id);
        self.forget_moved(session);
    }

    /// A session replies where it is now to a request that it was given in this leg or before.
    pub(super) fn back_from(&self, now: Instant, peer: &Arc<Peer>, leg: Leg, turn: Option<u64>, text: &str) {
        let Some(session) = self.gone_to(peer, leg) else { return };
        let Ok(envelope) = decode(text, DecodeLimits::OWN) else { return };
        if let Some(turn) = turn {
            self.reply_in_turn(now, &session, RequestId::from_number(turn), &envelope);
            return self.tell_turns(&session);
        }
        if let Err(refusal) = self.reply(now, &session, &envelope) {
            let frame = wire::notice::error(envelope.id(), &refusal);
            session.push(now, frame.into(), OnFull::Close).ok();
        }
        // A reply that was owed has ended its turn.
        self.tell_turns(&session);
    }

    /// A session that has gone cancels a request that it sent here.
    pub(super) fn cancelled_from(&self, now: Instant, peer: &Arc<Peer>, leg: Leg, request: &str) {
        if let Some(session) = self.gone_to(peer, leg) {
            // It has ended, and its answer is on its way.
            self.cancel(now, &session, request).ok();
        }
    }

    /// The session whose leg has ended here and that went to this peer.
    pub(super) fn gone_to(&self, peer: &Arc<Peer>, leg: Leg) -> Option<Arc<Session>> {
        let state = self.cluster.as_ref()?.moves.state.lock();
        state.gone.get(&leg).filter(|gone| Arc::ptr_eq(&gone.to, peer)).map(|gone| Arc::clone(&gone.session))
    }

    /// Passes a reply to a request on that the session was given where it was before.
    /// `was_held`: it has waited until that request was here, and it is not. `handed`: what [`Router::handed_requests`] was
    /// before the session was found not to have it.
    ///
    /// # Errors
    /// What [`Router::hold_reply`] refuses.
    pub(in crate::router) fn reply_there(
        &self,
        session: &Session,
        envelope: &Envelope<'_>,
        (was_held, handed): (bool, u64),
    ) -> Result<There, Refusal> {
        let (Some(cluster), Some(leg)) = (&self.cluster, session.leg().before()) else { return Ok(There::Nobody) };
        // Held until it is said, so that nothing goes back behind the word that replies are held.
        let mut state = cluster.moves.state.lock();
        if !was_held && state.hold(leg, envelope)? {
            return Ok(There::Passed);
        }
        if cluster.moves.handed.load(Ordering::Acquire) != handed {
            return Ok(There::Here);
        }
        let come = state.come.get(&leg);
        let is_passed = come.is_some_and(|come| come.from.say(Moving::Back { leg, turn: None, text: envelope.text() }));
        Ok(if is_passed { There::Passed } else { There::Nobody })
    }

    /// Cancels a request that the session sent where it was before. Returns `false` if there is none.
    pub(in crate::router) fn cancel_there(&self, session: &Session, id: &str) -> bool {
        let Some((old, leg)) = self.old_node(session) else { return false };
        old.say(Moving::Cancel { leg, id })
    }

    /// Whether something has yet to follow a session that has gone.
    pub(in crate::router) fn is_followed(&self) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let gone: Vec<_> = {
            let state = cluster.moves.state.lock();
            if state.gone.values().any(|gone| gone.follows_until.is_some()) {
                return true;
            }
            state.gone.values().map(|gone| Arc::clone(&gone.session)).collect()
        };
        gone.iter().any(|session| self.is_needed(session))
    }

    /// Cancels all requests of sessions that have gone, because the broker shuts down.
    pub fn give_up_gone(&self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        let gone: Vec<_> = cluster.moves.state.lock().gone.values().map(|gone| Arc::clone(&gone.session)).collect();
        for session in &gone {
            self.give_up_all(now, session);
        }
    }

    /// The old node of a session is lost, and with it the answers to these requests.
    pub(super) fn fail_asked(&self, now: Instant, session: &Session, asked: &[Unanswered]) {
        for Unanswered { id, triple } in asked {
            let words = "the node that expected the answer was lost; it is not known whether the request was handled";
            let refusal = Refusal::new(ErrorCode::HandlerGone, words);
            let frame = self.failure(triple, Some(id), &refusal);
            // A session that has ended receives nothing more.
            session.push(now, frame, OnFull::Close).ok();
        }
    }
}
