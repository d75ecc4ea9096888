//! [`Settings`]: what all connections of a broker share.

use std::sync::Arc;

use super::log::Cause;
use super::{FailedLogins, Unregistered};
use crate::audit::Audit;
use crate::config::Limits;
use crate::router::{Outbox, OutboxLimits};
use crate::telemetry::LogLimit;
use crate::websocket::FrameMemory;

/// What all connections of a broker share.
pub struct Settings {
    pub(super) limits: Limits,
    pub(super) failed_logins: FailedLogins,
    pub(super) unregistered: Unregistered,
    /// Where refused registrations are recorded.
    pub(super) audit: Option<Arc<Audit>>,
    /// The memory of all outboxes.
    memory: Arc<FrameMemory>,
    /// Limits the log lines that an application can cause.
    pub(super) log_limit: LogLimit<Cause>,
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
            limits,
        }
    }

    /// Records refused registrations here.
    #[must_use]
    pub fn with_audit(self, audit: Arc<Audit>) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
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
        Outbox::new(OutboxLimits {
            messages: self.limits.outbound_messages,
            bytes: self.limits.outbound_bytes,
            refuses: false,
        })
        .with_memory(Arc::clone(&self.memory))
    }
}
