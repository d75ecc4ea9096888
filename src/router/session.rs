//! [`Session`]: one registered session as the router sees it. `holdings` is what ends with it, `presence` lists sessions by
//! user and source.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::RwLock;

use crate::auth::{Identity, Permissions, Principal, Proof, Rights, Users};
use crate::router::SessionId;
use crate::router::activity::Activity;
use crate::router::backplane::load::LoadNote;
use crate::router::backplane::pressure::PressedElsewhere;
use crate::router::backplane::remote::Remote;
use crate::router::call::Call;
use crate::router::commit::PendingCommits;
use crate::router::explain::PauseFlag;
use crate::router::hint::HintAllowance;
use crate::router::holdings::Holdings;
use crate::router::outbox::{Kind, OnFull, Outbox, Pressure, PushError};
use crate::router::presence::HeldPresence;
use crate::router::request::door::Door;
use crate::router::request::turn::Turns;
use crate::router::resume::Resumable;
use crate::router::sync::Mutex;
use crate::telemetry::recorder::Pace;
use crate::websocket::Frame;
use wire::command::State;

/// The source of in-process adapters; nobody else may register it.
pub const OWN_SOURCE: &str = "switchboard";

/// The kind of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// An application of this user.
    User(Arc<str>),
    /// A handler inside the process.
    Adapter,
    /// A server-side application, which belongs to no user.
    Service,
}

/// The properties of a session that registers.
pub struct Registration {
    /// Its registered name.
    pub source: String,
    /// The identity that was verified.
    pub identity: Identity,
    /// Whether it receives its own events.
    pub echo: bool,
    /// The address of its peer; `None` inside the process.
    pub address: Option<IpAddr>,
    /// The queue of messages for it.
    pub outbox: Outbox,
    /// The event that is published when it ends, as JSON text.
    pub will: Option<Box<str>>,
}

