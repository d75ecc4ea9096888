//! [`Gauges`]: what is looked up at a scrape, because nothing counts it: sessions, queues, stores, times.

use std::sync::Arc;
use std::time::SystemTime;

use super::counters::{Counters, Histogram};
use super::process::Process;
use super::table::SALESFORCE_BOUNDS;
use super::values::{CertificateOf, Check, SalesforceOperation, SalesforceOutcome, StoredFile};

/// What is looked up at a scrape.
#[derive(Default)]
pub struct Gauges {
    /// The revision that the program was built from.
    pub revision: &'static str,
    /// The checks that fail or warn; all others are well.
    pub not_ready: Vec<Check>,
    /// The connections of each state.
    pub connections: Connections,
    /// What the router has.
    pub router: RouterGauges,
    /// The sizes of files on disk, in bytes.
    pub storage_bytes: Vec<(StoredFile, u64)>,
    /// When the keys of each issuer were last fetched.
    pub keys_fetched: Vec<(String, SystemTime)>,
    /// When certificates expire.
    pub certificates: Vec<(CertificateOf, SystemTime)>,
    /// What is known of Salesforce, if the broker uses it.
    pub salesforce: Option<SalesforceGauges>,
    /// The cluster, if the broker is a node of one.
    pub cluster: Option<ClusterGauges>,
    /// The requests that wait for each adapter.
    pub adapters_waiting: Vec<(String, usize)>,
    /// The records that the audit log has.
    pub audit_records: u64,
    /// The records that could not be written.
    pub audit_errors: u64,
    /// Reads and writes that failed, as far as the metrics do not count them.
    pub storage_errors: Vec<(StoredFile, u64)>,
    /// The broker's runtime.
    pub runtime: RuntimeGauges,
    /// The process, where the system says something about it.
    pub process: Option<Process>,
}

/// The connections of each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Not upgraded yet.
    pub handshake: usize,
    /// Upgraded, without a session.
    pub unregistered: usize,
    /// Upgraded, with a session.
    pub registered: usize,
}

/// What a router has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterGauges {
    /// Sessions of users: active, asleep, away.
    pub user_sessions: [usize; 3],
    /// Sessions of services: active, asleep, away.
    pub service_sessions: [usize; 3],
    /// Subscriptions that receive events.
    pub subscribers: usize,
    /// Subscriptions that handle requests.
    pub handlers: usize,
    /// Requests that have not ended. A gather counts once for each handler.
    pub requests_pending: usize,
    /// Handlers whose last request timed out, and that have not answered since.
    pub unresponsive: usize,
    /// Messages in all outbound queues.
    pub outbound_messages: usize,
    /// Messages in the longest.
    pub outbound_messages_max: usize,
    /// Bytes in all outbound queues.
    pub outbound_bytes: usize,
    /// Bytes in the largest.
    pub outbound_bytes_max: usize,
    /// Retained values.
    pub retained_values: usize,
    /// The memory that they use, in bytes.
    pub retained_bytes: usize,
    /// Logs on disk.
    pub durable_logs: LogGauges,
    /// Logs in memory.
    pub other_logs: LogGauges,
    /// Ids of events with `once` that are known.
    pub known_ids: usize,
    /// Ids that were forgotten before their time, because there were too many.
    pub ids_forgotten: u64,
    /// What is kept for resumable sessions, in bytes.
    pub resume_kept_bytes: usize,
    /// Taps that are open.
    pub taps: usize,
    /// Lines that taps left out.
    pub tap_lines_skipped: u64,
}

/// Logs of channels with history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogGauges {
    /// How many there are.
    pub logs: usize,
    /// Their events.
    pub entries: usize,
    /// The memory that they use, in bytes.
    pub bytes: usize,
}

/// What a node knows of its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterGauges {
    /// NATS is connected.
    pub is_connected: bool,
    /// Nodes to which there is a link, with this one.
    pub nodes: usize,
    /// What all of them have not acknowledged.
    pub window_bytes: usize,
    /// Messages of links: in, out.
    pub messages: [u64; 2],
    /// Bytes given to NATS and taken from it: in, out.
    pub bytes: [u64; 2],
    /// How often NATS was connected again.
    pub reconnects: u64,
    /// Links that broke.
    pub links_broken: u64,
    /// Nodes that were lost.
    pub nodes_lost: u64,
    /// Parts of messages that were sent again.
    pub resent: u64,
    /// NATS messages that did not open.
    pub unopened: u64,
}

/// What is known of Salesforce.
pub struct SalesforceGauges {
    /// Calls and how long they took.
    pub calls: Arc<SalesforceCalls>,
    /// The org of `[salesforce]`, if it is used.
    pub org: Option<OrgGauges>,
}

/// What is known of an org.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrgGauges {
    /// The breaker for the whole org keeps calls away.
    pub is_breaker_open: bool,
    /// When the present access token was issued.
    pub token_issued: Option<SystemTime>,
    /// The API calls of 24 hours that are left, and the limit, if an answer has said so.
    pub api_calls: Option<(u64, u64)>,
}

/// Counts calls of an org.
pub struct SalesforceCalls {
    /// Calls.
    pub calls: Counters<(SalesforceOperation, SalesforceOutcome)>,
    /// How long they took.
    pub duration: Histogram<SalesforceOperation>,
}

impl Default for SalesforceCalls {
    fn default() -> Self {
        Self { calls: Counters::default(), duration: Histogram::new(SALESFORCE_BOUNDS) }
    }
}

/// The broker's runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RuntimeGauges {
    /// Worker threads.
    pub workers: usize,
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Tasks in the queue that all workers share.
    pub queue: usize,
    /// How long all workers together have worked, in seconds.
    pub busy_seconds: f64,
}
