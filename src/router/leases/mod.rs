//! [`Leases`]: what a session of an exclusive source needs in a cluster, so that no other node has one (docs/cluster.md).
//!
//! A session that registers seeks the lease of its source and waits for a [`LeaseTicket`]. The lease is kept outside of this
//! room, by a [`LeaseKeeper`]; it lasts as long as anybody here has a [`LeaseHold`] of it: the session, or a connection that is
//! about to register one. So a session that takes the place of another one of this node takes over its lease. Which of the
//! sessions of one node may have the source is decided by presence, as without a cluster.
//!
//! `asking` is what nodes say to each other about a lease whose session may be away.

mod asking;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wire::{CloseCode, ErrorCode, Refusal};

use crate::auth::Principal;
use crate::router::outbox::End;
use crate::router::session::Session;
use crate::router::{Router, SessionId};

/// The lease of a source: one for each user, and one for services.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseName {
    /// `None`: a service's.
    pub user: Option<Arc<str>>,
    /// The registered name.
    pub source: Arc<str>,
}

/// A lease that is wanted.
#[derive(Clone, Debug)]
pub struct LeaseClaim {
    /// Names this claim on this node. It is never used again.
    pub id: u64,
    /// What is claimed.
    pub name: LeaseName,
    /// When.
    pub since: SystemTime,
    /// What may be taken though it is still there.
    pub given_up: Option<GivenUp>,
}

/// What a node has given up of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Who.
    pub holder: LeaseHolder,
    /// The claims up to this one.
    pub claims: u64,
}

/// Who has a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The name of a node; empty if it cannot be read.
    pub node: Arc<str>,
    /// Its incarnation when it started.
    pub incarnation: [u8; 16],
    /// When its session registered; `None` if it cannot be read.
    pub since: Option<SystemTime>,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// This node has the lease.
    Taken,
    /// Another node has it.
    Held(LeaseHolder),
    /// The storage does not answer.
    Unavailable,
}

/// What keeps the leases of this node where all nodes see them. It never waits, and calls nothing of the router from within
/// these methods.
pub trait LeaseKeeper: Send + Sync {
    /// Takes a lease, and calls [`Router::lease_answered`] later. If it is taken, the lease is renewed until it is released or
    /// [`Router::lease_lost`] is called. A claim of a lease that this node has by an earlier claim takes its place.
    fn take(&self, claim: LeaseClaim);

    /// Says which session has a lease now, for the node that reads it.
    fn describe(&self, claim: u64, name: &LeaseName, session: SessionId, since: SystemTime);

    /// Releases a lease that was taken by this claim. Nothing happens if another claim has taken its place.
    fn release(&self, claim: u64, name: &LeaseName);
}

/// A lease of this node. It is released when nobody holds it any more.
struct Lease {
    claim: u64,
    name: LeaseName,
    /// It is no longer this node's.
    is_lost: AtomicBool,
    leases: Arc<Leases>,
}

/// A part in a lease of this node. A clone is another part.
#[derive(Clone)]
pub struct LeaseHold(Arc<Lease>);

/// The leases of this node.
pub(super) struct Leases {
    keeper: Arc<dyn LeaseKeeper>,
    /// Claims that were made.
    claims: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: HashMap<LeaseName, (u64, Weak<Lease>)>,
    /// In the order of names, so that nothing depends on the order of a map.
    sought: BTreeMap<LeaseName, Seek>,
}

/// A lease that is being taken.
struct Seek {
    claim: u64,
    waiting: Vec<Waiter>,
    /// The node that was asked whether its session is away, and what is known of that session.
    asked: Option<LeaseHolder>,
}

/// Who waits for a lease.
enum Waiter {
    /// A connection that is about to register.
    Connection(oneshot::Sender<Result<LeaseHold, Refusal>>),
    /// A session that has arrived from another node, and is away.
    Session(Arc<Session>),
}

/// What a session that registers waits for.
pub struct LeaseTicket(oneshot::Receiver<Result<LeaseHold, Refusal>>);

impl LeaseTicket {
    /// Ready when the lease was taken, or cannot be.
    ///
    /// # Errors
    /// `SOURCE_IN_USE`, `UPSTREAM_UNAVAILABLE`.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<LeaseHold, Refusal>> {
        // Without an answer, the broker ends.
        Pin::new(&mut self.0).poll(cx).map(|outcome| outcome.unwrap_or_else(|_| Err(unavailable())))
    }
}

