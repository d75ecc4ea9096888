//! A session of a peer that moves to another one, as other nodes see it: it neither leaves nor joins.

use std::sync::Arc;
use std::time::Instant;

use crate::router::Router;
use crate::router::backplane::message::{Application, Id};
use crate::router::backplane::peer::{Elsewhere, Peer};
use crate::router::presence::{Change as Presence, Who};

impl Router {
    /// A session is no longer at this peer, and has not left. The peer has yet to say what became of its requests.
    pub(super) fn moved_away(&self, now: Instant, peer: &Peer, id: Id) -> Option<Elsewhere> {
        let moved = peer.take_session(id)?;
        if let Some(stand_in) = &moved.stand_in {
            self.retire(now, peer, id, stand_in);
        }
        Some(moved)
    }

    /// A peer announces a session. Returns what others are told of it: nothing if it was known at another peer, whose news that
    /// it has moved are still under way or were lost with a link.
    pub(in crate::router::backplane) fn joined_elsewhere<'a>(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        application: &Application<'a>,
    ) -> Option<Who<'a>> {
        let peers = self.cluster.as_ref()?.peers.load();
        let id = application.session;
        let other = peers.iter().find(|other| !Arc::ptr_eq(other, peer) && other.has(id));
        match other.and_then(|other| self.moved_away(now, other, id)) {
            Some(before) => {
                self.add_elsewhere(peer, application, Some(before.number));
                None
            }
            None => self.add_elsewhere(peer, application, None),
        }
    }

    /// A session is at this peer now. `before`: what was known of it where it was. Others are told of it if that is nothing,
    /// unless it was here.
    pub(super) fn moved_here(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        (before, was_here): (Option<Elsewhere>, bool),
        application: &Application<'_>,
    ) {
        let is_known = before.is_some() || was_here;
        if let Some(who) = self.add_elsewhere(peer, application, before.map(|it| it.number))
            && !is_known
        {
            self.tell_presence_of(now, &who, Some(peer.node()), Presence::Joined);
        }
    }
}
