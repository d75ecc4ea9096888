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
//! 19. `Moves::state`. Held over the question for a session that another node has, and over a reply that goes back to
//!     the old node of a session, or the word that such replies are held.
//! 20. `Transit::state`. Held over the pushes of what a session that has moved waited for.
//! 21. `Peer::reports`, then `Outbox::state`. Held over the check whether its session may receive a frame. Tasks are woken after its release.
//! 22. `Session::permissions`, `Session::proof`, `Session::address`, `HintAllowance::full_at`, `Hints::logged`, `Ids::random`,
//!     `Commits::queue`, `Commits::attempts`, `Forgotten::lost`, `DiskReads`, `PendingCommits::waiting`, `EndedSessions`, `Resumes::away`,
//!     `Resumes::by_id`, a shard, those of `resume::kept`, those of `resume::floors`, `Calls`, `Call::state`, `Leases::state`, `Cleared`,
//!     `Peer::wants`, `Peer::leaving`, `Peer::asked`, `Asks::state`, `MissedValues::state`, `Peer::inbox`, `CutOff::state`, `ChangedLoads`,
//!     `PressedElsewhere::receivers`, `Adapters`, that of a [`MoveTicket`], those of a [`Backplane`] and of a
//!     [`RecordCache`]. No other lock is taken while one of them is held.
//! 23. `Taps::list`, then `Queue::waiting` of one tap; and a ring of the flight recorder, which a worker takes only if nobody
//!     has it, or for some microseconds. No other lock is taken while one of them is held.

mod access;
mod activity;
mod attach;
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
mod holdings;
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
mod routed;
mod session;
mod size;
mod spread;
mod subscribe;
mod sync;
mod tap;
mod unsubscribe;
mod wake;
mod will;

pub use activity::QueueSample;
pub use attach::NotAttached;
pub use backplane::{Backplane, Fetched, Lost, MoveTicket, RecordCache, Steady};
pub use call::{CallOutcome, Gathered};
pub use change::Reason;
pub use commit::{
    Append, Appended, Batch, CommitQueue, CommitTicket, Loading, LoggedValue, Once, Uncommitted, ValueOutcome, not_kept,
};
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
pub use routed::{Receipt, Routed};
pub use session::{OWN_SOURCE, Registration, Session};
pub use size::Size;
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

use crate::telemetry::LogLimit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recorder::Recorder;
use backplane::Cluster;
use call::Calls;
use commit::Commits;
use disk::DiskReads;
use ended::EndedSessions;
use hint::Hints;
use history::History;
use index::Index;
use leases::Leases;
use presence::Presence;
use request::deadlines::Requests;
use request::pending::Pending;
use resume::Resumes;
use retained::Retained;
use tap::Taps;
use wire::Refusal;

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
}

/// Requests that were pending at one time, for [`Router::any_pending`].
pub struct Unanswered(Vec<Arc<Pending>>);
