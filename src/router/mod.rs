//! [`Router`]: whose an envelope is and who gets it. The whole public face of the room.
//!
//! It takes `&self`, is synchronous and gets time as an argument: it never waits, opens no socket and looks at no clock.
//! A session attaches, subscribes, routes envelopes and detaches; the program calls [`Router::expire`] at
//! [`Router::deadline`]. Start at [`Router::route`]: the rules of docs/protocol.md, "Routing", the first that fits.
//!
//! # Locks
//!
//! Every lock of the room, in the only order in which they are taken. Most code takes one at a time. No shard of a map is
//! held over a push, and nothing waits while it holds a lock.
//!
//! 1. `Resumable::line`. Held while one message of a resumable session is counted and routed, while another connection takes
//!    the session over, and when it goes away. Nobody holds two of them.
//! 2. `Moves::steady`, in a cluster. Held for reading over the publication of an event of this node, and for writing over what
//!    marks that a session has moved. No thread takes it twice.
//! 3. `Log::state`, of one log of `history` at a time. Held over the entry of an event, the look-up of its subscribers and
//!    the pushes, and over a subscription's reply, replay and entry in the index.
//! 4. `History::due`, `History::gaps`, `History::known`, `History::epochs`, a shard of `History::logs`. No other lock is taken while one of
//!    them is held. `History::relieving` comes before `Log::state`; nobody waits for it.
//! 5. `Retained::order`, by triple. Held over the pushes of a retained event, so that the value that is kept at last is
//!    the one that is delivered last.
//! 6. `Pending::progress`. Held over a change of a request's state, which takes locks of both sessions, and over the push
//!    of a reply.
//! 7. `Presence::by_user`, a shard, then `Presence::by_source`, a shard. Whatever looks at all sessions may take locks of a
//!    session while it holds the first, one after the other: counts and samples (`Router::size`, `Router::gauges`), a choice of
//!    sessions (`operator`, `explain`), and what bounds memory. A session that registers takes `Resumes::away`.
//! 8. `Session::holds`. Held over subscribing, from the check until the subscription is in the index, and over a change of
//!    permissions, with the decision on them (`Verifier::review`), of the proof, or of a channel's scope.
//! 9. `Retained::gate`. A subscription holds it for writing over its reply and its entry in the index; a retained event
//!    holds it for reading over its value and the look-up of its subscribers. A channel that gets another scope holds it for
//!    writing over the removal of its values.
//! 10. `Retained::buckets`, then one bucket, then `Accounts::state`. `Cleared` comes after `Retained::order`.
//! 11. `Turns::state`, then `Requests::blocked`.
//! 12. `Requests::by_deadline`, a shard.
//! 13. `HeldPresence::changes`. Held over the push of a presence event to its session.
//! 14. `Gather::state`. Held over the push of a reply or of the end.
//! 15. `Names::folded`.
//! 16. `Index::by_key`, a shard, then `Index::counts`.
//! 17. `Peer::sessions`. Held over the making of a stand-in.
//! 18. `Announced`, then `Acknowledged` of one peer. Held over the messages that tell all peers of a change.
//! 19. `Moves::state`. Held over the question for a session that another node has.
//! 20. `Transit::state`. Held over the pushes of what a session that has moved waited for.
//! 21. `Peer::reports`, then `Outbox::state`. Held over the check whether its session may receive a frame. Tasks are woken after its release.
//! 22. `Session::permissions`, `Session::proof`, `Session::address`, `HintAllowance::full_at`, `Hints::logged`, `Ids::random`,
//!     `Commits::queue`, `Commits::attempts`, `Forgotten::lost`, `DiskReads`, `PendingCommits::waiting`, `EndedSessions`, `Resumes::away`,
//!     `Resumes::by_id`, a shard, those of `resume::kept`, `Calls`, `Call::state`, `Leases::state`, `Cleared`,
//!     `Peer::wants`, `Peer::leaving`, `Peer::asked`, `Asks::state`, `MissedValues::state`, `Peer::inbox`,
//!     `CutOff::state`, `ChangedLoads`, `PressedElsewhere::receivers`, `Adapters`, that of a [`MoveTicket`], those of a [`Backplane`]. No other lock is taken while one of them is held.
//! 23. `Taps::list`, then `Queue::waiting` of one tap; and a ring of the flight recorder, which a worker takes only if nobody
//!     has it, or for some microseconds. No other lock is taken while one of them is held.

