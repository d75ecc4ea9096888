//! [`CountedCall`]: one call of an org, which is counted when it ends, even if its caller gives up.

use tokio::time::Instant;

use super::response::error_codes;
use crate::telemetry::metrics::{SalesforceCalls, SalesforceOperation, SalesforceOutcome};

/// A call on its way.
pub(super) struct CountedCall<'c> {
    calls: &'c SalesforceCalls,
    operation: SalesforceOperation,
    begun: Instant,
    outcome: SalesforceOutcome,
}

impl<'c> CountedCall<'c> {
    /// Begins a call. Dropped without an outcome, it took too long.
    pub(super) fn begin(calls: &'c SalesforceCalls, operation: SalesforceOperation) -> Self {
        Self { calls, operation, begun: Instant::now(), outcome: SalesforceOutcome::Timeout }
    }

    /// Ends the call.
    pub(super) fn end(mut self, outcome: SalesforceOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for CountedCall<'_> {
    fn drop(&mut self) {
        self.calls.calls.count((self.operation, self.outcome));
        self.calls.duration.observe(self.operation, self.begun.elapsed());
    }
}

/// What an answer with an error status means.
pub(super) fn refused(status: u16, body: &[u8]) -> SalesforceOutcome {
    let is_limit = || error_codes(body).iter().any(|error| error.code == "REQUEST_LIMIT_EXCEEDED");
    match status {
        429 => SalesforceOutcome::Limit,
        _ if is_limit() => SalesforceOutcome::Limit,
        300..=499 => SalesforceOutcome::Rejected,
        // Something else than JSON with a status of success, too.
        _ => SalesforceOutcome::ServerError,
    }
}
