//! [`Broker::gauges`]: what metrics say of the present, from every room.

use std::fs;
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::{Broker, calendar};
use crate::http::BreakerState;
use crate::salesforce::Snapshot;
use crate::telemetry::metrics::{
    Connections, Gauges, OrgGauges, Process, RouterGauges, RuntimeGauges, SalesforceGauges, StoredFile,
};

/// The files of the data folder.
const FILES: [(StoredFile, &str); 3] = [
    (StoredFile::History, "history.redb"),
    (StoredFile::Credentials, "credentials.redb"),
    (StoredFile::Audit, "audit.jsonl"),
];

impl Broker {
    /// Returns what metrics say of the present. Blocks on the disk, for the sizes of files. Readiness is left to the caller.
    pub(super) fn gauges(&self) -> Gauges {
        let router = self.router.gauges();
        let (audit_records, audit_errors) = self.adapters.audit().counts();
        let (now, calendar) = (Instant::now().into_std(), calendar());
        let in_force = self.in_force.get();
        let date = |at: std::time::Instant| calendar - now.saturating_duration_since(at);
        Gauges {
            revision: option_env!("SWITCHBOARD_REVISION").unwrap_or("unknown"),
            connections: self.open_connections(&router),
            storage_bytes: self.storage_bytes(),
            keys_fetched: in_force.keys_fetched().map(|(issuer, at)| (issuer.to_owned(), date(at))).collect(),
            certificates: self.tls().map(|tls| tls.expiries()).unwrap_or_default(),
            salesforce: self.salesforce(calendar),
            adapters_waiting: self.adapters.waiting(),
            audit_records,
            audit_errors,
            storage_errors: vec![
                (StoredFile::Audit, audit_errors),
                (StoredFile::Credentials, self.adapters.failed_look_ups()),
                (StoredFile::JetStream, self.cluster.as_ref().map_or(0, Cluster::storage_errors)),
            ],
            runtime: runtime(&self.runtime),
            process: Process::read(),
            cluster: self.cluster.as_ref().map(Cluster::gauges),
            router,
            ..Gauges::default()
        }
    }

    fn open_connections(&self, router: &RouterGauges) -> Connections {
        let upgraded = self.connections.web_sockets();
        let present = |[active, asleep, _]: [usize; 3]| active + asleep;
        let registered = upgraded.min(present(router.user_sessions) + present(router.service_sessions));
        Connections {
            handshake: self.connections.total().saturating_sub(upgraded),
            unregistered: upgraded - registered,
            registered,
        }
    }

    fn storage_bytes(&self) -> Vec<(StoredFile, u64)> {
        let folder = self.config.lock().data_dir.clone();
        let size = |(file, name)| Some((file, fs::metadata(folder.join(name)).ok()?.len()));
        FILES.into_iter().filter_map(size).collect()
    }

    /// What is known of Salesforce, if something uses it.
    fn salesforce(&self, calendar: SystemTime) -> Option<SalesforceGauges> {
        let org = self.adapters.org();
        let verifies = !self.config.lock().proofs.is_empty();
        let org = match org {
            None if !verifies => return None,
            org => org.map(|Snapshot { breaker, token_age, api_usage, .. }| OrgGauges {
                is_breaker_open: breaker != BreakerState::Closed,
                token_issued: token_age.map(|age| calendar - age),
                api_calls: api_usage.map(|(used, limit)| (limit.saturating_sub(used), limit)),
            }),
        };
        Some(SalesforceGauges { calls: self.metrics.salesforce.clone(), org })
    }
}

fn runtime(handle: &Handle) -> RuntimeGauges {
    let metrics = handle.metrics();
    let workers = metrics.num_workers();
    let busy = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker).as_secs_f64());
    RuntimeGauges {
        workers,
        tasks: metrics.num_alive_tasks(),
        queue: metrics.global_queue_depth(),
        busy_seconds: busy.sum(),
    }
}