mod access;
mod activity;
mod backplane;
mod call;
mod change;
mod commit;
mod decide;
mod declared;
mod deliver;
mod disk;
mod end;
mod ended;
mod event;
pub mod explain;
mod fan_out;
mod forms;
mod frames;
mod gauges;
mod hint;
mod history;
mod ids;
mod index;
mod leases;
mod lists;
mod observe;
mod operator;
mod outbox;
mod policy;
mod presence;
mod pressure;
#[cfg(test)]
mod races;
mod recipients;
mod recorded;
mod replay;
mod request;
mod rescope;
mod resume;
mod retained;
mod review;
mod session;
mod spread;
mod subscribe;
mod sync;
mod tap;
mod wake;
mod will;

pub use activity::QueueSample;
pub use backplane::{Backplane, Fetched, Lost, MoveTicket, Steady};
pub use call::{CallOutcome, Gathered};
pub use change::Reason;
pub use commit::{Append, Appended, Batch, CommitQueue, CommitTicket, Loading, Once, Uncommitted, not_kept};
pub use decide::Decision;
pub use declared::{Declaration, Declared, Refused, SwitchedOff};
pub use disk::{DiskRead, ReadKind, ReadQueue};
pub use end::Ending;
pub use history::{Ends, Found, Kept, LookTicket, MissingEntry, Position, RecoverReason, Recovered};
pub use ids::{Ids, RequestId, SessionId, SubscriptionId};
pub use leases::{GivenUp, LeaseAnswer, LeaseClaim, LeaseHold, LeaseHolder, LeaseKeeper, LeaseName, LeaseTicket};
pub use lists::{
    ApplicationRow, ChannelHistory, ChannelRow, Filter, Load, LogRow, QueueDepth, RequestRow, RequestState,
    RetainedItem, RetainedRow, SessionRow, SessionSort, SubscriptionItem, SubscriptionRow,
};
pub use operator::{CLOSED_BECAUSE_BYTES_MAX, Close, Closed, Removal, Sessions};
pub use outbox::{End, OnFull, Outbox, OutboxLimits, Pressure, PushError, Taken, Taker};
pub use policy::{Limits, Policy};
pub use presence::{Application, ApplicationState};
pub use pressure::Allowance;
pub use recorded::RefusedMessage;
pub use replay::Replay;
pub use request::door::{Data, Door, Given, Payload};
pub use resume::{Allowances, HeldLine, Left, Registered, ResumeReason, ResumeTicket, Resumption, Wanted};
pub use review::Reviewed;
pub use session::{OWN_SOURCE, Registration, Session};
pub use spread::{SPREAD_MAX, spread, step};
pub use subscribe::{Listed, Subscribed};
#[cfg(test)]
pub(crate) use sync::race;
pub use tap::{TAP_RATE_MAX, TAPS_MAX, Tap, TapFilter, TapOptions, TooManyTaps};
pub use wake::{HeldWakes, WakeBatch};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use declared::Declarations;
use tokio::sync::Notify;

use crate::auth::{Identity, Permission, Permissions, Principal};
use crate::telemetry::LogLimit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recorder::{Recorder, What};
use backplane::Cluster;
use call::Calls;
use commit::{Awaited, Commits};
use disk::DiskReads;
use ended::EndedSessions;
use hint::Hints;
use history::History;
use index::Index;
use leases::Leases;
use presence::{Change, Joined, Place, Presence};
use request::deadlines::Requests;
use request::pending::Pending;
use resume::Resumes;
use retained::Retained;
use session::Role;
use tap::Taps;
use wire::{ErrorCode, Refusal, notice};

/// How often a session that registers looks for room again, after sessions that were away have ended for it.
const DISPLACED_MAX: usize = 8;

/// Routes envelopes between the sessions of one broker.
pub struct Router {
    policy: Policy,
    ids: Ids,
    /// What time it was on the calendar at a moment of the monotonic clock.
    calendar: (Instant, SystemTime),
    events: Index,
    handlers: Index,
    hints: Hints,
    requests: Requests,
    retained: Retained,
    history: History,
    presence: Presence,
    calls: Calls,
    /// The queue of events that have to be on disk first, if there is one.
    commits: Option<Commits>,
    /// The queue of events that have to be read from the disk, if there is one.
    reads: Option<DiskReads>,
    resumes: Resumes,
    /// The other nodes, if it is a node of a cluster.
    cluster: Option<Box<Cluster>>,
    /// The leases of exclusive sources, if its sessions need any.
    leases: Option<Arc<Leases>>,
    /// The sessions that have ended, for [`Router::explain`].
    ended: EndedSessions,
    declared: Declarations,
    /// Limits the log lines that sessions can cause.
    log_limit: LogLimit<Logged>,
    /// The number of the last reload.
    reloads: AtomicU64,
    recorder: Arc<Recorder>,
    taps: Arc<Taps>,
    metrics: Arc<Metrics>,
}

