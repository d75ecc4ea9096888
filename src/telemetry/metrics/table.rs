//! [`Metrics::families`]: the one table of metrics. A scrape, docs/metrics.md and the count of series are made of it.

use std::time::{Duration, SystemTime};

use super::Metrics;
use super::counters::seconds;
use super::family::{Families, Family};
use super::gauges::{ClusterGauges, Gauges, LogGauges, RouterGauges, SalesforceGauges};
use super::label::{Label, Labels};
use super::process::Process;
use super::values::{Check, ConnectionState, Direction, Durable, SessionKind, SessionState, SubscriptionRole};

/// Upper bounds of buckets, of which each histogram uses a part.
const BOUNDS: &[Duration] = &[
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// The upper bounds of the buckets of request durations: from 1 ms on.
pub(super) const REQUEST_BOUNDS: &[Duration] = BOUNDS.split_at(1).1;

/// The same of commits: up to 1 s.
pub(super) const COMMIT_BOUNDS: &[Duration] = BOUNDS.split_at(11).0;

/// The same of calls of Salesforce: from 50 ms on.
pub(super) const SALESFORCE_BOUNDS: &[Duration] = BOUNDS.split_at(6).1;

impl Metrics {
    /// Returns every metric with its present samples.
    pub(super) fn families(&self, gauges: &Gauges) -> Vec<Family> {
        let mut all = Families::default();
        broker(&mut all, gauges);
        self.connections(&mut all, gauges);
        self.messages(&mut all);
        self.requests(&mut all, &gauges.router);
        self.queues(&mut all, &gauges.router);
        self.history(&mut all, gauges);
        self.resumption(&mut all, &gauges.router);
        self.identity(&mut all, gauges);
        if let Some(gauges) = &gauges.salesforce {
            salesforce(&mut all, gauges);
        }
        if let Some(gauges) = &gauges.cluster {
            cluster(&mut all, gauges);
        }
        self.operation(&mut all, gauges);
        runtime(&mut all, gauges);
        if let Some(process) = &gauges.process {
            of_process(&mut all, process);
        }
        all.0
    }

    fn connections(&self, all: &mut Families, gauges: &Gauges) {
        let now = &gauges.connections;
        all.gauge(
            "switchboard_connections",
            "Connections that are open",
            [
                (label(ConnectionState::Handshake), now.handshake),
                (label(ConnectionState::Unregistered), now.unregistered),
                (label(ConnectionState::Registered), now.registered),
            ],
        );
        all.counter("switchboard_connections_accepted", "Connections that listeners accepted", self.accepted.all());
        all.counter(
            "switchboard_connections_refused",
            "Connections and requests that were refused before they became a WebSocket",
            self.refused.all(),
        );
        let RouterGauges { user_sessions, service_sessions, subscribers, handlers, .. } = &gauges.router;
        let sessions = [(SessionKind::User, user_sessions), (SessionKind::Service, service_sessions)];
        let sessions = sessions.into_iter().flat_map(|(kind, by_state)| {
            SessionState::ALL.iter().zip(by_state).map(move |(state, count)| (label((kind, *state)), *count))
        });
        all.gauge("switchboard_sessions", "Registered sessions", sessions);
        all.counter("switchboard_registrations", "Registrations by their outcome", self.registrations.all());
        all.counter(
            "switchboard_closes",
            "WebSockets that ended, by the code of the Close frame (1005: none was given, 1006: the connection was lost)",
            self.closes.all(),
        );
        all.gauge(
            "switchboard_subscriptions",
            "Subscriptions of sessions",
            [(label(SubscriptionRole::Subscriber), *subscribers), (label(SubscriptionRole::Handler), *handlers)],
        );
    }

    fn messages(&self, all: &mut Families) {
        let traffic = &self.traffic;
        all.counter(
            "switchboard_envelopes",
            "Messages of sessions and adapters, whether accepted or refused",
            traffic.envelopes(),
        );
        all.count(
            "switchboard_deliveries",
            "Messages that receivers were given: an event counts once for each receiver",
            traffic.deliveries(),
        );
        all.count("switchboard_events_unheard", "Events that had no receiver", traffic.unheard());
        all.count("switchboard_received_bytes", "Bytes read from WebSockets", traffic.received_bytes());
        all.count("switchboard_sent_bytes", "Bytes written to WebSockets", traffic.sent_bytes());
        all.counter(
            "switchboard_refusals",
            "Messages that were refused, by the code that their sender was told",
            self.refusals.all(),
        );
        all.counter("switchboard_channel_events", "Events by channel", traffic.channel_events());
        all.counter(
            "switchboard_channel_deliveries",
            "Messages that receivers were given, by channel",
            traffic.channel_deliveries(),
        );
        all.counter("switchboard_channel_requests", "Requests by channel", traffic.channel_requests());
    }

    fn requests(&self, all: &mut Families, now: &RouterGauges) {
        all.counter(
            "switchboard_requests",
            "Requests that ended; a gather counts once for each handler",
            self.requests.all(),
        );
        all.histogram(
            "switchboard_request_duration_seconds",
            "Time from a request to its last reply, by what handled it",
            self.request_duration.all(),
        );
        all.number("switchboard_requests_pending", "Requests that have not ended", now.requests_pending);
        all.number(
            "switchboard_handlers_unresponsive",
            "Sessions that missed the time limit of their last request",
            now.unresponsive,
        );
    }

    fn queues(&self, all: &mut Families, now: &RouterGauges) {
        all.number("switchboard_outbound_messages", "Messages in all outbound queues", now.outbound_messages);
        all.number(
            "switchboard_outbound_messages_max",
            "Messages in the outbound queue that has most of them",
            now.outbound_messages_max,
        );
        all.number("switchboard_outbound_bytes", "Bytes in all outbound queues", now.outbound_bytes);
        all.number(
            "switchboard_outbound_bytes_max",
            "Bytes in the outbound queue that has most of them",
            now.outbound_bytes_max,
        );
        all.counter("switchboard_pauses", "How often a connection was not read for a while", self.pauses.all());
        let paused = self.paused_micros.all().map(|(labels, micros)| (labels, seconds(micros)));
        all.counter("switchboard_pause_seconds", "Time for which connections were not read", paused);
        all.count("switchboard_events_dropped", "Events that full queues dropped", self.dropped.get(()));
        all.count(
            "switchboard_lagging_notices",
            "Notices to sessions that their queue is over three quarters full",
            self.lagging.get(()),
        );
        all.counter(
            "switchboard_slow_consumers",
            "Connections that were closed because they took messages too slowly",
            self.slow_consumers.all(),
        );
    }

    fn history(&self, all: &mut Families, gauges: &Gauges) {
        let now = &gauges.router;
        all.number("switchboard_retained_values", "Retained values", now.retained_values);
        all.number("switchboard_retained_bytes", "Memory of retained values", now.retained_bytes);
        let logs = |of: fn(&LogGauges) -> usize| {
            [(label(Durable::Yes), of(&now.durable_logs)), (label(Durable::No), of(&now.other_logs))]
        };
        all.gauge("switchboard_history_logs", "Logs of channels with history", logs(|it| it.logs));
        all.gauge("switchboard_history_entries", "Events in logs", logs(|it| it.entries));
        all.gauge("switchboard_history_bytes", "Memory of logs", logs(|it| it.bytes));
        all.count("switchboard_history_appended", "Events that entered a log", self.history_appended.get(()));
        all.count(
            "switchboard_history_duplicates",
            "Events with once that were sent before, and were not delivered again",
            self.history_duplicates.get(()),
        );
        all.counter(
            "switchboard_history_recoveries",
            "Subscriptions that asked for earlier events",
            self.history_recoveries.all(),
        );
        all.number("switchboard_history_ids", "Ids of events with once that are known", now.known_ids);
        all.count(
            "switchboard_history_ids_forgotten",
            "Ids that were forgotten before history.retry was over, because there were too many",
            now.ids_forgotten,
        );
        all.histogram(
            "switchboard_storage_commit_duration_seconds",
            "Time of writing events of durable channels to the disk",
            self.commit_duration.all(),
        );
        let elsewhere = |labels: &Labels| {
            let of_file = gauges.storage_errors.iter().filter(|(file, _)| label(*file) == *labels);
            of_file.map(|(_, count)| count).sum::<u64>()
        };
        let failed = self.storage_errors.all().map(|(labels, count)| {
            let all = count + elsewhere(&labels);
            (labels, all)
        });
        all.counter("switchboard_storage_errors", "Reads and writes that failed", failed);
        let files = gauges.storage_bytes.iter().map(|(file, bytes)| (label(*file), *bytes));
        all.gauge("switchboard_storage_bytes", "Size of files", files);
    }

    fn resumption(&self, all: &mut Families, now: &RouterGauges) {
        all.counter("switchboard_resumes", "Registrations that were to continue a session", self.resumes.all());
        all.number(
            "switchboard_resume_kept_bytes",
            "Messages kept for resumable sessions, each counted once",
            now.resume_kept_bytes,
        );
        all.counter(
            "switchboard_resume_evicted",
            "Sessions without a connection that ended before their grace period",
            self.resume_evicted.all(),
        );
        all.count("switchboard_wills_published", "Wills that were published", self.wills.get(()));
    }

    fn identity(&self, all: &mut Families, gauges: &Gauges) {
        all.counter(
            "switchboard_authentications",
            "Proofs of identity that were checked: static is a token of [[applications]], certificate a client certificate, \
             salesforce a proof of [auth.salesforce_*], other any other token",
            self.authentications.all(),
        );
        let fetched = gauges.keys_fetched.iter();
        let fetched = fetched.map(|(issuer, at)| (vec![("issuer", issuer.clone())], timestamp(*at)));
        all.gauge(
            "switchboard_jwks_fetched_timestamp_seconds",
            "When the keys of an issuer were last fetched",
            fetched,
        );
        all.counter("switchboard_tls_handshakes", "TLS handshakes with clients", self.tls_handshakes.all());
        let expiries = gauges.certificates.iter().map(|(of, at)| (label(*of), timestamp(*at)));
        all.gauge("switchboard_certificate_expiry_timestamp_seconds", "When a certificate expires", expiries);
    }

    fn operation(&self, all: &mut Families, gauges: &Gauges) {
        let waiting = gauges.adapters_waiting.iter();
        let waiting = waiting.map(|(adapter, waiting)| (vec![("adapter", adapter.clone())], *waiting));
        all.gauge("switchboard_adapter_waiting", "Requests that wait for an adapter", waiting);
        all.count("switchboard_audit_records", "Records that the audit log was given", gauges.audit_records);
        all.count("switchboard_audit_errors", "Audit records that could not be written", gauges.audit_errors);
        all.counter("switchboard_config_reloads", "Reloads of the configuration", self.reloads.all());
        all.number(
            "switchboard_config_applied_timestamp_seconds",
            "When the configuration in force was applied",
            timestamp(self.config_applied()),
        );
        all.counter("switchboard_admin_requests", "Answers of the admin listener", self.admin_requests.all());
        all.number("switchboard_taps", "Taps that are open", gauges.router.taps);
        all.count("switchboard_tap_lines_skipped", "Lines that taps left out", gauges.router.tap_lines_skipped);
    }
}

fn broker(all: &mut Families, gauges: &Gauges) {
    let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("revision", gauges.revision.to_owned())];
    all.gauge("switchboard_build_info", "The program, always 1", [(labels, 1_u64)]);
    let checks = Check::ALL.iter().map(|check| (label(*check), !gauges.not_ready.contains(check)));
    all.gauge("switchboard_ready", "The checks of GET /readyz: 1 is well, 0 fails or warns", checks);
}

