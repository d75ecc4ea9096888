//! `GET /healthz` and `GET /readyz`: whether the broker runs, and whether it can serve applications.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;

use super::request::Answer;
use super::{Admin, Shared};
use crate::connection::Stage;
use crate::server::calendar;
use crate::server::cluster::Cluster;

/// How long the broker's runtime may take to run a task.
const PULSE_TIME: Duration = Duration::from_secs(2);

/// How long a look at files may take.
const DISK_TIME: Duration = Duration::from_secs(2);

/// Whether the broker runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    healthy: bool,
}

/// Say whether the broker runs
///
/// It is healthy if its runtime, which serves the applications, has run a task for this call within 2 s.
#[utoipa::path(
    get,
    path = "/healthz",
    responses(
        (status = 200, description = "It runs.", body = Health),
        (status = 503, description = "It is stuck.", body = Health)
    )
)]
pub(super) async fn healthz(State(shared): State<Shared>) -> (StatusCode, Answer<Health>) {
    let healthy = shared.pulse.feel().await;
    (status(healthy), Answer(Health { healthy }))
}

/// Whether the broker can serve applications.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    /// The checks that make it not ready.
    failing: Vec<&'static str>,
    /// The checks that found a problem with which it is still ready.
    warnings: Vec<&'static str>,
}

/// Say whether the broker can serve applications
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "It can, perhaps with warnings.", body = Readiness),
        (status = 503, description = "It cannot.", body = Readiness)
    )
)]
pub(super) async fn readyz(State(shared): State<Shared>) -> (StatusCode, Answer<Readiness>) {
    let (checks, in_force) = (shared.checks().await, shared.broker.in_force.get());
    let is_required = |name| in_force.admin.ready_requires.iter().any(|required| required == name);
    let wrong = checks.into_iter().filter(|check| !check.is_well);
    let (failing, warnings): (Vec<_>, Vec<_>) = wrong.partition(|check| check.fails || is_required(check.name));
    let names = |checks: Vec<Check>| checks.into_iter().map(|check| check.name).collect::<Vec<_>>();
    let readiness = Readiness { ready: failing.is_empty(), failing: names(failing), warnings: names(warnings) };
    (status(readiness.ready), Answer(readiness))
}

fn status(is_good: bool) -> StatusCode {
    if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// One of the checks of readiness.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) is_well: bool,
    /// Whether it makes the broker not ready. Otherwise it is a warning.
    fails: bool,
}

impl Admin {
    /// Makes all checks of readiness.
    pub(super) async fn checks(&self) -> Vec<Check> {
        let broker = &self.broker;
        let has_started = broker.started.is_cancelled();
        let (store, certificate) = self.check_files().await;
        let fails = [
            ("starting", has_started),
            ("draining", broker.shutdown.stage() == Stage::Serving),
            ("listener", !has_started || broker.accepting.load(Ordering::Relaxed) > 0),
            ("store", store),
        ];
        let warns = [
            ("history", broker.committer.as_ref().is_none_or(|committer| !committer.is_failing())),
            ("audit", !broker.adapters.audit().is_failing()),
            ("nats", broker.cluster.as_ref().is_none_or(Cluster::is_well)),
            ("certificate", certificate),
            ("salesforce", broker.adapters.salesforce_is_called()),
        ];
        let check = |fails| move |(name, is_well)| Check { name, is_well, fails };
        fails.into_iter().map(check(true)).chain(warns.into_iter().map(check(false))).collect()
    }

    /// Returns whether the credential store can be read, and whether the certificate is well. A disk that does not answer is
    /// a store that cannot be read.
    async fn check_files(&self) -> (bool, bool) {
        let (broker, turn) = (Arc::clone(&self.broker), Arc::clone(&self.disk));
        let look = async move {
            // One at a time, so that a disk that does not answer gathers no threads.
            let turn = turn.acquire_owned().await;
            spawn_blocking(move || {
                let _turn = turn;
                let is_well = broker.tls().is_none_or(|tls| tls.is_well(calendar()));
                (broker.adapters.store_can_be_read(), is_well)
            })
            .await
        };
        timeout(DISK_TIME, look).await.ok().and_then(Result::ok).unwrap_or((false, true))
    }
}

/// Whether the broker's runtime still runs tasks.
pub(super) struct Pulse {
    tasks: TaskTracker,
    runtime: Handle,
    /// How many tasks have run.
    beats: watch::Sender<u64>,
    /// A task waits to be run. There is one at most, so a stuck runtime does not gather them.
    is_waiting: Arc<AtomicBool>,
}

impl Pulse {
    /// Of this runtime, with tasks on `tasks`.
    pub(super) fn new(tasks: TaskTracker, runtime: Handle) -> Self {
        Self { tasks, runtime, beats: watch::Sender::new(0), is_waiting: Arc::default() }
    }

    /// Returns whether the runtime has run a task within the time from now.
    async fn feel(&self) -> bool {
        let mut beats = self.beats.subscribe();
        if !self.is_waiting.swap(true, Ordering::SeqCst) {
            let (sender, is_waiting) = (self.beats.clone(), Arc::clone(&self.is_waiting));
            let beat = async move {
                is_waiting.store(false, Ordering::SeqCst);
                sender.send_modify(|beats| *beats += 1);
            };
            drop(self.tasks.spawn_on(beat, &self.runtime));
        }
        timeout(PULSE_TIME, beats.changed()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_stuck_runtime_has_no_pulse_and_gathers_no_tasks() {
        let runtime = || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        // Nothing drives it yet.
        let (stuck, own) = (runtime(), runtime());
        let tasks = TaskTracker::new();
        let pulse = Pulse::new(tasks.clone(), stuck.handle().clone());
        own.block_on(async {
            for _ in 0..3 {
                assert!(!pulse.feel().await);
            }
        });
        assert_eq!(tasks.len(), 1);
        let (done, until_done) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || stuck.block_on(until_done));
        let beating = Builder::new_current_thread().enable_time().build().unwrap();
        assert!(beating.block_on(pulse.feel()));
        done.send(()).unwrap();
        thread.join().unwrap().unwrap();
    }
}
