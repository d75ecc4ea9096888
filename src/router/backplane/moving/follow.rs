//! What follows a session that has moved: events that still reach its old node, and the ends of its requests.

use std::sync::Arc;
use std::time::Instant;

use super::message::{Entry, Moving, Question, Reached};
use super::{Come, Gone};
use crate::router::backplane::Peer;
use crate::router::backplane::message::{Application, Id, Subscribed};
use crate::router::outbox::OnFull;
use crate::router::session::Session;
use crate::router::{RequestId, Router};
use wire::{DecodeLimits, Envelope, ErrorCode, Refusal, Triple, decode};

/// A request of a session that has arrived, whose answer its old node expects.
pub(super) struct Unanswered {
    id: Box<str>,
    triple: Triple<'static>,
}

impl Unanswered {
    pub(super) fn new(question: &Question<'_>) -> Self {
        let [channel, topic, subtopic] = question.triple;
        Self { id: Box::from(question.id), triple: Triple::new(channel, topic, subtopic).to_owned() }
    }
}

impl Router {
    /// A session has arrived at a peer from another node, which may be this one: it has not left, and this node's events go to
    /// its new node from now on.
    pub(in crate::router::backplane) fn moved_elsewhere(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        from: &str,
        (application, subscribed): (&Application<'_>, &[Subscribed<'_>]),
    ) {
        let Some(cluster) = &self.cluster else { return };
        let id = application.session;
        let mark = cluster.moves.steady.write();
        let old = cluster.peer(from);
        let gone = self.gone(id).filter(|_| self.resumes.is_own_node(from));
        let before = old.as_ref().and_then(|old| self.moved_away(now, old, id));
        self.moved_here(now, peer, (before, gone.is_some()), application);
        for subscribed in subscribed {
            self.subscribed_elsewhere(now, peer, subscribed);
        }
        // Under the lock under which changes are told, so that the mark has the same place among them.
        self.while_nothing_changes(|| {
            peer.say(Moving::Cut { session: id });
            if gone.is_none()
                && let Some(old) = &old
            {
                old.say(Moving::Cut { session: id });
            }
        });
        let Some(session) = gone else { return };
        let Some(transit) = session.transit() else { return };
        // What this node has sent for the session is relayed already.
        transit.cut(None);
        transit.set_past();
        peer.say(Moving::Followed { session: id, origin: Some("") });
        drop(mark);
        self.dissolve_if_cut(now, id, &session);
    }

    fn gone(&self, id: Id) -> Option<Arc<Session>> {
        let state = self.cluster.as_ref()?.moves.state.lock();
        state.gone.get(&id).map(|gone| Arc::clone(&gone.session))
    }

    fn come(&self, id: Id) -> Option<(Arc<Session>, Arc<Peer>)> {
        let state = self.cluster.as_ref()?.moves.state.lock();
        state.come.get(&id).map(|come| (Arc::clone(&come.session), Arc::clone(&come.from)))
    }

    /// A session that has arrived from this peer.
    pub(super) fn come_from(&self, peer: &Arc<Peer>, id: Id) -> Option<Arc<Session>> {
        self.come(id).filter(|(_, from)| Arc::ptr_eq(from, peer)).map(|(session, _)| session)
    }

    /// The node from which a session has arrived and that still has requests of it.
    pub(in crate::router) fn old_node(&self, session: &Session) -> Option<Arc<Peer>> {
        self.come(*session.id.as_bytes()).map(|(_, from)| from)
    }

    /// From here on, the peer's events for a session go to its new node.
    pub(super) fn cut_from(&self, now: Instant, peer: &Arc<Peer>, id: Id) {
        if let Some((session, _)) = self.come(id)
            && let Some(transit) = session.transit()
        {
            transit.mark(now, &session, Some(peer.node()));
            self.give_next(now, id);
        }
        let gone = {
            let Some(cluster) = &self.cluster else { return };
            let state = cluster.moves.state.lock();
            state.gone.get(&id).map(|gone| (Arc::clone(&gone.session), Arc::clone(&gone.to)))
        };
        if let Some((session, to)) = gone
            && let Some(transit) = session.transit()
        {
            transit.cut(Some(peer.node()));
            let is_new = Arc::ptr_eq(&to, peer);
            to.say(Moving::Followed { session: id, origin: (!is_new).then(|| peer.node()) });
            self.dissolve_if_cut(now, id, &session);
        }
    }

    /// The old node of a session has relayed what it had of a node: of this one (`None`), of itself (empty), or of another.
    pub(super) fn followed_from(&self, now: Instant, peer: &Arc<Peer>, id: Id, origin: Option<&str>) {
        if let Some(session) = self.come_from(peer, id)
            && let Some(transit) = session.transit()
        {
            let origin = origin.map(|origin| if origin.is_empty() { peer.node() } else { origin });
            transit.followed(now, &session, origin);
            self.give_next(now, id);
        }
    }

    /// The old node of a session relays nothing more but the ends of requests.
    pub(super) fn over_from(&self, now: Instant, peer: &Arc<Peer>, id: Id) {
        if let Some(session) = self.come_from(peer, id)
            && let Some(transit) = session.transit()
        {
            transit.release_all(now, &session);
            self.forget_reached_logs(&session);
            self.give_next(now, id);
        }
    }

    /// The old node of a session has forgotten it.
    pub(super) fn idle_from(&self, now: Instant, peer: &Arc<Peer>, id: Id) {
        self.over_from(now, peer, id);
        if let (Some(session), Some(cluster)) = (self.come_from(peer, id), &self.cluster) {
            cluster.moves.state.lock().come.remove(&id);
            self.forget_turns(now, &session);
        }
    }

    /// A message that has reached the old node of a session.
    pub(super) fn relay_from(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        id: Id,
        entry: &Entry<'_>,
        place: Option<&Reached<'_>>,
    ) {
        if let Some(session) = self.come_from(peer, id) {
            self.note_answer(id, entry.text);
            if let (Some(place), Some(transit)) = (place, session.transit()) {
                transit.floors().raise(place.log, &place.position());
            }
            // A session that has ended receives nothing more.
            session.outbox().push_as(now, (entry.frame(), entry.on_full(), entry.kind())).ok();
        }
    }

    /// A message may be the answer to a request that the session sent at its old node.
    fn note_answer(&self, id: Id, text: &str) {
        let Some(cluster) = &self.cluster else { return };
        let mut state = cluster.moves.state.lock();
        let Some(come) = state.come.get_mut(&id).filter(|come| !come.asked.is_empty()) else { return };
        if let Ok(envelope) = decode(text, DecodeLimits::OWN)
            && let Some(answered) = envelope.in_reply_to().filter(|_| !envelope.more())
        {
            come.asked.retain(|it| *it.id != *answered);
        }
    }

    /// Ends what a session that has gone is here, if all nodes send its events to its new one.
    pub(super) fn dissolve_if_cut(&self, now: Instant, id: Id, session: &Session) {
        let Some(cluster) = &self.cluster else { return };
        let peers = cluster.peers.load();
        let nodes = peers.iter().map(|peer| Some(peer.node())).chain([None]);
        if session.transit().is_some_and(|transit| transit.has_cut(nodes)) && self.is_past_begins(session) {
            self.dissolve(now, id);
        }
    }

    /// Ends the subscriptions of a session that has gone. Its requests stay until they end.
    pub(super) fn dissolve(&self, now: Instant, id: Id) {
        let Some(cluster) = &self.cluster else { return };
        let (session, to) = {
            let mut state = cluster.moves.state.lock();
            let Some(gone) = state.gone.get_mut(&id).filter(|gone| gone.follows_until.is_some()) else { return };
            gone.follows_until = None;
            (Arc::clone(&gone.session), Arc::clone(&gone.to))
        };
        self.requests.wake_before(now + self.policy.resume().grace);
        // Before nothing more reaches it: what still does is relayed with its place.
        self.tell_through(&to, &session);
        let subscriptions = std::mem::take(&mut session.holds.lock().subscriptions);
        for subscription in &subscriptions {
            self.unlist(now, subscription);
        }
        self.announce_session(&session, false);
        to.say(Moving::Over { session: id });
    }

    /// Forgets a session that has gone, when its tokens are known no longer and it holds no request.
    pub(super) fn forget_gone(&self, now: Instant, id: Id) {
        let Some(cluster) = &self.cluster else { return };
        let later = now + self.policy.resume().grace.max(super::FOLLOW_MAX);
        let gone = {
            let mut state = cluster.moves.state.lock();
            let Some(gone) = state.gone.get_mut(&id) else { return };
            if self.is_in_flight(&gone.session) || gone.session.turns.waiting() > 0 {
                gone.known_until = later;
                None
            } else {
                state.gone.remove(&id)
            }
        };
        match gone {
            Some(Gone { session, to, .. }) => {
                session.holds.lock().close();
                for (pending, handler) in session.turns.close(&self.requests) {
                    self.handler_left(now, &pending, &handler);
                }
                to.say(Moving::Idle { session: id });
            }
            None => self.requests.wake_before(later),
        }
    }

    /// A session has ended that has arrived from another node.
    pub(in crate::router) fn forget_moved(&self, session: &Session) {
        let Some(cluster) = &self.cluster else { return };
        let id = *session.id.as_bytes();
        let mut state = cluster.moves.state.lock();
        let is_it = state.come.get(&id).is_some_and(|come| come.session.number == session.number);
        let come = is_it.then(|| state.come.remove(&id)).flatten();
        drop(state);
        if let Some(Come { from, .. }) = come {
            from.say(Moving::Ended { session: id });
        }
    }

    /// A session that has gone to this peer has ended there.
    pub(super) fn ended_from(&self, now: Instant, peer: &Arc<Peer>, id: Id) {
        let Some(cluster) = &self.cluster else { return };
        self.dissolve(now, id);
        let gone = {
            let mut state = cluster.moves.state.lock();
            let is_it = state.gone.get(&id).is_some_and(|gone| Arc::ptr_eq(&gone.to, peer));
            is_it.then(|| state.gone.remove(&id)).flatten()
        };
        if let Some(Gone { session, .. }) = gone {
            self.end_gone(now, &session);
        }
    }

    /// Ends the requests of a session that has gone and has ended where it went.
    fn end_gone(&self, now: Instant, session: &Arc<Session>) {
        let (given, asked) = {
            let mut holds = session.holds.lock();
            holds.close();
            (holds.given_in_order(), holds.asked.values().cloned().collect::<Vec<_>>())
        };
        for (pending, handler) in session.turns.close(&self.requests) {
            self.handler_left(now, &pending, &handler);
        }
        for pending in given {
            self.handler_gone(now, &pending, session);
        }
        for pending in asked {
            if let Some(gather) = &pending.gather {
                gather.cancel();
            }
            self.withdraw(now, &pending, "the requester left");
        }
        self.resumes.forget_moved(session.id);
    }

    /// A session that has gone replies to a request that it was given here.
    pub(super) fn back_from(&self, now: Instant, peer: &Arc<Peer>, id: Id, turn: Option<u64>, text: &str) {
        let Some(session) = self.gone_to(peer, id) else { return };
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
    pub(super) fn cancelled_from(&self, now: Instant, peer: &Arc<Peer>, id: Id, request: &str) {
        if let Some(session) = self.gone_to(peer, id) {
            // It has ended, and its answer is on its way.
            self.cancel(now, &session, request).ok();
        }
    }

    pub(super) fn gone_to(&self, peer: &Arc<Peer>, id: Id) -> Option<Arc<Session>> {
        let state = self.cluster.as_ref()?.moves.state.lock();
        state.gone.get(&id).filter(|gone| Arc::ptr_eq(&gone.to, peer)).map(|gone| Arc::clone(&gone.session))
    }

    /// Passes a reply to a request on that the session was given at its old node. Returns `false` if there is none.
    pub(in crate::router) fn reply_there(&self, session: &Session, envelope: &Envelope<'_>) -> bool {
        let Some(old) = self.old_node(session) else { return false };
        old.say(Moving::Back { session: *session.id.as_bytes(), turn: None, text: envelope.text() })
    }

    /// Cancels a request that the session sent at its old node. Returns `false` if there is none.
    pub(in crate::router) fn cancel_there(&self, session: &Session, id: &str) -> bool {
        let Some(old) = self.old_node(session) else { return false };
        old.say(Moving::Cancel { session: *session.id.as_bytes(), id })
    }

    /// Whether something has yet to follow a session that has gone.
    pub(in crate::router) fn is_followed(&self) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let state = cluster.moves.state.lock();
        let has_requests = |session: &Session| self.is_in_flight(session) || session.turns.waiting() > 0;
        state.gone.values().any(|gone| gone.follows_until.is_some() || has_requests(&gone.session))
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
    fn fail_asked(&self, now: Instant, session: &Session, asked: &[Unanswered]) {
        for Unanswered { id, triple } in asked {
            let words = "the node that expected the answer was lost; it is not known whether the request was handled";
            let refusal = Refusal::new(ErrorCode::HandlerGone, words);
            let frame = self.failure(triple, Some(id), &refusal);
            // A session that has ended receives nothing more.
            session.push(now, frame, OnFull::Close).ok();
        }
    }

    /// A peer is lost. Events of it and for it do not follow any more.
    pub(super) fn follow_lost(&self, now: Instant, peer: &Arc<Peer>) {
        let Some(cluster) = &self.cluster else { return };
        let (mut come, mut gone, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut state = cluster.moves.state.lock();
            come.extend(
                state.come.values().map(|it| (Arc::clone(&it.session), Vec::new(), Arc::ptr_eq(&it.from, peer))),
            );
            for (id, it) in &state.gone {
                if Arc::ptr_eq(&it.to, peer) {
                    ended.push(*id);
                } else {
                    gone.push((*id, Arc::clone(&it.session), Arc::clone(&it.to)));
                }
            }
            for (_, it) in state.come.extract_if(.., |_, it| Arc::ptr_eq(&it.from, peer)) {
                come.push((it.session, it.asked, true));
            }
        }
        for (session, asked, is_old) in come {
            let Some(transit) = session.transit() else { continue };
            match is_old {
                true => {
                    transit.release_all(now, &session);
                    self.fail_asked(now, &session, &asked);
                    self.forget_turns(now, &session);
                }
                false => transit.release(now, &session, Some(peer.node())),
            }
            self.give_next(now, *session.id.as_bytes());
        }
        for (id, session, to) in gone {
            let Some(transit) = session.transit().filter(|transit| transit.is_moving()) else { continue };
            transit.cut(Some(peer.node()));
            to.say(Moving::Followed { session: id, origin: Some(peer.node()) });
            self.dissolve_if_cut(now, id, &session);
        }
        for id in ended {
            self.ended_from(now, peer, id);
        }
    }
}