fn salesforce(all: &mut Families, gauges: &SalesforceGauges) {
    all.counter("switchboard_salesforce_calls", "Calls of Salesforce", gauges.calls.calls.all());
    all.histogram(
        "switchboard_salesforce_call_duration_seconds",
        "Time of calls of Salesforce, without those that were not sent",
        gauges.calls.duration.all(),
    );
    let Some(org) = &gauges.org else { return };
    all.number(
        "switchboard_salesforce_breaker_open",
        "1 if the breaker keeps calls away from the org",
        org.is_breaker_open,
    );
    if let Some(issued) = org.token_issued {
        all.number(
            "switchboard_salesforce_token_timestamp_seconds",
            "When the present access token was issued",
            timestamp(issued),
        );
    }
    if let Some((remaining, limit)) = org.api_calls {
        all.number(
            "switchboard_salesforce_api_calls_remaining",
            "API calls of 24 hours that the org has left",
            remaining,
        );
        all.number("switchboard_salesforce_api_calls_limit", "API calls that the org has in 24 hours", limit);
    }
}

fn cluster(all: &mut Families, now: &ClusterGauges) {
    all.number("switchboard_cluster_connected", "1 if NATS is connected", now.is_connected);
    all.number("switchboard_cluster_nodes", "Nodes to which there is a link, with this one", now.nodes);
    let by_direction = |[received, sent]: [u64; 2]| [(label(Direction::In), received), (label(Direction::Out), sent)];
    all.counter("switchboard_cluster_messages", "Messages between nodes", by_direction(now.messages));
    all.counter("switchboard_cluster_bytes", "Bytes taken from NATS and given to it", by_direction(now.bytes));
    all.count("switchboard_cluster_reconnects", "How often NATS was connected again", now.reconnects);
    all.count("switchboard_cluster_nodes_lost", "Nodes that were lost", now.nodes_lost);
    all.count("switchboard_cluster_links_broken", "Links to other nodes that broke", now.links_broken);
    all.count("switchboard_cluster_resent", "Parts of messages that were sent to other nodes again", now.resent);
    all.number(
        "switchboard_cluster_window_bytes",
        "What other nodes were sent and have not acknowledged",
        now.window_bytes,
    );
    all.count("switchboard_cluster_messages_unopened", "Messages of NATS that no key of this node opens", now.unopened);
}

fn runtime(all: &mut Families, gauges: &Gauges) {
    let runtime = &gauges.runtime;
    all.number("switchboard_runtime_workers", "Threads that run the tasks of sessions", runtime.workers);
    all.number("switchboard_runtime_tasks", "Tasks that have not ended", runtime.tasks);
    all.number("switchboard_runtime_queue", "Tasks that wait in the queue of all threads", runtime.queue);
    all.count("switchboard_runtime_busy_seconds", "Time for which the threads have run tasks", runtime.busy_seconds);
}

fn of_process(all: &mut Families, process: &Process) {
    all.count("process_cpu_seconds", "Processor time in user and system mode", process.cpu_seconds);
    all.number("process_resident_memory_bytes", "Memory that the process occupies", process.resident_bytes);
    all.number("process_virtual_memory_bytes", "Memory that the process can address", process.virtual_bytes);
    all.number("process_open_fds", "Open file descriptors", process.open_files);
    all.number("process_max_fds", "Limit of open file descriptors", process.open_files_max);
    all.number("process_start_time_seconds", "When the process started", timestamp(process.started));
}

/// The labels of one value.
fn label<L: Label>(value: L) -> Labels {
    L::labels(value.index())
}

/// Seconds since 1970.
fn timestamp(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
