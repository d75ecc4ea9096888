//! The logs that a session reads that moves: each node gives its events from a place on that both know.
//!
//! The old node says where it is in each log (`Part::Logs`), and the new one follows it from there, unless it does already.
//! It says where it was when the session came (`Begins`), and holds what it delivers from then on. The old node relays events
//! until it is there too and every node has marked its link, and then says how far it was (`Through`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::message::{Leg, Moving};
use super::parts::{Part, Reached};
use crate::router::Router;
use crate::router::backplane::Peer;
use crate::router::history::Position;
use crate::router::resume::transit::Transit;
use crate::router::session::Session;

/// The logs in one message.
const LOGS: usize = 256;

/// The logs of a session that moves at most.
const LOGS_MAX: usize = 1 << 16;

/// Logs, by their keys, and an event of each.
pub(super) type Positions = Vec<(Box<str>, Position)>;

impl Router {
    /// Hands over where this node is in the logs of a session. Returns the number of parts; `None` if there are too many logs.
    pub(super) fn give_logs(&self, to: &Peer, ask: u64, session: &Session) -> Option<usize> {
        let positions = self.log_positions(session);
        if positions.len() > LOGS_MAX {
            return None;
        }
        let mut parts = 0;
        for logs in messages(&positions) {
            to.say(Moving::Part { ask, part: Part::Logs(logs) });
            parts += 1;
        }
        Some(parts)
    }

    /// How far a session has been given each of its logs.
    fn log_positions(&self, session: &Session) -> Positions {
        let Some(transit) = session.transit() else { return Positions::new() };
        let position = |key: Box<str>| {
            let position = transit.floors().beyond(&key, self.log_cursor(&key))?;
            Some((key, position))
        };
        self.logs_of(session).into_iter().filter_map(position).collect()
    }

    /// A session has arrived whose old node was there in its logs. From now on, this node follows them.
    pub(super) fn begin_logs(&self, now: Instant, from: &Peer, session: &Session, known: Positions) {
        let (Some(transit), Some(leg)) = (session.transit(), session.leg().before()) else { return };
        let mut logs = self.logs_of(session);
        let mut begins = Positions::new();
        let mut begin = |key: Box<str>, known: Option<&Position>| {
            let own = self.follow_from(now, &key, known);
            begins.extend(own.map(|own| (key, own)));
        };
        for (key, position) in known {
            transit.floors().raise(&key, &position);
            logs.remove(&key);
            begin(key, Some(&position));
        }
        for key in logs {
            begin(key, None);
        }
        for logs in messages(&begins) {
            from.say(Moving::Begins { leg, logs, is_last: false });
        }
        from.say(Moving::Begins { leg, logs: Vec::new(), is_last: true });
    }

    /// The new node of a session says where it was in its logs.
    pub(super) fn begins_from(&self, now: Instant, peer: &Arc<Peer>, leg: Leg, logs: &[Reached<'_>], is_last: bool) {
        let (Some(session), Some(cluster)) = (self.gone_to(peer, leg), &self.cluster) else { return };
        let Some(transit) = session.transit() else { return };
        transit.add_begins(logs.iter().map(|it| (it.log.into(), it.position())).collect(), is_last);
        if let Some(begins) = transit.begins() {
            // Before it is looked at: what is delivered from now on looks again.
            cluster.moves.waits_for_logs.store(true, Ordering::SeqCst);
            self.check_behind(&begins);
            self.dissolve_if_cut(now, &session);
        }
    }

    /// Whether this node has relayed the events of logs that the new node of a session does not give it.
    pub(super) fn is_past_begins(&self, session: &Session) -> bool {
        let begins = session.transit().and_then(Transit::begins);
        begins.is_some_and(|begins| begins.iter().all(|(key, position)| self.is_past(key, position)))
    }

    /// Events of logs were delivered. No lock is held.
    pub(in crate::router) fn logs_advanced(&self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        if !cluster.moves.waits_for_logs.swap(false, Ordering::SeqCst) {
            return;
        }
        let waiting: Vec<_> = {
            let state = cluster.moves.state.lock();
            let waits = state.gone.iter().filter(|(_, gone)| gone.follows_until.is_some());
            waits.map(|(_, gone)| Arc::clone(&gone.session)).collect()
        };
        for session in waiting {
            self.dissolve_if_cut(now, &session);
            if session.transit().is_some_and(|transit| transit.begins().is_some()) && !self.is_past_begins(&session) {
                cluster.moves.waits_for_logs.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Tells the new node of a session how far the session has been given its logs.
    pub(super) fn tell_through(&self, to: &Peer, session: &Session) {
        for logs in messages(&self.log_positions(session)) {
            to.say(Moving::Through { leg: session.leg(), logs });
        }
    }

    /// The old node of a session says how far the session has been given its logs.
    pub(super) fn through_from(&self, peer: &Arc<Peer>, leg: Leg, logs: &[Reached<'_>]) {
        let Some(session) = self.come_from(peer, leg) else { return };
        let Some(transit) = session.transit() else { return };
        for it in logs {
            transit.floors().raise(it.log, &it.position());
        }
    }

    /// Forgets how far the old node of a session was in logs in which this one is no longer behind.
    pub(super) fn forget_reached_logs(&self, session: &Session) {
        if let Some(transit) = session.transit() {
            transit.floors().forget_reached(|key| self.log_cursor(key));
        }
    }
}

/// What is said of logs, in several messages.
fn messages(positions: &Positions) -> impl Iterator<Item = Vec<Reached<'_>>> {
    positions.chunks(LOGS).map(|some| some.iter().map(|(key, position)| Reached::new(key, position)).collect())
}
