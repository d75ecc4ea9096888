//! Sessions that move from one node to another, when their client returns there (docs/cluster.md, "Resume").
//!
//! The new node asks the old one ([`Moving::Take`]). The old node stops the session, waits until every peer has what the
//! session has sent (`Fence`), and hands it over in parts. With the last part (`Yours`) the session belongs to the new node.
//! Until then the old one keeps it, so there are never two owners: if the link breaks in between, there is one or none.
//!
//! On the new node the session is away at first. Then the Register continues as on one node: so what a client may be told,
//! and what a used token means, is decided in one place.
//!
//! Every node, the old and the new one included, then marks on its links from where on its events go to the new node
//! (`Cut`; `Transit` has the rest). What has still reached the old node is relayed, in order, and so are the answers to
//! requests that the session sent there: those requests, and those that it was given there, stay with the old node until
//! they end, and its replies to them go back.
//!
//! `message` is what is said, `ask` the new node's part, `give` the old node's, `follow` what is relayed, `logs` what differs for
//! events of channels with history, `turns` what differs for ordered handlers.

pub(in crate::router) mod message;

mod ask;
mod elsewhere;
mod follow;
mod give;
mod logs;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::Peer;
use super::message::Id;
use crate::router::Router;
use crate::router::session::Session;
use ask::Coming;
pub use ask::{Fetched, MoveTicket};
use follow::Unanswered;
use give::Going;
use message::Moving;

/// How long the old node of a session waits at most until all nodes send its events to the new one.
const FOLLOW_MAX: Duration = Duration::from_secs(5);

/// Sessions that move.
#[derive(Default)]
pub(super) struct Moves {
    /// Held for reading over the publication of an event or a presence event of this node, from the look-up of its receivers
    /// to the last push. Held for writing over a mark, so that an event is before it on every link or behind it on every link.
    steady: RwLock<()>,
    /// A session that has gone waits until this node is further in a log.
    waits_for_logs: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Questions that were asked.
    asks: u64,
    /// The sessions that this node asks for.
    coming: BTreeMap<u64, Coming>,
    /// The sessions that other nodes ask for.
    going: BTreeMap<Id, Going>,
    /// The sessions that have gone, until they hold no request any more.
    gone: BTreeMap<Id, Gone>,
    /// The sessions that have arrived, and from where, until nothing is relayed to them any more.
    come: BTreeMap<Id, Come>,
}

/// A session that has arrived.
struct Come {
    session: Arc<Session>,
    from: Arc<Peer>,
    /// The requests that its old node has to answer.
    asked: Vec<Unanswered>,
}

/// A session that has gone.
struct Gone {
    session: Arc<Session>,
    to: Arc<Peer>,
    /// When it stops waiting for events that have to follow; `None`: it has.
    follows_until: Option<Instant>,
    /// Until when its tokens are known here.
    known_until: Instant,
}

/// While this is held, no session moves past the event that is being published.
pub struct Steady<'r>(#[expect(dead_code, reason = "it is held, not read")] Option<RwLockReadGuard<'r, ()>>);

impl Router {
    /// Holds the marks of sessions that move back. A thread that holds it must not call this again, nor publish a will.
    pub fn steady(&self) -> Steady<'_> {
        Steady(self.cluster.as_ref().map(|cluster| cluster.moves.steady.read()))
    }

    /// A peer says something about a session that moves.
    pub(super) fn moving_from(&self, now: Instant, peer: &Arc<Peer>, moving: &Moving<'_>) {
        match moving {
            Moving::Take { ask, asked } => self.take_from(now, peer, *ask, asked),
            Moving::Stays { ask, why } => self.stays_from(peer, *ask, *why),
            Moving::At { ask, node } => self.at_from(peer, *ask, node),
            Moving::Fence { session } => drop(peer.say(Moving::Fenced { session: *session })),
            Moving::Fenced { session } => self.fenced_from(now, peer, *session),
            Moving::Part { ask, part } => self.part_from(now, peer, *ask, part),
            Moving::Next { ask } => self.next_from(now, peer, *ask),
            Moving::Yours { ask, counts, entries, turns } => {
                self.yours_from(now, peer, *ask, *counts, (entries, turns));
            }
            Moving::Turns { session, turns } => self.turns_from(now, peer, *session, turns),
            Moving::Relay { session, entry, place } => self.relay_from(now, peer, *session, entry, place.as_ref()),
            Moving::Begins { session, logs, is_last } => self.begins_from(now, peer, *session, logs, *is_last),
            Moving::Through { session, logs } => self.through_from(peer, *session, logs),
            Moving::Cut { session } => self.cut_from(now, peer, *session),
            Moving::Followed { session, origin } => self.followed_from(now, peer, *session, *origin),
            Moving::Over { session } => self.over_from(now, peer, *session),
            Moving::Idle { session } => self.idle_from(now, peer, *session),
            Moving::Back { session, turn, text } => self.back_from(now, peer, *session, *turn, text),
            Moving::Cancel { session, id } => self.cancelled_from(now, peer, *session, id),
            Moving::Ended { session } => self.ended_from(now, peer, *session),
        }
    }

    /// A peer is lost, or its link begins anew: nothing that was under way with it goes on.
    pub(super) fn moves_lost(&self, now: Instant, peer: &Arc<Peer>) {
        self.coming_lost(peer);
        self.going_lost(now, peer);
        self.follow_lost(now, peer);
    }

    /// When [`Router::expire_moves`] has to be called.
    pub(in crate::router) fn moves_deadline(&self) -> Option<Instant> {
        let state = self.cluster.as_ref()?.moves.state.lock();
        state.gone.values().map(|gone| gone.follows_until.unwrap_or(gone.known_until)).min()
    }

    /// Gives up what has waited for too long.
    pub(in crate::router) fn expire_moves(&self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        let (mut follow, mut forget) = (Vec::new(), Vec::new());
        for (id, gone) in &mut cluster.moves.state.lock().gone {
            match gone.follows_until {
                Some(until) if until <= now => follow.push(*id),
                None if gone.known_until <= now => forget.push(*id),
                Some(_) | None => {}
            }
        }
        for id in follow {
            self.dissolve(now, id);
        }
        for id in forget {
            self.forget_gone(now, id);
        }
    }
}
