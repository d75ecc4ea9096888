//! Sessions that are away: a connection was lost, and the session waits for the next one.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use wire::CloseCode;

use super::kept::Kept;
use super::line::{Line, Stage};
use super::{ByTime, Known};
use crate::router::end::Ending;
use crate::router::outbox::{End, Shed};
use crate::router::session::Session;
use crate::router::{Logged, Router, SessionId};
use crate::telemetry::metrics::EvictedFor;
use crate::telemetry::recorder::What;

/// How many bytes a sweep takes from one session before it looks which one keeps most.
const SHED_BYTES: usize = 64 << 10;

/// The sessions that are away.
#[derive(Default)]
pub(super) struct Away {
    by_end: ByTime,
    by_since: ByTime,
    /// Sessions that overflowed while they were away, or have moved to another node, by the time until which their tokens are
    /// told so.
    remembered: BTreeSet<(Instant, SessionId)>,
}

/// What became of a session whose connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It has ended.
    Ended,
    /// It is away, and can return.
    Away,
    /// Another connection has it.
    Replaced,
}

/// Wakes the program when the outbox of a session that is away has ended.
struct Watch {
    kept: Arc<Kept>,
    session: SessionId,
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.kept.note_ended(self.session);
    }
}

impl Away {
    fn insert(&mut self, since: Instant, until: Instant, session: &Arc<Session>) {
        self.by_end.insert((until, session.number), Arc::clone(session));
        self.by_since.insert((since, session.number), Arc::clone(session));
    }

    pub(super) fn remove(&mut self, since: Instant, until: Instant, number: u64) {
        self.by_end.remove(&(until, number));
        self.by_since.remove(&(since, number));
    }

    fn len(&self) -> usize {
        self.by_end.len()
    }
}

impl Router {
    /// The connection with this number has ended. Its session ends or is away. `proof_ends`: when its proof ends, if it does.
    pub fn leave(
        &self,
        now: Instant,
        session: &Arc<Session>,
        attachment: u64,
        ending: Ending,
        proof_ends: Option<Instant>,
    ) -> Left {
        let ending = if session.is_revoked() { Ending::Revoked } else { ending };
        let Some(resumable) = &session.resumable else {
            self.end_session(now, session, ending);
            return Left::Ended;
        };
        let mut line = resumable.line();
        if line.attachment != attachment {
            return Left::Replaced;
        }
        let grace = self.policy.resume().grace;
        let ends = line.stage == Stage::Ended
            || !ending.leaves_away()
            || grace.is_zero()
            || session.outbox().ended().is_some()
            || session.is_revoked();
        if ends {
            line.stage = Stage::Ended;
            drop(line);
            self.end_session(now, session, ending);
            return Left::Ended;
        }
        let limited = session.outbox().take_proof_end();
        let (until, proof_ends) = match proof_ends.into_iter().chain(limited).min() {
            Some(at) if at < now + grace => (at, true),
            Some(_) | None => (now + grace, false),
        };
        self.go_away(now, session, &mut line, (until, proof_ends));
        session.outbox().go_away(now, self.watch(session));
        drop(line);
        self.note(now, session, What::State("away"));
        self.announce_state(session, false);
        self.requests.wake_before(until);
        // Nothing is held back for a session that is away.
        session.release_presence(now);
        self.hand_over(now, session);
        self.bound_away(now);
        Left::Away
    }

    /// Puts a session on the list of those that are away. `until`: when it ends, and whether its proof does.
    pub(super) fn go_away(
        &self,
        now: Instant,
        session: &Arc<Session>,
        line: &mut Line,
        (until, proof_ends): (Instant, bool),
    ) {
        line.stage = Stage::Away { since: now, until, proof_ends };
        session.set_paused(None);
        if let Some(resumable) = &session.resumable {
            resumable.set_away(Some(self.date(now)));
        }
        self.resumes.away.lock().insert(now, until, session);
    }

    /// When a session that is away ends, or something else here is due.
    pub(in crate::router) fn resume_deadline(&self) -> Option<Instant> {
        let first = self.resumes.away.lock().by_end.first_key_value().map(|((at, _), _)| *at);
        let ended = self.resumes.kept.has_ended().then(|| self.requests.started());
        first.into_iter().chain(self.resumes.kept.sweep_at()).chain(ended).min()
    }

