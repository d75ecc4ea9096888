//! SIGUSR1: writes the flight recorder to a file, while the broker runs.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::signals::UserSignals;
use crate::telemetry::recorder::Dumps;

/// Writes a file at each SIGUSR1. Never ready.
pub(super) async fn at_each_signal(mut signals: UserSignals, dumps: &Arc<Dumps>) {
    loop {
        signals.next().await;
        #[expect(clippy::disallowed_methods, reason = "the name of the file says the time of day")]
        let (now, wall) = (Instant::now().into_std(), SystemTime::now());
        let dumps = Arc::clone(dumps);
        // The outcome is logged.
        tokio::task::spawn_blocking(move || dumps.write_and_log(now, wall, "SIGUSR1")).await.ok();
    }
}
