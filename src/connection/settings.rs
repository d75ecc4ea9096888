//! [`Settings`]: what all connections of a broker share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::RwLock;

use super::driver;
use super::log::Cause;
use super::proof::Moment;
use super::{FailedLogins, Unregistered};
use crate::audit::Audit;
use crate::config::Limits;
use crate::router::{Outbox, OutboxLimits};
use crate::telemetry::LogLimit;
use crate::telemetry::metrics::Metrics;
use crate::websocket::FrameMemory;

/// What all connections of a broker share.
pub struct Settings {
    limits: RwLock<Arc<Limits>>,
    pub(super) failed_logins: FailedLogins,
    pub(super) unregistered: Unregistered,
    /// Where refused registrations are recorded.
    pub(super) audit: Option<Arc<Audit>>,
    /// The memory of all outboxes.
    memory: Arc<FrameMemory>,
    /// Where connections are counted.
    pub(super) metrics: Arc<Metrics>,
    /// Limits the log lines that an application can cause.
    pub(super) log_limit: LogLimit<Cause>,
    /// Returns the time of day at a moment of the monotonic clock.
    time_of_day: Box<dyn Fn(Instant) -> SystemTime + Send + Sync>,
}

impl Settings {
    /// Settings with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            failed_logins: FailedLogins::new(limits.failed_registrations),
            unregistered: Unregistered::default(),
            audit: None,
            memory: FrameMemory::new(limits.outbound_total_bytes),
            log_limit: LogLimit::default(),
            metrics: Arc::default(),
            time_of_day: Box::new(driver::time_of_day),
            limits: RwLock::new(Arc::new(limits)),
        }
    }

    /// Records refused registrations here.
    #[must_use]
    pub fn with_audit(self, audit: Arc<Audit>) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// Counts here.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// The limits in force.
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read())
    }

    /// Counts a token that proved nobody. Returns whether its address has reached `limits.failed_registrations` already.
    pub fn failed_login(&self, now: Instant, address: IpAddr) -> bool {
        self.failed_logins.fail(now, address)
    }

    /// Puts other limits in force. Connections take them over when the router's number of reloads has risen.
    pub fn replace_limits(&self, limits: Limits) {
        self.failed_logins.set_failures_max(limits.failed_registrations);
        self.memory.set_max(limits.outbound_total_bytes);
        *self.limits.write() = Arc::new(limits);
    }

    /// Replaces the system's clock, by which some proofs end. A test or a simulation says what time it is.
    #[must_use]
    pub fn with_time_of_day(self, time_of_day: impl Fn(Instant) -> SystemTime + Send + Sync + 'static) -> Self {
        Self { time_of_day: Box::new(time_of_day), ..self }
    }

    /// Returns this moment by both clocks.
    pub(super) fn moment(&self, now: Instant) -> Moment {
        Moment { now, time_of_day: (self.time_of_day)(now) }
    }

    /// The count of connections that have not registered.
    pub fn unregistered(&self) -> &Unregistered {
        &self.unregistered
    }

    /// The memory of all outboxes.
    pub fn memory(&self) -> &FrameMemory {
        &self.memory
    }

    /// An outbox of the configured size.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        let limits = self.limits();
        Outbox::new(OutboxLimits { messages: limits.outbound_messages, bytes: limits.outbound_bytes, refuses: false })
            .with_memory(Arc::clone(&self.memory))
    }
}