    /// Ends the sessions whose time without a connection is over, and gives up memory if too much is kept.
    pub(in crate::router) fn expire_away(&self, now: Instant) {
        if self.resumes.kept.begin_sweep(now) {
            self.sweep();
        }
        self.look_at_ended(now);
        loop {
            let first = {
                let away = self.resumes.away.lock();
                away.by_end.first_key_value().filter(|((at, _), _)| *at <= now).map(|(_, session)| Arc::clone(session))
            };
            let Some(session) = first else { break };
            self.end_away(now, &session, |stage| match stage {
                Stage::Away { until, proof_ends, .. } if until <= now => {
                    Some(if proof_ends { Ending::ProofEnded } else { Ending::GraceOver })
                }
                Stage::Away { .. } | Stage::Present | Stage::Ended => None,
            });
        }
        self.forget_gone_tokens(now);
    }

    /// Ends the sessions that are away and whose outbox has ended, and brings their end forward if a reload has given their
    /// proof an earlier one.
    pub(in crate::router) fn look_at_ended(&self, now: Instant) {
        for id in self.resumes.kept.take_ended() {
            let session = match self.resumes.by_id.get(&id).as_deref() {
                Some(Known::Alive(session)) => Arc::clone(session),
                Some(Known::Overflowed(_) | Known::Moved(..)) | None => continue,
            };
            let ending = match session.outbox().ended() {
                Some(End::Overflowed | End::Longest) => Ending::OverflowedAway,
                Some(End::Close(..)) if session.is_revoked() => Ending::Revoked,
                Some(End::Close(code, _)) => Ending::Closed(code),
                Some(End::Kicked) => Ending::Closed(CloseCode::Kicked),
                None => {
                    self.limit_away(&session);
                    continue;
                }
                Some(End::Detached | End::Replaced | End::SentAway) => continue,
            };
            let mut until = now;
            self.end_away(now, &session, |stage| match stage {
                Stage::Away { until: end, .. } => {
                    until = end;
                    Some(ending)
                }
                Stage::Present | Stage::Ended => None,
            });
            if ending == Ending::OverflowedAway && until > now {
                self.remember(id, Known::Overflowed(until), until);
            }
        }
    }

    /// Brings the end of a session that is away forward, if its proof ends earlier.
    fn limit_away(&self, session: &Arc<Session>) {
        let Some(resumable) = &session.resumable else { return };
        let mut line = resumable.line();
        let Stage::Away { since, until, .. } = line.stage else { return };
        if let Some(at) = session.outbox().take_proof_end().filter(|at| *at < until) {
            let mut away = self.resumes.away.lock();
            away.remove(since, until, session.number);
            away.insert(since, at, session);
            line.stage = Stage::Away { since, until: at, proof_ends: true };
        }
        session.outbox().watch(self.watch(session));
    }

    /// What wakes the program when the outbox of a session that is away ends.
    pub(super) fn watch(&self, session: &Session) -> Waker {
        Waker::from(Arc::new(Watch { kept: Arc::clone(&self.resumes.kept), session: session.id }))
    }

    /// Ends a session that is away for the reason that `why` gives, which is called with what the session is.
    pub(super) fn end_away(&self, now: Instant, session: &Arc<Session>, why: impl FnOnce(Stage) -> Option<Ending>) {
        let Some(resumable) = &session.resumable else { return };
        let ending = {
            let mut line = resumable.line();
            let Some(ending) = why(line.stage) else { return };
            self.forget_away(session, &mut line);
            line.stage = Stage::Ended;
            ending
        };
        if ending == Ending::Displaced {
            self.metrics.resume_evicted.count(EvictedFor::Sessions);
        }
        if let Some(omitted) = self.count_line(now, session, Logged::EndedAway) {
            let (source, user, reason) = (session.source(), session.user(), ending.words());
            let omitted = (omitted > 0).then_some(omitted);
            tracing::info!(source, user, session = %session.id, reason, omitted, "left, without a connection");
        }
        // Nobody takes what waits.
        session.outbox().discard(End::Detached);
        self.end_session(now, session, ending);
    }

