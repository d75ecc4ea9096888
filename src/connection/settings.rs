//! [`Settings`]: what all connections of a broker share.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::driver;
use super::log::Cause;
use super::proof::Moment;
use super::{FailedLogins, Unregistered};
use crate::audit::Audit;
use crate::config::Limits;
use crate::router::{Outbox, OutboxLimits};
use crate::telemetry::LogLimit;

/// What all connections of a broker share.
pub struct Settings {
    pub(super) limits: Limits,
    pub(super) failed_logins: FailedLogins,
    pub(super) unregistered: Unregistered,
    /// Where refused registrations are recorded.
    pub(super) audit: Option<Arc<Audit>>,
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
            log_limit: LogLimit::default(),
            time_of_day: Box::new(driver::time_of_day),
            limits,
        }
    }

    /// Records refused registrations here.
    #[must_use]
    pub fn with_audit(self, audit: Arc<Audit>) -> Self {
        Self { audit: Some(audit), ..self }
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

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The count of connections that have not registered.
    pub fn unregistered(&self) -> &Unregistered {
        &self.unregistered
    }

    /// An outbox of the configured size.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        Outbox::new(OutboxLimits {
            messages: self.limits.outbound_messages,
            bytes: self.limits.outbound_bytes,
            refuses: false,
        })
    }
}