/// Something that a session could cause again and again, for which there is a limited number of lines a minute.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Logged {
    ProtectedHandler,
    NamelessReply,
    EndedAway,
}

impl Logged {
    /// How many lines there are in a minute for each address.
    fn lines_max(self) -> u32 {
        match self {
            // A site with many agents can share one address.
            Self::ProtectedHandler => 600,
            Self::NamelessReply => 60,
            // As many as there are of sessions that register.
            Self::EndedAway => 10_000,
        }
    }
}

/// What became of an envelope that was accepted.
#[derive(Default)]
pub struct Routed {
    /// What a sender that gave an `id` is told: for events, and commands that nobody answers.
    pub receipt: Option<Receipt>,
    /// Receivers whose queues are over half now: the sender should wait for them.
    pub pressed: Vec<Arc<Session>>,
    /// In how many outbound queues it is, those of observers included.
    pub deliveries: usize,
    /// Its triple, or that of the request that it answers, is protected: the sender's copy has to be wiped.
    pub secret: bool,
    /// It has to be on disk first. The rest of this follows then.
    pub ticket: Option<Box<CommitTicket>>,
    /// What other nodes have to take before its sender is told.
    waits_for: Awaited,
}

/// The facts of `Broker/Message/Receipt`.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    /// In how many outbound queues the message is.
    pub receivers: usize,
    /// What the sender may have meant instead.
    pub hint: Option<String>,
    /// Its place in a log, if its channel has history.
    pub kept: Option<Box<Kept>>,
    /// In a cluster, to how many other nodes it went.
    pub nodes: Option<usize>,
}

impl Receipt {
    /// The text of `Broker/Message/Receipt` for an event with this `id`.
    pub fn notice(&self, id: &str) -> String {
        let kept = self.kept.as_ref().map(|it| notice::Kept {
            offset: it.position.offset,
            epoch: &it.position.epoch,
            is_duplicate: it.is_duplicate,
        });
        notice::receipt(id, self.receivers, kept, self.nodes, self.hint.as_deref())
    }
}

impl Routed {
    /// It is in the queue of a receiver.
    fn note_delivery(&mut self, session: &Arc<Session>, pressure: Pressure) {
        self.deliveries += 1;
        self.note_pressure(session, pressure);
    }

    /// Whether it is an event that was sent before.
    fn is_duplicate(&self) -> bool {
        self.receipt.as_ref().and_then(|receipt| receipt.kept.as_ref()).is_some_and(|kept| kept.is_duplicate)
    }

    fn note_pressure(&mut self, session: &Arc<Session>, pressure: Pressure) {
        if pressure == Pressure::Over {
            self.pressed.push(Arc::clone(session));
        }
    }
}

/// Why a session was not made known.
#[derive(Debug)]
pub enum NotAttached {
    /// `FORBIDDEN` for the broker's own source, `SOURCE_IN_USE`, `TOO_MANY_SESSIONS`.
    Refused(Refusal),
    /// Its will is refused: any code of an event.
    Will(Refusal),
    /// Its source is exclusive in a cluster, and it has no lease of it: [`Router::seek_lease`].
    Leaseless,
}

impl From<Refusal> for NotAttached {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// An envelope that was not accepted.
#[derive(Debug)]
pub struct Denied {
    /// Why.
    pub refusal: Refusal,
    /// It is a request: the failure goes on the request's own triple.
    pub is_request: bool,
}

/// The users whom an envelope concerns, by the configuration of its channel.
#[derive(Clone, Copy)]
enum Scope<'a> {
    /// Of a user-scoped channel: one user's.
    User(&'a str),
    /// Of a shared channel: everybody's; sent by or for this user.
    Shared(Option<&'a str>),
}

impl<'a> Scope<'a> {
    fn user(self) -> Option<&'a str> {
        match self {
            Self::User(user) => Some(user),
            Self::Shared(user) => user,
        }
    }
}

impl Router {
    /// A router without sessions. `calendar`: what time it is now, for presence.
    #[must_use]
    pub fn new(now: Instant, calendar: SystemTime, policy: Policy, ids: Ids, declarations: Vec<Declaration>) -> Self {
        let requests = Requests::new(now, policy.limits().blocked);
        let metrics = Arc::new(Metrics::new(policy.channel_names()));
        Self {
            resumes: Resumes::new(&policy.resume(), &ids.key(), Arc::clone(requests.earlier())),
            requests,
            policy,
            history: History::new(ids.epoch()),
            ids,
            calendar: (now, calendar),
            events: Index::default(),
            handlers: Index::default(),
            hints: Hints::default(),
            retained: Retained::default(),
            presence: Presence::default(),
            calls: Calls::default(),
            commits: None,
            reads: None,
            cluster: None,
            leases: None,
            ended: EndedSessions::default(),
            declared: Declarations::new(Declared { on: declarations, off: Vec::new() }),
            log_limit: LogLimit::default(),
            reloads: AtomicU64::new(0),
            recorder: Arc::new(Recorder::off(now)),
            taps: Arc::default(),
            metrics,
        }
    }