    /// Takes a session that is away off the list.
    pub(super) fn forget_away(&self, session: &Session, line: &mut Line) {
        if let (Stage::Away { since, until, .. }, Some(resumable)) = (line.stage, &session.resumable) {
            self.resumes.away.lock().remove(since, until, session.number);
            resumable.set_away(None);
        }
    }

    /// Ends the sessions that have been away for longest, while there are more than `resume.sessions`.
    pub(in crate::router) fn bound_away(&self, now: Instant) {
        loop {
            let most = self.policy.resume().sessions;
            let oldest = {
                let away = self.resumes.away.lock();
                (away.len() > most).then(|| away.by_since.first_key_value().map(|(_, it)| Arc::clone(it))).flatten()
            };
            let Some(oldest) = oldest else { break };
            self.end_away(now, &oldest, |stage| matches!(stage, Stage::Away { .. }).then_some(Ending::Displaced));
        }
    }

    /// The session that has been away for longest among those that `fits` accepts.
    pub(in crate::router) fn longest_away(&self, fits: impl Fn(&Session) -> bool) -> Option<Arc<Session>> {
        self.resumes.away.lock().by_since.values().find(|session| fits(session)).map(Arc::clone)
    }

    /// Ends a session that is away because another one needs its place.
    pub(in crate::router) fn displace(&self, now: Instant, session: &Arc<Session>) {
        self.end_away(now, session, |stage| matches!(stage, Stage::Away { .. }).then_some(Ending::Displaced));
    }

    /// Drops the oldest messages of the sessions that keep most, until the target is reached.
    fn sweep(&self) {
        let mut sizes = BinaryHeap::new();
        let mut sessions = BTreeMap::new();
        self.presence.each(|session| {
            let bytes = session.outbox().kept_bytes();
            if bytes > 0 {
                sizes.push((bytes, session.number));
                sessions.insert(session.number, Arc::clone(session));
            }
        });
        if !self.resumes.kept.is_over() {
            return;
        }
        while self.resumes.kept.is_over_target()
            && let Some((bytes, number)) = sizes.pop()
        {
            let Some(session) = sessions.get(&number) else { continue };
            let next = sizes.peek().map_or(0, |(bytes, _)| *bytes);
            match session.outbox().shed((bytes - next).max(SHED_BYTES)) {
                Shed::Keeps(left) if left > 0 => sizes.push((left, number)),
                Shed::Nothing if session.outbox().ended() == Some(End::Overflowed) => {
                    self.metrics.resume_evicted.count(EvictedFor::TotalBytes);
                }
                Shed::Keeps(_) | Shed::Nothing => {}
            }
        }
    }

    /// Remembers what became of a session that is no longer here.
    pub(super) fn remember(&self, id: SessionId, known: Known, until: Instant) {
        let most = self.policy.resume().sessions;
        let mut away = self.resumes.away.lock();
        away.remembered.insert((until, id));
        let first = (away.remembered.len() > most).then(|| away.remembered.pop_first()).flatten();
        drop(away);
        self.resumes.by_id.insert(id, known);
        if let Some((until, id)) = first {
            self.forget_remembered(id, until);
        }
    }

    /// Forgets it, unless the session is here again.
    fn forget_remembered(&self, id: SessionId, at: Instant) {
        self.resumes.by_id.remove_if(&id, |_, known| match known {
            Known::Alive(_) => false,
            Known::Overflowed(until) | Known::Moved(_, until) => *until <= at,
        });
    }

    fn forget_gone_tokens(&self, now: Instant) {
        let mut forgotten = Vec::new();
        {
            let mut away = self.resumes.away.lock();
            while let Some(first) = away.remembered.first().filter(|(until, _)| *until <= now).copied() {
                forgotten.push(first);
                away.remembered.pop_first();
            }
        }
        for (until, id) in forgotten {
            self.forget_remembered(id, until);
        }
    }

    /// Forgets the tokens of a session that has ended.
    pub(in crate::router) fn forget_tokens(&self, session: &Session) {
        if session.resumable.is_some() {
            self.resumes.by_id.remove(&session.id);
            self.forget_moved(session);
        }
    }
}
