//! [`Metrics`]: what is counted, and how a scrape shows it.
//!
//! Rooms count with [`Counters`] and [`Histogram`]s. Each thread adds to a copy of its own (`cells`), without contention.
//! Values that nothing counts are looked up at a scrape ([`Gauges`]). `table` names every metric, `exposition` writes them in
//! the format that a client asks for, `totals` has the counters that `/v1/stats` shows, and `reference` prints
//! docs/metrics.md. No label takes a value from a client: `values` has the fixed values, `codes` those that are
//! codes of the wire, [`Names`] those of the configuration.

mod accept;
mod cells;
mod codes;
mod counters;
mod exposition;
mod family;
mod gauges;
mod label;
mod names;
mod process;
mod reference;
mod table;
mod totals;
mod traffic;
mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use wire::ErrorCode;

pub use accept::{Format, accepts_gzip};
pub use codes::{ClosedWith, RegistrationOutcome};
pub use counters::{Counters, Histogram, NamedCounters};
pub use exposition::{compress, encode};
pub use gauges::{
    ClusterGauges, Connections, Gauges, LogGauges, OrgGauges, RouterGauges, RuntimeGauges, SalesforceCalls,
    SalesforceGauges,
};
pub use label::{Label, Labels};
pub use names::{Names, OTHER};
pub use process::Process;
pub use reference::reference;
pub use totals::Totals;
pub use traffic::{ChannelPlace, Traffic};
pub use values::{
    AuthOutcome, CertificateOf, Check, ClosedBy, ConnectionState, Direction, Durable, EnvelopeKind, EvictedFor,
    HandlerKind, ListenerKind, PauseReason, RecoveryOutcome, RefusedFor, ReloadOutcome, RequestOutcome, ResumeOutcome,
    SalesforceOperation, SalesforceOutcome, SessionKind, SessionState, SlowFor, StatusClass, StoredFile,
    SubscriptionRole, TlsOutcome,
};

/// The configured channels that have counters of their own.
pub const CHANNELS_MAX: usize = 100;

/// The configured issuers that have counters of their own, with those that are always there.
pub const ISSUERS_MAX: usize = 50;

/// The issuer of static tokens, as counters know it.
pub const STATIC: &str = "static";

/// The issuer of client certificates.
pub const CERTIFICATE: &str = "certificate";

/// The issuer of the proofs of `[auth.salesforce_*]`.
pub const SALESFORCE: &str = "salesforce";

/// Everything that a broker counts.
pub struct Metrics {
    /// Envelopes, deliveries and bytes.
    pub traffic: Traffic,
    /// Connections that listeners accepted.
    pub accepted: Counters<ListenerKind>,
    /// Connections that were refused.
    pub refused: Counters<RefusedFor>,
    /// Registrations.
    pub registrations: Counters<RegistrationOutcome>,
    /// Ends of connections.
    pub closes: Counters<(ClosedWith, ClosedBy)>,
    /// Messages that were refused.
    pub refusals: Counters<ErrorCode>,
    /// Ends of requests.
    pub requests: Counters<RequestOutcome>,
    /// From a request to its last reply.
    pub request_duration: Histogram<HandlerKind>,
    /// Pauses of connections.
    pub pauses: Counters<PauseReason>,
    /// How long they were, in microseconds.
    pub paused_micros: Counters<PauseReason>,
    /// Events that full queues dropped.
    pub dropped: Counters<()>,
    /// Notices that a queue is nearly full.
    pub lagging: Counters<()>,
    /// Connections that were closed as slow consumers.
    pub slow_consumers: Counters<SlowFor>,
    /// Events that entered a log.
    pub history_appended: Counters<()>,
    /// Events with `once` that came again.
    pub history_duplicates: Counters<()>,
    /// Subscriptions that asked for earlier events.
    pub history_recoveries: Counters<RecoveryOutcome>,
    /// Time of commits.
    pub commit_duration: Histogram<()>,
    /// Reads and writes that failed.
    pub storage_errors: Counters<StoredFile>,
    /// Registrations that were to continue a session.
    pub resumes: Counters<ResumeOutcome>,
    /// Sessions without a connection that ended early.
    pub resume_evicted: Counters<EvictedFor>,
    /// Wills that were published.
    pub wills: Counters<()>,
    /// Proofs of identity that were checked.
    pub authentications: Arc<NamedCounters<AuthOutcome>>,
    /// Calls of Salesforce.
    pub salesforce: Arc<SalesforceCalls>,
    /// TLS handshakes.
    pub tls_handshakes: Counters<TlsOutcome>,
    /// Reloads.
    pub reloads: Counters<ReloadOutcome>,
    /// Answers of the admin listener.
    pub admin_requests: Counters<StatusClass>,
    issuers: Arc<Names>,
    /// Milliseconds since 1970.
    config_applied: AtomicU64,
}

impl Metrics {
    /// Counters that are all zero. `channels` are those that are counted apart.
    #[must_use]
    pub fn new(channels: &Arc<Names>) -> Self {
        let issuers = Arc::new(Names::new("issuer", ISSUERS_MAX));
        for name in [STATIC, CERTIFICATE, SALESFORCE] {
            issuers.add(name);
        }
        Self {
            traffic: Traffic::new(channels),
            accepted: Counters::default(),
            refused: Counters::default(),
            registrations: Counters::default(),
            closes: Counters::default(),
            refusals: Counters::default(),
            requests: Counters::default(),
            request_duration: Histogram::new(table::REQUEST_BOUNDS),
            pauses: Counters::default(),
            paused_micros: Counters::default(),
            dropped: Counters::default(),
            lagging: Counters::default(),
            slow_consumers: Counters::default(),
            history_appended: Counters::default(),
            history_duplicates: Counters::default(),
            history_recoveries: Counters::default(),
            commit_duration: Histogram::new(table::COMMIT_BOUNDS),
            storage_errors: Counters::default(),
            resumes: Counters::default(),
            resume_evicted: Counters::default(),
            wills: Counters::default(),
            authentications: Arc::new(NamedCounters::new(&issuers)),
            salesforce: Arc::default(),
            tls_handshakes: Counters::default(),
            reloads: Counters::default(),
            admin_requests: Counters::default(),
            issuers,
            config_applied: AtomicU64::new(0),
        }
    }

    /// The names of channels that a configuration can give a place.
    #[must_use]
    pub fn channel_names() -> Arc<Names> {
        Arc::new(Names::new("channel", CHANNELS_MAX))
    }

    /// Counts the proofs of an issuer of the configuration apart.
    pub fn add_issuer(&self, name: &str) {
        self.issuers.add(name);
    }

    /// Notes when the configuration in force was applied.
    pub fn set_config_applied(&self, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.config_applied.store(u64::try_from(since.as_millis()).unwrap_or_default(), Ordering::Relaxed);
    }

    fn config_applied(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.config_applied.load(Ordering::Relaxed))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&Self::channel_names())
    }
}
