//! (being built)
mod outbox;
pub use outbox::{Gone, Kind, Outbox, OutboxLimits};

/// Routes.
#[derive(Default)]
pub struct Router {
    earlier: tokio::sync::Notify,
}

impl Router {
    /// When [`Router::expire`] wants to be called next.
    pub fn deadline(&self) -> Option<std::time::Instant> {
        None
    }

    /// Told whenever the next deadline has become earlier.
    pub fn earlier(&self) -> &tokio::sync::Notify {
        &self.earlier
    }

    /// Ends what is due.
    pub fn expire(&self, _now: std::time::Instant) {}
}