impl Waiter {
    fn tell(self, outcome: &Result<LeaseHold, Refusal>) {
        match (self, outcome) {
            (Self::Connection(sender), outcome) => {
                // The connection may have ended.
                sender.send(outcome.clone()).ok();
            }
            (Self::Session(session), Ok(hold)) => session.take_lease(hold),
            // Another session has registered the source.
            (Self::Session(session), Err(refusal)) if refusal.code == ErrorCode::SourceInUse => end_session(&session),
            // It is sought again when its client returns.
            (Self::Session(_), Err(_)) => {}
        }
    }
}

impl Session {
    /// Keeps the lease of its source, unless it has one or has ended.
    fn take_lease(&self, hold: &LeaseHold) {
        let mut holds = self.holds.lock();
        if !holds.is_closed() && holds.lease.as_ref().is_none_or(LeaseHold::is_lost) {
            holds.lease = Some(hold.clone());
        }
    }
}

impl LeaseHold {
    /// Whether the lease is no longer this node's.
    pub(super) fn is_lost(&self) -> bool {
        self.0.is_lost.load(Ordering::SeqCst)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        {
            let mut state = self.leases.state.lock();
            if state.held.get(&self.name).is_some_and(|(claim, _)| *claim == self.claim) {
                state.held.remove(&self.name);
            }
        }
        self.leases.keeper.release(self.claim, &self.name);
    }
}

impl Leases {
    fn new(keeper: Arc<dyn LeaseKeeper>) -> Self {
        Self { keeper, claims: AtomicU64::new(0), state: Mutex::default() }
    }

    /// Answers a claim. Returns `false` if it is not sought any more.
    fn answer(self: &Arc<Self>, name: &LeaseName, claim: u64, outcome: Result<(), Refusal>) -> bool {
        let mut state = self.state.lock();
        if state.sought.get(name).is_none_or(|seek| seek.claim != claim) {
            return false;
        }
        let waiting = state.sought.remove(name).map(|seek| seek.waiting).unwrap_or_default();
        let outcome = outcome.map(|()| {
            let (name, is_lost) = (name.clone(), AtomicBool::new(false));
            LeaseHold(Arc::new(Lease { claim, name, is_lost, leases: Arc::clone(self) }))
        });
        if let Ok(hold) = &outcome {
            state.held.insert(name.clone(), (claim, Arc::downgrade(&hold.0)));
        }
        drop(state);
        for waiter in waiting {
            waiter.tell(&outcome);
        }
        true
    }

    /// Whether a session has a lease, or a connection is about to register one. Otherwise returns the last claim of this node.
    fn has(&self, name: &LeaseName) -> Result<(), u64> {
        let state = self.state.lock();
        let lease = state.held.get(name).and_then(|(_, lease)| lease.upgrade());
        let has = lease.is_some() || state.sought.contains_key(name);
        // Every later claim begins after this, because it needs the same lock.
        let last = self.claims.load(Ordering::Relaxed);
        drop(state);
        drop(lease);
        if has { Ok(()) } else { Err(last) }
    }

    /// Lets a lease count as lost. Returns whether this node had it by this claim.
    fn lose(&self, name: &LeaseName, claim: u64) -> bool {
        let mut state = self.state.lock();
        let is_it = state.held.get(name).is_some_and(|(held, _)| claim == *held);
        let lost = if is_it { state.held.remove(name) } else { None };
        let lease = lost.and_then(|(_, lease)| lease.upgrade());
        drop(state);
        lease.inspect(|lease| lease.is_lost.store(true, Ordering::SeqCst)).is_some()
    }
}

impl Router {
    /// Lets sessions of exclusive sources need a lease.
    #[must_use]
    pub fn with_leases(self, keeper: Arc<dyn LeaseKeeper>) -> Self {
        Self { leases: Some(Arc::new(Leases::new(keeper))), ..self }
    }

    /// Seeks the lease of an exclusive source for a session that is about to register.
    pub fn seek_lease(&self, now: Instant, principal: &Principal, source: &str) -> LeaseTicket {
        let (sender, ticket) = oneshot::channel();
        let user = match principal {
            Principal::User(user) => Some(Arc::from(&**user)),
            Principal::Service => None,
        };
        let name = LeaseName { user, source: Arc::from(source) };
        if let Some(leases) = &self.leases {
            self.seek(now, leases, name, Waiter::Connection(sender));
        }
        LeaseTicket(ticket)
    }

    /// Seeks the lease of the source of a session that has arrived from another node, which has let it go. The session keeps
    /// it when it is taken, and ends if another session has the source by then.
    pub(super) fn seek_lease_moved(&self, now: Instant, session: &Arc<Session>) {
        let name = LeaseName { user: session.user().map(Arc::from), source: Arc::clone(&session.source) };
        if let Some(leases) = &self.leases {
            self.seek(now, leases, name, Waiter::Session(Arc::clone(session)));
        }
    }

