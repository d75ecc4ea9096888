//! `GET /healthz` and `GET /readyz`: whether the broker runs, and whether it can serve applications.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;

use super::Shared;
use super::request::Answer;
use crate::connection::Stage;
use crate::server::Broker;

/// How long the broker's runtime may take to run a task.
const PULSE_TIME: Duration = Duration::from_secs(2);

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
    /// The checks that found something that does not.
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
    let readiness = shared.broker.readiness();
    (status(readiness.ready), Answer(readiness))
}

fn status(is_good: bool) -> StatusCode {
    if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

impl Broker {
    fn readiness(&self) -> Readiness {
        let checks =
            [("starting", !self.started.is_cancelled()), ("draining", self.shutdown.stage() != Stage::Serving)];
        let failing: Vec<_> = checks.into_iter().filter(|(_, is_wrong)| *is_wrong).map(|(name, _)| name).collect();
        Readiness { ready: failing.is_empty(), failing, warnings: Vec::new() }
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
