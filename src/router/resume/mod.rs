//! [`Router::register`]: sessions that outlive their connection, and how they continue.
//!
//! `resumption` is what a client is told of that, `line` is which connection a session has, `token` proves which session a
//! client had, `away` is a session without a connection and how it ends, `moved`, `transit` and `floors` are for one that
//! moves to another node, `kept` counts what is kept for all of them. What is kept for one is in its outbox (`outbox/window`).

mod away;
pub(in crate::router) mod floors;
pub(in crate::router) mod kept;
mod line;
mod moved;
mod resumption;
mod token;
pub(in crate::router) mod transit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use secrecy::ExposeSecret;
use tokio::sync::Notify;
use wire::command;

use crate::config;
use crate::router::end::Ending;
use crate::router::outbox::{End, Window};
use crate::router::presence::Change;
use crate::router::session::{Registration, Role, Session};
use crate::router::sync::Mutex;
use crate::router::{LeaseHold, NotAttached, Router, SessionId};
use crate::telemetry::recorder::What;
use crate::websocket::FrameMemory;
use away::Away;
pub use away::Left;
use kept::Kept;
pub(in crate::router) use line::Resumable;
use line::Stage;
pub use line::{Allowances, HeldLine};
pub(in crate::router) use moved::{Arrival, HeldHere, NotHere};
pub use resumption::{ResumeReason, ResumeTicket, Resumption};
pub(in crate::router) use token::Token;
use token::TokenKey;

/// All resumable sessions.
pub(in crate::router) struct Resumes {
    kept: Arc<Kept>,
    key: TokenKey,
    /// Attachments that were made.
    attachments: AtomicU64,
    by_id: DashMap<SessionId, Known, foldhash::fast::RandomState>,
    away: Mutex<Away>,
    /// The broker drains: the end of a grace publishes no will any more.
    is_draining: AtomicBool,
}

/// A session whose tokens the broker knows.
enum Known {
    Alive(Arc<Session>),
    /// It overflowed while it was away. The answer is remembered until this time.
    Overflowed(Instant),
    /// It has moved to this node, which is remembered until this time.
    Moved(Arc<str>, Instant),
}

/// What a client asks for when it registers.
pub struct Wanted<'a> {
    /// Whether the session is to be resumable, or which one is to continue.
    pub resume: &'a command::Resume,
    /// Whether it receives its own events, if that is said.
    pub echo: Option<bool>,
    /// A session that continues keeps its will, because this Register says nothing of one.
    pub keeps_will: bool,
    /// The number of the last reload when its identity was verified.
    pub reloads: u64,
    /// The lease of its source, if it has one already. A session that continues keeps its own.
    pub lease: Option<LeaseHold>,
    /// Why another node that was asked for its session does not have it.
    pub elsewhere: Option<ResumeReason>,
}

/// A session that a connection has registered.
pub struct Registered {
    /// The session.
    pub session: Arc<Session>,
    /// The number of the connection, as its session knows it; 0 unless the session is resumable.
    pub attachment: u64,
    /// What the client is told of that, if it asked.
    pub resumption: Resumption,
}

/// What became of an attempt to continue a session.
enum Attempt {
    Resumed(Registered),
    /// There was a reload since the identity was verified.
    Outdated,
    /// Another session begins.
    Failed(ResumeReason),
    /// Another session begins, and this one ends unless the connection with this number was replaced.
    Ends(ResumeReason, Arc<Session>, u64),
}

impl Resumes {
    pub(in crate::router) fn new(limits: &config::Resume, key: &[u8; 32], earlier: Arc<Notify>) -> Self {
        Self {
            kept: Arc::new(Kept::new(limits, earlier)),
            key: TokenKey::new(key),
            attachments: AtomicU64::new(1),
            by_id: DashMap::default(),
            away: Mutex::default(),
            is_draining: AtomicBool::new(false),
        }
    }

    /// Puts other limits in force.
    pub(in crate::router) fn set_limits(&self, limits: &config::Resume) {
        self.kept.set(limits);
    }

    pub(in crate::router) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The number of sessions whose tokens are known.
    pub(in crate::router) fn len(&self) -> usize {
        self.by_id.len()
    }

