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
//! requests that the session sent there: those requests stay with the old node until they end. Those that it was given there
//! go to the new node (`handed`); until then, its replies to them go back.
//!
//! A session can move on, and back, before such requests have ended. What it is on one node between two moves is a [`Leg`]. Each
//! leg that has ended knows the next node, and each that began with a move the node before, so answers and replies find their
//! way along all of them. A leg is forgotten when nothing is left that needs it.
//!
//! `message` is what is said, `parts` what is handed over, `ask` the new node's part, `give` the old node's, `follow` the events that are relayed, `stayed` the
//! requests, `logs` what differs for events of channels with history, `turns` what differs for ordered handlers.

pub(in crate::router) mod message;
pub(in crate::router) mod parts;

mod ask;
mod elsewhere;
mod follow;
mod give;
mod handed;
mod logs;
mod stayed;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::Peer;
use super::message::Id;
use crate::router::Router;
use crate::router::session::Session;
use ask::Coming;
pub use ask::{Fetched, MoveTicket};
use give::Going;
use handed::Hold;
use message::{Key, Leg, Moving};
pub(in crate::router) use stayed::There;
use stayed::Unanswered;

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
    /// How many requests there are whose replies are held.
    holds: AtomicUsize,
    /// How many requests have followed their sessions here. Changed with `state.held`.
    handed: AtomicU64,
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
    /// The legs that have ended here, until no request needs them any more.
    gone: BTreeMap<Leg, Gone>,
    /// The sessions that have arrived, and from where, by the legs that ended there, until nothing is relayed any more.
    come: BTreeMap<Leg, Come>,
    /// The requests that are on their way to this node, with what their handlers have replied meanwhile: by the leg that has
    /// ended, and by the number of the id by which the session knows the request.
    held: BTreeMap<Key, Hold>,
}

/// A session that has arrived.
struct Come {
    session: Arc<Session>,
    from: Arc<Peer>,
    /// The requests whose answers are expected at its old node, or before that.
    asked: Vec<Unanswered>,
    /// No request needs its old leg any more.
    is_idle: bool,
}

/// A session that has gone.
struct Gone {
    session: Arc<Session>,
    to: Arc<Peer>,
    /// When it stops waiting for events that have to follow; `None`: it has.
    follows_until: Option<Instant>,
    /// Until when its tokens are known here.
    known_until: Instant,
    /// No request needs it any more, which its next node knows.
    is_idle: bool,
    /// The requests that are on their way to its next node, by the numbers of the ids by which the session knows them.
    handing: BTreeSet<u64>,
    /// When it is looked at next.
    look_at: Instant,
}

impl State {
    /// The leg that a session has ended here and that events still have to follow.
    fn followed(&self, session: Id) -> Option<(Leg, &Gone)> {
        last_of(&self.gone, session).filter(|(_, gone)| gone.follows_until.is_some())
    }

    /// The last arrival of a session.
    fn arrived(&self, session: Id) -> Option<&Come> {
        last_of(&self.come, session).map(|(_, come)| come)
    }
}

/// The legs of a session, from the first one.
fn of_session(session: Id) -> RangeInclusive<Leg> {
    Leg { session, number: 0 }..=Leg { session, number: u64::MAX }
}

fn last_of<T>(legs: &BTreeMap<Leg, T>, session: Id) -> Option<(Leg, &T)> {
    legs.range(of_session(session)).next_back().map(|(leg, it)| (*leg, it))
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
            Moving::Turns { leg, turns } => self.turns_from(now, peer, *leg, turns),
            Moving::Relay { leg, entry, place } => self.relay_from(now, peer, *leg, entry, place.as_ref()),
            Moving::Begins { leg, logs, is_last } => self.begins_from(now, peer, *leg, logs, *is_last),
            Moving::Through { leg, logs } => self.through_from(peer, *leg, logs),
            Moving::Cut { session } => self.cut_from(now, peer, *session),
            Moving::Followed { leg, origin } => self.followed_from(now, peer, *leg, *origin),
            Moving::Over { leg } => self.over_from(now, peer, *leg),
            Moving::Idle { leg } => self.idle_from(now, peer, *leg),
            Moving::Forgotten { leg } => self.forgotten_from(now, peer, *leg),
            Moving::Back { leg, turn, text } => self.back_from(now, peer, *leg, *turn, text),
            Moving::Cancel { leg, id } => self.cancelled_from(now, peer, *leg, id),
            Moving::Ended { leg } => self.ended_from(now, peer, *leg),
            Moving::Hold { request } => self.hold_from(now, peer, *request),
            Moving::Held { request } => self.held_from(now, peer, *request),
            Moving::Release { request } => self.release_from(now, peer, *request),
            Moving::Rebind { request, part, node } => self.rebind_from(now, peer, *request, *part, node),
            Moving::Rebound { request, part, is_done } => {
                self.rebound_from(now, peer, *request, *part, *is_done);
            }
            Moving::Handle(handle) => self.handle_from(now, peer, handle),
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
        let gone = state.gone.values().map(|gone| gone.follows_until.unwrap_or(gone.look_at));
        gone.chain(state.held.values().map(Hold::until)).min()
    }

    /// Gives up what has waited for too long.
    pub(in crate::router) fn expire_moves(&self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        let (mut follow, mut look) = (Vec::new(), Vec::new());
        for (leg, gone) in &mut cluster.moves.state.lock().gone {
            match gone.follows_until {
                Some(until) if until <= now => follow.push(*leg),
                None if gone.look_at <= now => look.push(*leg),
                Some(_) | None => {}
            }
        }
        for leg in follow {
            self.dissolve(now, leg);
        }
        for leg in look {
            self.look_at_gone(now, leg);
        }
        self.expire_held(now);
    }
}
