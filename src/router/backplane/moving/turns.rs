//! The turns of ordered handlers of a session that has moved: requests that its old node has keep theirs, and those that wait
//! there get theirs from that node. The new node keeps all others waiting meanwhile.

use std::sync::Arc;
use std::time::Instant;

use super::message::{Leg, Moving};
use super::parts::TurnOf;
use crate::router::backplane::Peer;
use crate::router::resume::transit::Transit;
use crate::router::session::Session;
use crate::router::{RequestId, Router};
use wire::Envelope;

impl Router {
    /// A turn of a session has begun or is over. If the session has gone, its new node is told which turns it has.
    pub(in crate::router) fn tell_turns(&self, session: &Session) {
        if !session.transit().is_some_and(Transit::has_gone) || !session.turns.are_used() {
            return;
        }
        let (Some(cluster), leg) = (&self.cluster, session.leg()) else { return };
        let to = cluster.moves.state.lock().gone.get(&leg).map(|gone| Arc::clone(&gone.to));
        if let Some(to) = to {
            let facts = session.turns.facts();
            to.say(Moving::Turns { leg, turns: facts.iter().map(TurnOf::from).collect() });
        }
    }

    /// Begins with the turns that a session has at its old node, or goes on with those that are left.
    pub(super) fn set_turns(&self, now: Instant, session: &Arc<Session>, turns: &[TurnOf<'_>]) {
        let facts = turns.iter().map(TurnOf::fact).collect();
        session.turns.set_elsewhere(now, &self.requests, facts, || self.ids.serial());
        self.serve_turns(now, session);
    }

    /// The old node of a session says which turns its requests have.
    pub(super) fn turns_from(&self, now: Instant, peer: &Arc<Peer>, leg: Leg, turns: &[TurnOf<'_>]) {
        if let Some(session) = self.come_from(peer, leg) {
            self.set_turns(now, &session, turns);
        }
    }

    /// The old node of a session expects no reply of it any more.
    pub(super) fn forget_turns(&self, now: Instant, session: &Arc<Session>) {
        session.turns.forget_elsewhere(&self.requests);
        self.serve_turns(now, session);
    }

    /// Passes the reply on whose turn it is. Returns `false` if the old node of the session has forgotten it.
    pub(in crate::router) fn reply_turn_there(
        &self,
        session: &Session,
        id: RequestId,
        envelope: &Envelope<'_>,
    ) -> bool {
        let Some((old, leg)) = self.old_node(session) else { return false };
        if !envelope.more() {
            session.turns.replied_elsewhere(id);
        }
        let turn = Some(id.number());
        old.say(Moving::Back { leg, turn, text: envelope.text() })
    }
}