/// One registered session.
pub struct Session {
    pub(super) id: SessionId,
    /// Later ones are greater.
    pub(super) number: u64,
    pub(super) source: Arc<str>,
    /// Of its connection, or of the last one.
    address: Mutex<Option<IpAddr>>,
    pub(super) role: Role,
    /// What proved its identity.
    proof: Mutex<Proof>,
    /// Its proof is no longer valid: what it sends is no longer routed.
    revoked: AtomicBool,
    /// The number of the last reload when its proof was verified.
    proven_under: AtomicU64,
    /// A handle: renewal, revocation and reload swap it while the session lives.
    permissions: RwLock<Arc<Permissions>>,
    /// Whether they restrict what it sends and receives: nearly always all that others look at.
    restricted: AtomicBool,
    echo: AtomicBool,
    pub(super) since: SystemTime,
    outbox: Outbox,
    pub(super) holds: Mutex<Holdings>,
    asleep: AtomicBool,
    /// Whether a request to it has timed out, and it has not answered since.
    missed: AtomicBool,
    /// The number of requests that it was given and has not answered.
    pub(super) busy: AtomicUsize,
    /// The stamp of the last message that it was chosen for.
    served: AtomicU64,
    pub(super) hints: HintAllowance,
    /// Presence events that wait until its queue is under half.
    pub(super) presence: HeldPresence,
    /// The turns of its ordered handlers.
    pub(super) turns: Turns,
    /// Bytes of the texts that the broker keeps for its pending requests.
    pub(super) pending_bytes: AtomicUsize,
    /// Whether the log has said that its answers need `inReplyTo`.
    pub(super) told_to_name_requests: AtomicBool,
    /// Why its connection is not being read, if it is not.
    pub(super) paused: PauseFlag,
    /// Takes its requests if it is a handler inside the process.
    door: Option<Arc<dyn Door>>,
    /// Its events that wait for the disk.
    pub(super) commits: PendingCommits,
    /// What it has sent.
    pub(super) activity: Activity,
    /// What makes it resumable.
    pub(super) resumable: Option<Box<Resumable>>,
    /// Counts its entries in the flight recorder.
    pub(super) pace: Pace,
    /// Where the outcome of its request arrives if it is a session for one call over HTTP.
    pub(super) call: Option<Box<Call>>,
    /// What makes it the stand-in of a session of another node.
    pub(super) remote: Option<Box<Remote>>,
    /// Notes for other nodes that its load has changed.
    pub(super) load: LoadNote,
    /// The receivers on other nodes for which it has to wait.
    pub(super) pressed: PressedElsewhere,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        number: u64,
        role: Role,
        since: SystemTime,
        registration: Registration,
        reloads: u64,
        door: Option<Arc<dyn Door>>,
    ) -> Self {
        let Registration { source, identity, echo, address, outbox, will } = registration;
        Self {
            id,
            number,
            source: Arc::from(source),
            address: Mutex::new(address),
            role,
            restricted: AtomicBool::new(restrict(&identity.permissions)),
            proof: Mutex::new(identity.proof),
            revoked: AtomicBool::new(false),
            proven_under: AtomicU64::new(reloads),
            permissions: RwLock::new(Arc::new(identity.permissions)),
            echo: AtomicBool::new(echo),
            since,
            outbox,
            holds: Mutex::new(Holdings::new(will)),
            asleep: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            hints: HintAllowance::default(),
            presence: HeldPresence::default(),
            turns: Turns::default(),
            pending_bytes: AtomicUsize::new(0),
            told_to_name_requests: AtomicBool::new(false),
            paused: PauseFlag::default(),
            door,
            commits: PendingCommits::default(),
            activity: Activity::default(),
            resumable: None,
            pace: Pace::default(),
            call: None,
            remote: None,
            load: LoadNote::default(),
            pressed: PressedElsewhere::default(),
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
        match &self.role {
            Role::User(user) => Some(user),
            Role::Adapter | Role::Service => None,
        }
    }

    /// Returns its current permissions.
    pub(super) fn permissions(&self) -> Arc<Permissions> {
        Arc::clone(&self.permissions.read())
    }

    /// Replaces its permissions.
    pub(super) fn set_permissions(&self, permissions: impl Into<Arc<Permissions>>) {
        let permissions = permissions.into();
        let mut own = self.permissions.write();
        self.restricted.store(restrict(&permissions), Ordering::Relaxed);
        *own = permissions;
    }

    /// Returns whether its general rights, or the users of a service, are restricted.
    pub(super) fn is_restricted(&self) -> bool {
        self.restricted.load(Ordering::Relaxed)
    }

    /// Returns its general rights, if they are restricted.
    pub(super) fn rights(&self) -> Option<Arc<Rights>> {
        if self.is_restricted() { self.permissions.read().rights.clone() } else { None }
    }

    /// Calls `check` with its general rights, if they are restricted. Meanwhile they do not change.
    #[inline]
    pub(super) fn check_rights<T>(&self, check: impl FnOnce(&Rights) -> T) -> Option<T> {
        if self.is_restricted() { self.permissions.read().rights.as_deref().map(check) } else { None }
    }

    /// Returns what proved its identity.
    pub fn proof(&self) -> Proof {
        self.proof.lock().clone()
    }

    /// Replaces what proved its identity.
    pub(super) fn set_proof(&self, proof: Proof) {
        *self.proof.lock() = proof;
    }

    /// Returns the address of its peer; `None` inside the process.
    pub(super) fn address(&self) -> Option<IpAddr> {
        *self.address.lock()
    }

    pub(super) fn set_address(&self, address: Option<IpAddr>) {
        *self.address.lock() = address;
    }

    /// Returns whether it receives its own events.
    pub(super) fn echoes(&self) -> bool {
        self.echo.load(Ordering::Relaxed)
    }

    pub(super) fn set_echo(&self, echo: bool) {
        self.echo.store(echo, Ordering::Relaxed);
    }

    /// Returns whether its proof was found to be no longer valid. Its connection is about to end, and what it still sends
    /// must not be routed.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    pub(super) fn set_revoked(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// Returns the number of the last reload when its proof was verified.
    pub(super) fn proven_under(&self) -> u64 {
        self.proven_under.load(Ordering::Relaxed)
    }

    /// Notes that another proof was verified, after this number of reloads. An end that a reload gave the earlier one does
    /// not count any more. The caller holds the session's holdings.
    pub(super) fn set_proven_under(&self, reloads: u64) {
        self.proven_under.store(reloads, Ordering::Relaxed);
        self.outbox.take_proof_end();
    }

    /// Returns the queue of messages for it.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(super) fn push(&self, now: Instant, frame: Frame, on_full: OnFull) -> Result<Pressure, PushError> {
        self.outbox.push(now, frame, on_full)
    }

    /// Pushes an event or a request, unless its rights, which `may` checks, do not allow it at that moment.
    pub(super) fn push_if(
        &self,
        now: Instant,
        (frame, kind): (Frame, Kind),
        on_full: OnFull,
        may: impl FnOnce() -> bool,
    ) -> Result<Pressure, PushError> {
        self.outbox.push_if(now, (frame, kind), on_full, may)
    }

    pub(super) fn state(&self) -> State {
        if self.asleep.load(Ordering::Relaxed) { State::Asleep } else { State::Active }
    }

    pub(super) fn set_state(&self, state: State) {
        self.asleep.store(state == State::Asleep, Ordering::Relaxed);
    }

    /// Returns whether a request to it has timed out, and it has not answered since.
    pub(super) fn has_missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed)
    }

    pub(super) fn set_missed(&self, missed: bool) {
        self.missed.store(missed, Ordering::Relaxed);
    }

    /// Returns whether it is chosen last: it is asleep, or its last request timed out.
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

    /// Returns the door that takes its requests if it is a handler inside the process.
    pub(super) fn door(&self) -> Option<&Arc<dyn Door>> {
        self.door.as_ref()
    }
}

fn restrict(permissions: &Permissions) -> bool {
    permissions.rights.is_some() || permissions.users != Users::All
}

impl Role {
    /// Returns the principal of an application; `None` for an adapter.
    pub(super) fn principal(&self) -> Option<Principal> {
        match self {
            Self::User(user) => Some(Principal::User(Arc::clone(user))),
            Self::Service => Some(Principal::Service),
            Self::Adapter => None,
        }
    }

    pub(super) fn of(principal: &Principal) -> Self {
        match principal {
            Principal::User(user) => Self::User(Arc::clone(user)),
            Principal::Service => Self::Service,
        }
    }
}