    fn attachment(&self) -> u64 {
        self.attachments.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a session resumable that nobody else knows yet. Returns the number of its connection.
    fn make_resumable(&self, session: &mut Session) -> u64 {
        let attachment = self.attachment();
        session.outbox().keep_sent(Window::new(Arc::clone(&self.kept)), attachment);
        session.resumable = Some(Box::new(Resumable::new(attachment)));
        attachment
    }

    /// The session of a token, and the number of the token.
    ///
    /// # Errors
    /// Why there is none.
    fn find(&self, now: Instant, token: &str) -> Result<(Arc<Session>, u64), ResumeReason> {
        let token = self.key.read(token).ok_or(ResumeReason::Unknown)?;
        match self.by_id.get(&token.session).as_deref() {
            Some(Known::Alive(session)) => Ok((Arc::clone(session), token.number)),
            Some(Known::Overflowed(until)) if *until > now => Err(ResumeReason::Overflowed),
            Some(Known::Overflowed(_) | Known::Moved(..)) | None => Err(ResumeReason::Unknown),
        }
    }
}

impl Router {
    /// Registers a session, or lets one continue. `None`: there was a reload since its identity was verified, so it has to be
    /// verified again.
    ///
    /// # Errors
    /// Those of [`Router::attach`]. Nothing has changed then.
    pub fn register(
        &self,
        now: Instant,
        registration: Registration,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Registered>, NotAttached> {
        let registered = self.register_uncounted(now, registration, wanted);
        if let Ok(Some(Registered { resumption, .. })) = &registered
            && let Some(outcome) = resumption.outcome()
        {
            self.metrics.resumes.count(outcome);
        }
        registered
    }

    fn register_uncounted(
        &self,
        now: Instant,
        registration: Registration,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Registered>, NotAttached> {
        self.look_at_ended(now);
        let is_off = self.policy.resume().grace.is_zero();
        let (reason, ending) = match wanted.resume {
            command::Resume::No => return self.begin_plain(now, registration, wanted, Resumption::NotAsked),
            command::Resume::Begin if is_off => {
                return self.begin_plain(now, registration, wanted, Resumption::Off { reason: None });
            }
            command::Resume::Continue { .. } if is_off => {
                let reason = Some(ResumeReason::Unknown);
                return self.begin_plain(now, registration, wanted, Resumption::Off { reason });
            }
            command::Resume::Begin => (None, None),
            command::Resume::Continue { token, received } => {
                match self.resume(now, &registration, wanted, token.expose_secret(), *received)? {
                    Attempt::Resumed(registered) => return Ok(Some(registered)),
                    Attempt::Outdated => return Ok(None),
                    Attempt::Failed(reason) => (Some(reason), None),
                    Attempt::Ends(reason, session, attachment) => (Some(reason), Some((session, attachment))),
                }
            }
        };
        self.begin(now, registration, wanted, reason, ending)
    }

    fn begin_plain(
        &self,
        now: Instant,
        registration: Registration,
        wanted: &Wanted<'_>,
        resumption: Resumption,
    ) -> Result<Option<Registered>, NotAttached> {
        let session = self.attach_verified(now, registration, wanted.lease.clone(), wanted.reloads)?;
        Ok(session.map(|session| Registered { session, attachment: 0, resumption }))
    }

    /// Begins a resumable session. `ending`: the one that ends because it cannot continue, and the number of its connection.
    fn begin(
        &self,
        now: Instant,
        registration: Registration,
        wanted: &Wanted<'_>,
        reason: Option<ResumeReason>,
        ending: Option<(Arc<Session>, u64)>,
    ) -> Result<Option<Registered>, NotAttached> {
        let mut attachment = 0;
        let prepare = |session: &mut Session| attachment = self.resumes.make_resumable(session);
        let except = ending.as_ref().map(|(session, _)| session.number);
        let registration = (registration, wanted.lease.clone());
        let joined = self.join(now, registration, except, prepare, || self.reloads() == wanted.reloads)?;
        let Some(session) = joined else { return Ok(None) };
        self.resumes.by_id.insert(session.id, Known::Alive(Arc::clone(&session)));
        let ending = ending.and_then(|(ending, attachment)| {
            self.end_unresumable(now, &ending, attachment);
            ending.earlier_commits()
        });
        self.tell_presence(now, &session, Change::Joined);
        let ticket = self.ticket(session.id, 0);
        Ok(Some(Registered { session, attachment, resumption: Resumption::Begun { ticket, reason, ending } }))
    }

    fn resume(
        &self,
        now: Instant,
        registration: &Registration,
        wanted: &Wanted<'_>,
        token: &str,
        received: u64,
    ) -> Result<Attempt, NotAttached> {
        let (session, number) = match self.resumes.find(now, token) {
            Ok(found) => found,
            Err(reason) => return Ok(Attempt::Failed(wanted.elsewhere.unwrap_or(reason))),
        };
        let Some(resumable) = &session.resumable else { return Ok(Attempt::Failed(ResumeReason::Unknown)) };
        let mut line = resumable.line();
        match (line.stage, session.outbox().ended()) {
            // Its end follows.
            (Stage::Away { .. }, Some(End::Overflowed)) => return Ok(Attempt::Failed(ResumeReason::Overflowed)),
            (Stage::Ended, _) | (_, Some(_)) => return Ok(Attempt::Failed(ResumeReason::Unknown)),
            (Stage::Present | Stage::Away { .. }, None) => {}
        }
        // Under the lock under which a reload judges the session, after it has raised its number.
        let mut holds = session.holds.lock();
        if self.reloads() != wanted.reloads {
            return Ok(Attempt::Outdated);
        }
        let identity = &registration.identity;
        let is_same = *session.source == *registration.source
            && session.role == Role::of(&identity.principal)
            && *session.permissions() == identity.permissions;
        if !is_same {
            return Ok(Attempt::Failed(ResumeReason::Identity));
        }
        if !line.tokens.is_valid(number) {
            return Ok(Attempt::Failed(ResumeReason::Replaced));
        }
        if identity.exclusive && self.lacks_lease(&mut holds.lease, wanted.lease.as_ref()) {
            return Err(NotAttached::Leaseless);
        }
        self.keep_here(&session);
        let attachment = self.resumes.attachment();
        let checked = session.outbox().check_resume(received);
        if checked.is_ok()
            && let Some(will) = &registration.will
        {
            self.check_will_text(&session, will).map_err(NotAttached::Will)?;
        }
        let replayed = match checked.and_then(|()| session.outbox().resume(received, attachment)) {
            Ok(replayed) => replayed,
            Err(why) => return Ok(Attempt::Ends(why.into(), Arc::clone(&session), line.attachment)),
        };
        session.set_proof(identity.proof.clone());
        session.set_proven_under(wanted.reloads);
        if !wanted.keeps_will {
            holds.will.clone_from(&registration.will);
        }
        drop(holds);
        self.forget_away(&session, &mut line);
        (line.stage, line.attachment) = (Stage::Present, attachment);
        line.tokens.replace(number);
        session.set_address(registration.address);
        if let Some(echo) = wanted.echo {
            session.set_echo(echo);
        }
        let ticket = self.ticket(session.id, line.tokens.newest());
        let resumption = Resumption::Resumed { ticket, replayed, received: line.received, allowances: line.allowance };
        drop(line);
        if identity.exclusive {
            self.note_lease(&session);
        }
        self.note(now, &session, What::Resumed);
        self.announce_state(&session, true);
        Ok(Attempt::Resumed(Registered { session: Arc::clone(&session), attachment, resumption }))
    }

    /// Returns whether what waits for all sessions exceeds the bound of `memory`, without what is kept for resumable sessions,
    /// which has a bound of its own.
    pub fn is_memory_exceeded(&self, memory: &FrameMemory) -> bool {
        let kept = &self.resumes.kept;
        memory.is_exceeded(kept.frame_bytes()) && {
            self.count_kept();
            memory.is_exceeded(kept.frame_bytes())
        }
    }

    /// Counts what is kept for all sessions.
    pub(super) fn count_kept(&self) {
        self.presence.each(|session| session.outbox().settle());
    }

    fn ticket(&self, session: SessionId, number: u64) -> ResumeTicket {
        ResumeTicket { token: self.resumes.key.write(Token { session, number }), grace: self.policy.resume().grace }
    }

    /// Ends a session that cannot continue, unless the connection with this number was replaced.
    fn end_unresumable(&self, now: Instant, session: &Arc<Session>, attachment: u64) {
        let Some(resumable) = &session.resumable else { return };
        {
            let mut line = resumable.line();
            if line.attachment != attachment || line.stage == Stage::Ended {
                return;
            }
            self.forget_away(session, &mut line);
            line.stage = Stage::Ended;
            session.outbox().replace_taker();
        }
        self.end_session(now, session, Ending::NotResumed);
    }
}

/// Sessions by a time and their number.
type ByTime = BTreeMap<(Instant, u64), Arc<Session>>;