    /// Whether a session lacks the lease that it needs to continue. `offered`: one that it takes then.
    pub(super) fn lacks_lease(&self, held: &mut Option<LeaseHold>, offered: Option<&LeaseHold>) -> bool {
        if !self.needs_leases() || held.as_ref().is_some_and(|hold| !hold.is_lost()) {
            return false;
        }
        *held = offered.filter(|hold| !hold.is_lost()).cloned();
        held.is_none()
    }

    fn seek(&self, now: Instant, leases: &Arc<Leases>, name: LeaseName, waiter: Waiter) {
        let mut state = leases.state.lock();
        if let Some(lease) = state.held.get(&name).and_then(|(_, lease)| lease.upgrade()) {
            drop(state);
            return waiter.tell(&Ok(LeaseHold(lease)));
        }
        if let Some(seek) = state.sought.get_mut(&name) {
            seek.waiting.push(waiter);
            return;
        }
        let claim = leases.claims.fetch_add(1, Ordering::Relaxed) + 1;
        state.sought.insert(name.clone(), Seek { claim, waiting: vec![waiter], asked: None });
        drop(state);
        leases.keeper.take(LeaseClaim { id: claim, name, since: self.date(now), given_up: None });
    }

    /// The keeper of leases says what became of a claim.
    pub fn lease_answered(&self, name: &LeaseName, claim: u64, answer: LeaseAnswer) {
        let Some(leases) = &self.leases else { return };
        let is_sought = match answer {
            LeaseAnswer::Taken => leases.answer(name, claim, Ok(())),
            LeaseAnswer::Unavailable => leases.answer(name, claim, Err(unavailable())),
            LeaseAnswer::Held(holder) => {
                self.ask_holder(leases, name, claim, &holder);
                return;
            }
        };
        if !is_sought && answer == LeaseAnswer::Taken {
            leases.keeper.release(claim, name);
        }
    }

    /// A lease that was taken by this claim is no longer this node's: its session ends with 4404.
    pub fn lease_lost(&self, now: Instant, name: &LeaseName, claim: u64) {
        let Some(leases) = &self.leases else { return };
        if leases.lose(name, claim) {
            tracing::warn!(
                source = &*name.source,
                user = name.user.as_deref(),
                "the lease of an exclusive source is lost"
            );
            self.end_leaseless(now, name);
        }
    }

    /// Ends the sessions of a source whose lease is lost.
    fn end_leaseless(&self, now: Instant, name: &LeaseName) {
        for session in self.presence.of_source(name.user.as_ref(), &name.source) {
            let is_lost = session.holds.lock().lease.as_ref().is_some_and(LeaseHold::is_lost);
            if is_lost {
                end_session(&session);
            }
        }
        // Those that are away have no connection that would end them.
        self.look_at_ended(now);
    }

    /// A session is listed that has a lease. It says so to others, and ends if it has lost it meanwhile.
    pub(super) fn note_lease(&self, session: &Session) {
        let hold = session.holds.lock().lease.clone();
        let (Some(leases), Some(LeaseHold(lease))) = (&self.leases, &hold) else { return };
        leases.keeper.describe(lease.claim, &lease.name, session.id, session.since);
        if hold.as_ref().is_some_and(LeaseHold::is_lost) {
            end_session(session);
        }
    }

    /// The lease of a session goes over to another node, which seeks it once this was called. The session must not be at work
    /// here any more, though it need not have ended.
    pub fn let_lease_go(&self, session: &Session) {
        let hold = session.holds.lock().lease.take();
        // Not under the lock: it may be the last part in the lease.
        drop(hold);
    }

    /// Whether a session of an exclusive source needs a lease.
    pub(super) fn needs_leases(&self) -> bool {
        self.leases.is_some()
    }
}

fn end_session(session: &Session) {
    session.outbox().end(End::Close(CloseCode::SourceInUse, "the lease of the exclusive source was lost"));
}

fn unavailable() -> Refusal {
    Refusal::new(
        ErrorCode::UpstreamUnavailable,
        "the source is exclusive, and the storage of the cluster, which decides who has it, does not answer; try again",
    )
}

/// Why a source cannot be registered that a session of another node has.
fn in_use(since: Option<SystemTime>) -> Refusal {
    Refusal::new(
        ErrorCode::SourceInUse,
        match since {
            Some(since) => format!(
                "the source is exclusive, and another session registered it at {}; close that one first",
                humantime::format_rfc3339_seconds(since)
            ),
            None => "the source is exclusive, and another session has registered it; close that one first".to_owned(),
        },
    )
}
