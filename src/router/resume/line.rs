//! [`Line`]: which connection a resumable session has, and how many messages it has taken in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::MutexGuard;

use super::token::Tokens;
use super::transit::Transit;
use crate::router::backplane::remote::Remote;
use crate::router::session::Session;
use crate::router::sync::Mutex;

/// What makes a session resumable.
pub(in crate::router) struct Resumable {
    line: Mutex<Line>,
    is_away: AtomicBool,
    /// Since when it is away.
    away_since: Mutex<Option<SystemTime>>,
    /// How often it has moved.
    pub(super) moves: u64,
    /// Whether it is between two nodes.
    pub(super) transit: Transit,
}

/// Which connection a session has. Locked while one message of the session is counted and routed, so that a connection that
/// replaces another one finds that message either done or not begun.
pub(in crate::router) struct Line {
    /// The number of the connection that is attached, or was attached last.
    pub(super) attachment: u64,
    /// How many text messages of the session were taken in.
    pub(super) received: u64,
    pub(super) tokens: Tokens,
    pub(super) stage: Stage,
    /// What the session may still send at once.
    pub(super) allowance: Option<Allowances>,
}

/// What a resumable session is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Stage {
    /// It has a connection.
    Present,
    /// It has none, and ends at this time.
    Away {
        /// Since when.
        since: Instant,
        /// When it ends.
        until: Instant,
        /// It ends because its proof ends then, not because its grace is over.
        proof_ends: bool,
    },
    /// It has ended, or is about to.
    Ended,
}

/// How much of its rates a session has used when it last sent something. It goes on with that on its next connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowances {
    /// Messages that it may send at once, and when they were counted. Below zero: it has to wait.
    pub messages: (f64, Instant),
    /// The same for bytes, if they are limited.
    pub bytes: Option<(f64, Instant)>,
}

impl Resumable {
    pub(super) fn new(attachment: u64) -> Self {
        let line = Line { attachment, received: 0, tokens: Tokens::default(), stage: Stage::Present, allowance: None };
        Self::with(line, 0)
    }

    pub(super) fn with(line: Line, moves: u64) -> Self {
        Self {
            line: Mutex::new(line),
            moves,
            is_away: AtomicBool::new(false),
            away_since: Mutex::default(),
            transit: Transit::default(),
        }
    }

    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock()
    }

    pub(super) fn set_away(&self, since: Option<SystemTime>) {
        self.is_away.store(since.is_some(), Ordering::Relaxed);
        *self.away_since.lock() = since;
    }
}

impl Session {
    /// Returns whether it can outlive its connection.
    pub fn is_resumable(&self) -> bool {
        self.resumable.is_some()
    }

    /// Returns whether it has no connection at present.
    pub fn is_away(&self) -> bool {
        self.resumable.as_ref().is_some_and(|it| it.is_away.load(Ordering::Relaxed))
            || self.remote().is_some_and(Remote::is_away)
    }

    /// Returns since when it has had no connection, by the clock of its node.
    pub(in crate::router) fn away_since(&self) -> Option<SystemTime> {
        let here = self.resumable.as_ref().and_then(|it| *it.away_since.lock());
        here.or_else(|| self.remote().and_then(Remote::away_since))
    }

    /// Keeps other connections from replacing the one with this number. `None` if one has replaced it, or if the session has
    /// ended.
    pub fn hold_line(self: &Arc<Self>, attachment: u64) -> Option<HeldLine<'_>> {
        let line = self.resumable.as_ref()?.line();
        (line.attachment == attachment && line.stage == Stage::Present).then(|| HeldLine(line))
    }
}

/// A connection of a resumable session that cannot be replaced at the moment.
pub struct HeldLine<'s>(MutexGuard<'s, Line>);

impl HeldLine<'_> {
    /// Counts a text message.
    pub fn count_received(&mut self) {
        self.0.received += 1;
    }

    /// The message that was counted last was not taken in after all.
    pub fn take_back_received(&mut self) {
        self.0.received -= 1;
    }

    /// Keeps what the session may still send.
    pub fn set_allowances(&mut self, allowances: Allowances) {
        self.0.allowance = Some(allowances);
    }

    /// The client has acknowledged messages, so it has the newest token: the one before is no longer valid.
    pub fn forget_previous_token(&mut self) {
        self.0.tokens.forget_previous();
    }

    /// The connection is about to end the session: it cannot be resumed any more.
    pub fn end(&mut self) {
        self.0.stage = Stage::Ended;
    }
}
