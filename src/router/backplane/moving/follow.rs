//! What follows a session that has moved: the events that still reach its old node.

use std::sync::Arc;
use std::time::Instant;

use super::last_of;
use super::message::{Leg, Moving};
use super::parts::{Entry, Reached};
use crate::router::Router;
use crate::router::backplane::Peer;
use crate::router::backplane::message::{Application, Id, Subscribed};
use crate::router::session::Session;

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
        peer.say(Moving::Followed { leg: session.leg(), origin: Some("") });
        drop(mark);
        self.dissolve_if_cut(now, &session);
    }

    fn gone(&self, id: Id) -> Option<Arc<Session>> {
        let state = self.cluster.as_ref()?.moves.state.lock();
        last_of(&state.gone, id).map(|(_, gone)| Arc::clone(&gone.session))
    }

    /// The session that had this leg at this peer, and arrived from there.
    pub(super) fn come_from(&self, peer: &Arc<Peer>, leg: Leg) -> Option<Arc<Session>> {
        let state = self.cluster.as_ref()?.moves.state.lock();
        state.come.get(&leg).filter(|come| Arc::ptr_eq(&come.from, peer)).map(|come| Arc::clone(&come.session))
    }

    /// From here on, the peer's events for a session go to its new node.
    pub(super) fn cut_from(&self, now: Instant, peer: &Arc<Peer>, id: Id) {
        let Some(cluster) = &self.cluster else { return };
        let (come, gone) = {
            let state = cluster.moves.state.lock();
            let gone = state.followed(id).map(|(_, gone)| (Arc::clone(&gone.session), Arc::clone(&gone.to)));
            (state.arrived(id).map(|come| Arc::clone(&come.session)), gone)
        };
        if let Some(session) = come
            && let Some(transit) = session.transit()
        {
            transit.mark(now, &session, Some(peer.node()));
            self.give_next(now, id);
        }
        if let Some((session, to)) = gone
            && let Some(transit) = session.transit()
        {
            transit.cut(Some(peer.node()));
            let is_new = Arc::ptr_eq(&to, peer);
            to.say(Moving::Followed { leg: session.leg(), origin: (!is_new).then(|| peer.node()) });
            self.dissolve_if_cut(now, &session);
        }
    }

    /// The old node of a session has relayed what it had of a node: of this one (`None`), of itself (empty), or of another.
    pub(super) fn followed_from(&self, now: Instant, peer: &Arc<Peer>, leg: Leg, origin: Option<&str>) {
        if let Some(session) = self.come_from(peer, leg)
            && let Some(transit) = session.transit()
        {
            let origin = origin.map(|origin| if origin.is_empty() { peer.node() } else { origin });
            transit.followed(now, &session, origin);
            self.give_next(now, leg.session);
        }
    }

    /// The old node of a session relays nothing more but the ends of requests.
    pub(super) fn over_from(&self, now: Instant, peer: &Arc<Peer>, leg: Leg) {
        if let Some(session) = self.come_from(peer, leg)
            && let Some(transit) = session.transit()
        {
            transit.release_all(now, &session);
            self.forget_reached_logs(&session);
            self.give_next(now, leg.session);
        }
    }

    /// A message that has reached the old node of a session.
    pub(super) fn relay_from(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        leg: Leg,
        entry: &Entry<'_>,
        place: Option<&Reached<'_>>,
    ) {
        if let Some(session) = self.come_from(peer, leg) {
            self.note_answer(leg, entry.text);
            if let (Some(place), Some(transit)) = (place, session.transit()) {
                transit.floors().raise(place.log, &place.position());
            }
            // A session that has ended receives nothing more.
            session.outbox().push_as(now, (entry.frame(), entry.on_full(), entry.kind())).ok();
        }
    }

    /// Ends what a session that has gone is here, if all nodes send its events to its new one.
    pub(super) fn dissolve_if_cut(&self, now: Instant, session: &Session) {
        let Some(cluster) = &self.cluster else { return };
        let peers = cluster.peers.load();
        let nodes = peers.iter().map(|peer| Some(peer.node())).chain([None]);
        if session.transit().is_some_and(|transit| transit.has_cut(nodes)) && self.is_past_begins(session) {
            self.dissolve(now, session.leg());
        }
    }

    /// Ends the subscriptions of a session that has gone. Its requests stay until they end.
    pub(super) fn dissolve(&self, now: Instant, leg: Leg) {
        let Some(cluster) = &self.cluster else { return };
        let (session, to) = {
            let mut state = cluster.moves.state.lock();
            let Some(gone) = state.gone.get_mut(&leg).filter(|gone| gone.follows_until.is_some()) else { return };
            gone.follows_until = None;
            (Arc::clone(&gone.session), Arc::clone(&gone.to))
        };
        // Before nothing more reaches it: what still does is relayed with its place.
        self.tell_through(&to, &session);
        let subscriptions = std::mem::take(&mut session.holds.lock().subscriptions);
        for subscription in &subscriptions {
            self.unlist(now, subscription);
        }
        self.announce_session(&session, false);
        to.say(Moving::Over { leg });
        self.hand_requests_on(leg);
        self.tell_idle(now, leg);
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
            for (leg, it) in &state.gone {
                if Arc::ptr_eq(&it.to, peer) {
                    ended.push(*leg);
                } else {
                    gone.push((*leg, Arc::clone(&it.session), Arc::clone(&it.to)));
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
        for (leg, session, to) in gone {
            let Some(transit) = session.transit().filter(|transit| transit.is_moving()) else { continue };
            transit.cut(Some(peer.node()));
            to.say(Moving::Followed { leg, origin: Some(peer.node()) });
            self.dissolve_if_cut(now, &session);
        }
        for leg in ended {
            self.ended_from(now, peer, leg);
        }
    }
}
