//! Sessions that move between nodes, as far as tokens, connections and grace are concerned. The rest is in
//! `backplane/moving`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::line::{Allowances, Line, Stage};
use super::token::{Token, TokenKey, Tokens};
use super::{Known, Resumable, Resumes};
use crate::router::backplane::moving::message::{Leg, Why};
use crate::router::backplane::moving::parts::{Allowed, Counts, Facts};
use crate::router::end::Ending;
use crate::router::outbox::moving::{Progress, Waiting};
use crate::router::outbox::{End, Window};
use crate::router::session::Session;
use crate::router::{Router, SessionId};

/// A session that this node has, and that has no connection any more.
pub(in crate::router) struct HeldHere {
    pub(in crate::router) session: Arc<Session>,
    /// It had one until now.
    pub(in crate::router) went_away: bool,
}

/// Why a session cannot be taken from this node.
pub(in crate::router) enum NotHere {
    /// It has moved to this node.
    At(Arc<str>),
    Why(Why),
}

/// What this node has to go on with.
#[derive(Clone, Copy)]
pub(in crate::router) struct Arrival {
    moves: u64,
    received: u64,
    tokens: Tokens,
    allowance: Option<Allowances>,
}

impl Arrival {
    pub(in crate::router) fn new(now: Instant, facts: &Facts<'_>) -> Self {
        let at = |(allowed, ago): Allowed| (allowed, now.checked_sub(Duration::from_millis(ago)).unwrap_or(now));
        let allowance =
            facts.allowance.map(|(messages, bytes)| Allowances { messages: at(messages), bytes: bytes.map(at) });
        // A peer counts right. If one does not, the session can be confused with what it was before, and nothing else.
        let moves = facts.moves.saturating_add(1);
        Self { moves, received: facts.received, tokens: Tokens::moved(facts.newest, facts.previous), allowance }
    }
}

impl Resumes {
    /// Makes tokens that every node of a cluster reads.
    pub(in crate::router) fn share(&mut self, node: &str, start: [u8; 16], keys: &[Zeroizing<[u8; 32]>]) {
        self.key = TokenKey::shared(node, start, keys);
    }

    /// Whether this is the name of this node.
    pub(in crate::router) fn is_own_node(&self, node: &str) -> bool {
        self.key.node().is_some_and(|own| **own == *node)
    }

    /// The session of a token that is not here, and the node that has it or knows where it is.
    pub(in crate::router) fn elsewhere(&self, token: &str) -> Option<(Token, Arc<str>)> {
        let (token, node) = self.key.read_with_node(token)?;
        let alive = match self.by_id.get(&token.session).as_deref() {
            Some(Known::Alive(session)) => Some(Arc::clone(session)),
            Some(Known::Overflowed(_) | Known::Moved(..)) | None => None,
        };
        if let Some(resumable) = alive.as_ref().and_then(|session| session.resumable.as_ref()) {
            // It may be given away at this moment: while the line is held, it is either here or known to be elsewhere.
            drop(resumable.line());
        }
        match self.by_id.get(&token.session).as_deref() {
            Some(Known::Alive(_) | Known::Overflowed(_)) => None,
            Some(Known::Moved(node, _)) => Some((token, Arc::clone(node))),
            None => node.filter(|node| !self.is_own_node(node)).map(|node| (token, Arc::from(node))),
        }
    }

    /// Whether this node has a session.
    pub(in crate::router) fn is_here(&self, session: SessionId) -> bool {
        matches!(self.by_id.get(&session).as_deref(), Some(Known::Alive(_)))
    }

    /// Makes a session resumable that comes from another node, and that nobody else knows yet.
    pub(in crate::router) fn adopt(
        &self,
        now: Instant,
        session: &mut Session,
        arrival: Arrival,
        (counts, entries): (Counts, Vec<Waiting>),
    ) {
        session.outbox().adopt(now, Window::new(Arc::clone(&self.kept)), counts, entries);
        let Arrival { moves, received, tokens, allowance } = arrival;
        let line = Line { attachment: self.attachment(), received, tokens, stage: Stage::Present, allowance };
        session.resumable = Some(Box::new(Resumable::with(line, moves)));
    }

    /// Forgets where a session is that has moved.
    pub(in crate::router) fn forget_moved(&self, session: SessionId) {
        self.by_id.remove_if(&session, |_, known| matches!(known, Known::Moved(..)));
    }
}

impl Router {
    /// The broker drains. Sessions that do not return are ended by that, so their wills are not published.
    pub fn set_draining(&self) {
        self.resumes.is_draining.store(true, Ordering::Release);
    }

    /// Whether a session that ends for this reason ends because the broker drains.
    pub(in crate::router) fn ends_by_drain(&self, ending: Ending) -> bool {
        self.resumes.is_draining.load(Ordering::Acquire) && ending == Ending::GraceOver
    }

    /// Whether another node may yet take over a session of this one, or something has to follow one that has gone.
    pub fn has_sessions_to_move(&self) -> bool {
        self.resumes.by_id.iter().any(|known| matches!(*known, Known::Alive(_))) || self.is_followed()
    }