    /// Counts here, in place of counters of its own.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Scopes, folding, protection and limits.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Makes a session known.
    ///
    /// # Errors
    /// [`NotAttached`].
    pub fn attach(&self, now: Instant, registration: Registration) -> Result<Arc<Session>, NotAttached> {
        let attached = self.attach_if(now, registration, None, || true)?;
        attached.ok_or_else(|| Refusal::new(ErrorCode::Internal, "the broker failed; its log says more").into())
    }

    /// Makes a session known, unless `is_current` says that its identity has to be verified again.
    fn attach_if(
        &self,
        now: Instant,
        registration: Registration,
        lease: Option<LeaseHold>,
        is_current: impl Fn() -> bool,
    ) -> Result<Option<Arc<Session>>, NotAttached> {
        let joined = self.join(now, (registration, lease), None, |_| (), is_current)?;
        Ok(joined.inspect(|session| self.tell_presence(now, session, Change::Joined)))
    }

    /// Lists a session, after `prepare` was called with it. Nobody is told yet. `except`: the number of a session that ends
    /// as soon as this one is listed.
    fn join(
        &self,
        now: Instant,
        (registration, lease): (Registration, Option<LeaseHold>),
        except: Option<u64>,
        prepare: impl FnOnce(&mut Session),
        is_current: impl Fn() -> bool,
    ) -> Result<Option<Arc<Session>>, NotAttached> {
        check_not_own(&registration.source)?;
        let exclusive = registration.identity.exclusive;
        if exclusive && self.needs_leases() && lease.as_ref().is_none_or(LeaseHold::is_lost) {
            return Err(NotAttached::Leaseless);
        }
        let role = Role::of(&registration.identity.principal);
        let mut session = self.session(now, role, registration, None);
        self.check_will_of(&session).map_err(NotAttached::Will)?;
        prepare(&mut session);
        session.holds.lock().lease = lease.filter(|_| exclusive);
        let session = Arc::new(session);
        let place = Place { exclusive, except, longest_away: &|fits| self.longest_away(fits) };
        for _ in 0..DISPLACED_MAX {
            match self.presence.join(&session, &place, &self.policy.limits(), &is_current)? {
                Joined::Listed => {
                    self.note(now, &session, What::Registered);
                    self.note_lease(&session);
                    return Ok(Some(session));
                }
                Joined::Outdated => return Ok(None),
                Joined::Displaces(others) => others.iter().for_each(|other| self.displace(now, other)),
            }
        }
        Err(Refusal::new(ErrorCode::TooManySessions, "other sessions register at the same moment; try again").into())
    }

    /// Attaches an adapter, which sends events, and receives those that it subscribes to. It is not an application, so
    /// presence does not list it.
    pub fn attach_adapter(&self, now: Instant, outbox: Outbox) -> Arc<Session> {
        self.adapter(now, outbox, None)
    }

    /// Attaches an adapter that answers requests, which it gets through `door`.
    pub fn attach_handler(&self, now: Instant, door: Arc<dyn Door>) -> Arc<Session> {
        self.adapter(now, Outbox::refusing(), Some(door))
    }

    fn adapter(&self, now: Instant, outbox: Outbox, door: Option<Arc<dyn Door>>) -> Arc<Session> {
        let identity =
            Identity::unproved(Principal::Service, Permissions { handle: Permission::All, ..Permissions::default() });
        let source = OWN_SOURCE.to_owned();
        let registration = Registration { source, identity, echo: false, address: None, outbox, will: None };
        let adapter = Arc::new(self.session(now, Role::Adapter, registration, door));
        self.note_adapter(&adapter);
        adapter
    }

    fn session(&self, now: Instant, role: Role, registration: Registration, door: Option<Arc<dyn Door>>) -> Session {
        let since = self.date(now);
        Session::new(self.ids.session(), self.ids.stamp(), role, since, registration, self.reloads(), door)
    }

