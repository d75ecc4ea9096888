//! [`Session`]: one registered session as the router sees it. `presence` lists them by user and source.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use crate::auth::{Identity, Permission, Principal};
use crate::router::index::Subscription;
use crate::router::outbox::{Gone, Kind, Outbox};
use crate::router::request::turn::Turn;
use crate::router::{RequestId, SessionId};
use crate::websocket::Frame;
use wire::command::State;
use wire::{Envelope, Triple};
use wire::{ErrorCode, Refusal};

/// The source of in-process adapters; nobody else may register it.
pub const OWN_SOURCE: &str = "switchboard";

/// Scope a member is, with the rank a handler of that kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    User(Arc<str>),
    Adapter,
    Service,
}

/// What a session says when it attaches.
pub struct Registration {
    /// Its registered name.
    pub source: String,
    /// What was proved.
    pub identity: Identity,
    /// Whether it hears its own events.
    pub echo: bool,
    /// Where its messages go.
    pub outbox: Arc<Outbox>,
}

/// One registered session.
pub struct Session {
    pub(super) id: SessionId,
    /// Later ones are greater.
    pub(super) number: u64,
    pub(super) source: Arc<str>,
    pub(super) standing: Role,
    pub(super) observe: bool,
    pub(super) handle: Permission,
    pub(super) request: Permission,
    pub(super) echo: bool,
    pub(super) since: SystemTime,
    outbox: Arc<Outbox>,
    /// The outbox's number of this registration: after Unregister the same session may register again.
    registration: u64,
    pub(super) holds: Mutex<Holdings>,
    asleep: AtomicBool,
    /// It missed a request's time limit and has not answered since.
    missed: AtomicBool,
    /// Requests that it was given and has not answered.
    busy: AtomicUsize,
    /// The stamp of the last message that it was chosen for.
    served: AtomicU64,
    /// How many of its ordered handler subscriptions have a turn: nearly always none, and then nothing is locked.
    pub(super) turns: AtomicUsize,
}

/// What goes when the member goes.
#[derive(Default)]
pub(super) struct Holdings {
    pub(super) subscriptions: Vec<Arc<Subscription>>,
    /// Requests that it asked; a gather counts once for each handler.
    pub(super) asked: BTreeSet<RequestId>,
    /// Requests that it was given.
    pub(super) given: BTreeSet<RequestId>,
    /// Its ordered subscriptions that have, or owe, an answer, oldest first.
    pub(super) turns: Vec<Turn>,
    pub(super) gone: bool,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        number: u64,
        standing: Role,
        since: SystemTime,
        registration: Registration,
    ) -> Self {
        let Registration { source, identity, echo, outbox } = registration;
        Self {
            id,
            number,
            source: Arc::from(source),
            standing,
            observe: identity.observe,
            handle: identity.handle,
            request: identity.request,
            echo,
            since,
            registration: outbox.registration(),
            outbox,
            holds: Mutex::default(),
            asleep: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            turns: AtomicUsize::new(0),
        }
    }

    /// The session's name on the wire.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Its registered source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its user; `None` for services and adapters.
    pub fn user(&self) -> Option<&str> {
        match &self.standing {
            Role::User(user) => Some(user),
            Role::Adapter | Role::Service => None,
        }
    }

    /// Whether an envelope is from whom it says: `source` may be left out, and is the registered name where it is not.
    ///
    /// # Errors
    /// `SOURCE_MISMATCH`.
    pub fn check_source(&self, envelope: &Envelope<'_>) -> Result<(), Refusal> {
        if envelope.source().is_none_or(|source| source == &*self.source) {
            return Ok(());
        }
        let own = &self.source;
        let words = format!("the field 'source' differs from the registered name '{own}'; it may be left out");
        Err(Refusal::new(ErrorCode::SourceMismatch, words))
    }

    /// Where its messages go.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub(super) fn push(&self, now: Instant, frame: Frame, kind: Kind) -> Result<bool, Gone> {
        self.outbox.push_for(self.registration, now, frame, kind)
    }

    pub(super) fn state(&self) -> State {
        if self.asleep.load(Ordering::Relaxed) { State::Asleep } else { State::Active }
    }

    pub(super) fn set_state(&self, state: State) {
        self.asleep.store(state == State::Asleep, Ordering::Relaxed);
    }

    pub(super) fn set_missed(&self, missed: bool) {
        self.missed.store(missed, Ordering::Relaxed);
    }

    /// Whether it is chosen last of all: asleep, or silent when it was last asked.
    pub(super) fn is_doubtful(&self) -> bool {
        self.asleep.load(Ordering::Relaxed) || self.missed.load(Ordering::Relaxed)
    }

    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn serve(&self, stamp: u64) {
        self.served.store(stamp, Ordering::Relaxed);
    }

    /// Notes a request as given; `Err` when the member has gone meanwhile.
    pub(super) fn give(&self, request: RequestId) -> Result<(), Gone> {
        let mut holds = self.holds.lock();
        if holds.gone {
            return Err(Gone);
        }
        holds.given.insert(request);
        self.busy.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Forgets a request that was given.
    pub(super) fn release(&self, request: RequestId) {
        if self.holds.lock().given.remove(&request) {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether it may answer a request on a protected triple. `served_inside`: an adapter serves the triple.
    pub(super) fn may_handle(&self, triple: &Triple<'_>, open: bool, served_inside: bool) -> bool {
        match self.standing {
            Role::Adapter | Role::Service => true,
            Role::User(_) if open => !served_inside,
            Role::User(_) => self.handle.allows(triple),
        }
    }
}

impl Role {
    pub(super) fn of(principal: &Principal) -> Self {
        match principal {
            Principal::User(user) => Self::User(Arc::clone(user)),
            Principal::Service => Self::Service,
        }
    }
}