    /// Makes the tokens of its sessions known to every node of a cluster. `keys`: the first one seals, all open.
    #[must_use]
    pub fn with_node(mut self, node: &str, keys: &[Zeroizing<[u8; 32]>]) -> Self {
        let start = self.ids.start();
        self.resumes.share(node, start, keys);
        self
    }

    /// Takes the connection from a session with which another node wants to continue. `fits`: whether the client there is
    /// the same.
    ///
    /// # Errors
    /// Where the session is instead, or why it stays. Nothing has changed then.
    pub(in crate::router) fn stop(
        &self,
        now: Instant,
        id: SessionId,
        token: u64,
        fits: impl FnOnce(&Session) -> bool,
    ) -> Result<HeldHere, NotHere> {
        let session = match self.resumes.by_id.get(&id).as_deref() {
            Some(Known::Alive(session)) => Arc::clone(session),
            Some(Known::Moved(node, until)) if *until > now => return Err(NotHere::At(Arc::clone(node))),
            Some(Known::Overflowed(until)) if *until > now => return Err(NotHere::Why(Why::Overflowed)),
            Some(Known::Overflowed(_) | Known::Moved(..)) | None => return Err(NotHere::Why(Why::Unknown)),
        };
        let Some(resumable) = &session.resumable else { return Err(NotHere::Why(Why::Unknown)) };
        let mut line = resumable.line();
        match (line.stage, session.outbox().ended()) {
            (Stage::Away { .. }, Some(End::Overflowed)) => return Err(NotHere::Why(Why::Overflowed)),
            (Stage::Ended, _) | (_, Some(_)) => return Err(NotHere::Why(Why::Unknown)),
            (Stage::Present | Stage::Away { .. }, None) => {}
        }
        {
            let _holds = session.holds.lock();
            if session.is_revoked() || !fits(&session) {
                return Err(NotHere::Why(Why::Identity));
            }
        }
        if !line.tokens.is_valid(token) {
            return Err(NotHere::Why(Why::Replaced));
        }
        let went_away = line.stage == Stage::Present;
        if went_away {
            line.attachment = self.resumes.attachment();
            session.outbox().replace_taker();
            let until = now + self.policy.resume().grace;
            self.go_away(now, &session, &mut line, (until, false));
            session.outbox().go_away(now, self.watch(&session));
        }
        drop(line);
        session.release_presence(now);
        Ok(HeldHere { session, went_away })
    }

    /// Gives a session that is away to another node with `give`. Until then no connection can continue it here, and
    /// afterwards this node knows where it is.
    pub(in crate::router) fn give_away(
        &self,
        session: &Arc<Session>,
        (node, known_until): (&str, Instant),
        give: impl FnOnce() -> Progress,
    ) -> Progress {
        let Some(resumable) = &session.resumable else { return Progress::Cannot };
        let mut line = resumable.line();
        let is_away = matches!(line.stage, Stage::Away { .. });
        if !is_away || session.outbox().ended().is_some() || session.is_revoked() {
            return Progress::Cannot;
        }
        let gave = give();
        if gave == Progress::Sent {
            self.forget_away(session, &mut line);
            line.stage = Stage::Ended;
            self.remember(session.id, Known::Moved(Arc::from(node), known_until), known_until);
        }
        gave
    }

    /// A session has arrived from another node. It is away until its client continues it. `proof_ends`: when its proof does.
    pub(in crate::router) fn begin_away(&self, now: Instant, session: &Arc<Session>, proof_ends: Option<Instant>) {
        let Some(resumable) = &session.resumable else { return };
        let over = now + self.policy.resume().grace;
        let until = proof_ends.map_or((over, false), |at| if at < over { (at, true) } else { (over, false) });
        let mut line = resumable.line();
        self.go_away(now, session, &mut line, until);
        session.outbox().watch(self.watch(session));
        self.resumes.by_id.insert(session.id, Known::Alive(Arc::clone(session)));
    }
}

impl Session {
    /// What it is on this node, as other nodes call it.
    pub(in crate::router) fn leg(&self) -> Leg {
        Leg { session: *self.id.as_bytes(), number: self.resumable.as_ref().map_or(0, |it| it.moves) }
    }

    /// Calls `act` if the session is away. No connection continues it meanwhile.
    pub(in crate::router) fn while_away<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let line = self.resumable.as_ref()?.line();
        matches!(line.stage, Stage::Away { .. }).then(act)
    }

    /// What another node has to know of the connections that it had.
    pub(in crate::router) fn line_facts(&self, now: Instant) -> Facts<'static> {
        let Some(resumable) = &self.resumable else { return Facts::default() };
        let line = resumable.line();
        let ago = |(allowed, at): (f64, Instant)| {
            (allowed, u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX))
        };
        Facts {
            moves: resumable.moves,
            received: line.received,
            newest: line.tokens.newest(),
            previous: line.tokens.previous(),
            allowance: line.allowance.map(|it| (ago(it.messages), it.bytes.map(ago))),
            ..Facts::default()
        }
    }
}