    /// What the calendar says at a moment of the monotonic clock.
    fn date(&self, now: Instant) -> SystemTime {
        let (then, calendar) = self.calendar;
        calendar + now.saturating_duration_since(then)
    }

    /// How long ago a session registered.
    pub fn age(&self, now: Instant, session: &Session) -> Duration {
        self.date(now).duration_since(session.since).unwrap_or_default()
    }

    /// Whether a session asked, or was given, something that is not answered yet.
    pub fn is_in_flight(&self, session: &Session) -> bool {
        !session.holds.lock().is_idle()
    }

    /// The requests that are pending now.
    pub fn pending_requests(&self) -> Unanswered {
        Unanswered(self.requests.all())
    }

    /// Whether any of these requests is pending still between sessions that have a connection. Forgets the others.
    pub fn any_pending(&self, requests: &mut Unanswered) -> bool {
        requests.0.retain(|pending| pending.is_pending_here());
        !requests.0.is_empty()
    }

    /// When [`Router::expire`] wants to be called next; the caller means to call it then.
    pub fn deadline(&self) -> Option<Instant> {
        self.requests.deadline(|| {
            let others = self.resume_deadline().into_iter().chain(self.history.deadline());
            let others = others.chain(self.cut_off_deadline()).chain(self.pressure_deadline());
            others.chain(self.moves_deadline()).chain(self.asks_deadline()).chain(self.values_deadline()).min()
        })
    }

    /// Told whenever the next deadline has become earlier.
    pub fn earlier(&self) -> &Notify {
        self.requests.earlier()
    }

    /// What the router holds, for the operator. Walks the whole index, and takes every session's locks, one after the
    /// other.
    pub fn size(&self) -> Size {
        let (retained_values, retained_bytes) = self.retained.size();
        let (logs, log_entries, log_bytes, known_ids) = self.history.size();
        self.count_kept();
        let mut size = Size {
            requests: self.requests.len(),
            calls: self.calls.len(),
            subscribers: self.events.len(),
            handlers: self.handlers.len(),
            hints: self.hints.len(),
            retained_values,
            retained_bytes,
            resumable: self.resumes.len(),
            kept: self.resumes.kept().entries(),
            kept_bytes: self.resumes.kept().bytes(),
            logs,
            log_entries,
            log_bytes,
            known_ids,
            ..Size::default()
        };
        self.presence.each(|session| {
            size.sessions += 1;
            size.away += usize::from(session.is_away());
            size.asked += session.holds.lock().asked.len();
            size.given += session.busy();
            size.turns += session.turns.len();
            size.waiting += session.turns.waiting();
        });
        size
    }
}

/// Checks that an application registers another source than the broker's own.
///
/// # Errors
/// `FORBIDDEN`.
fn check_not_own(source: &str) -> Result<(), Refusal> {
    if source == OWN_SOURCE {
        let words = "the source 'switchboard' is reserved for adapters in the broker; choose another name";
        return Err(Refusal::new(ErrorCode::Forbidden, words));
    }
    Ok(())
}

/// Requests that were pending at one time, for [`Router::any_pending`].
pub struct Unanswered(Vec<Arc<Pending>>);

/// What a router holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Registered sessions.
    pub sessions: usize,
    /// Calls over HTTP that are being served. They are not sessions of applications.
    pub calls: usize,
    /// The registered sessions that have no connection.
    pub away: usize,
    /// Sessions whose tokens are known.
    pub resumable: usize,
    /// Messages that are kept for resumable sessions, once for each session.
    pub kept: usize,
    /// The memory that they use, in bytes.
    pub kept_bytes: usize,
    /// Pending requests; a gather counts once for each handler.
    pub requests: usize,
    /// Requests that registered sessions asked and that are not answered.
    pub asked: usize,
    /// Requests that registered sessions were given and have not answered.
    pub given: usize,
    /// Turns of ordered handlers, late replies included.
    pub turns: usize,
    /// Requests that wait for a turn, once for each handler.
    pub waiting: usize,
    /// Subscriptions to events, each counted once for each key of the index.
    pub subscribers: usize,
    /// Handler subscriptions, counted likewise.
    pub handlers: usize,
    /// Subscriptions whose triple a hint can name.
    pub hints: usize,
    /// Retained values.
    pub retained_values: usize,
    /// The memory that they use, in bytes.
    pub retained_bytes: usize,
    /// Logs of channels with history.
    pub logs: usize,
    /// Events in them, those included that are too old and not yet dropped.
    pub log_entries: usize,
    /// The memory that they use, in bytes.
    pub log_bytes: usize,
    /// Ids of events with `once` that are known.
    pub known_ids: usize,
}
