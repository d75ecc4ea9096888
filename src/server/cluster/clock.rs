//! [`Clock`]: a monotonic clock that goes on while the machine is suspended.

use std::time::{Duration, Instant};

/// A clock whose times are [`Instant`]s, though those of the system may stand still during a suspension.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    /// What the system's clock showed then.
    shown: Duration,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { started: tokio::time::Instant::now().into_std(), shown: shown() }
    }

    pub(super) fn now(&self) -> Instant {
        self.started + shown().saturating_sub(self.shown)
    }
}

/// `CLOCK_BOOTTIME`.
#[cfg(target_os = "linux")]
fn shown() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

/// The monotonic clock of other systems. Windows counts suspension in it, macOS does not: there, a node that slept notices it
/// when its peers no longer know it.
#[cfg(not(target_os = "linux"))]
fn shown() -> Duration {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let now = tokio::time::Instant::now().into_std();
    now.saturating_duration_since(*FIRST.get_or_init(|| now))
}
