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
        // 5xx, and a success status whose body is not what was asked for.
        _ => SalesforceOutcome::ServerError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_once_and_as_a_timeout_if_its_caller_gives_up() {
        let (calls, operation) = (SalesforceCalls::default(), SalesforceOperation::Query);
        CountedCall::begin(&calls, operation).end(SalesforceOutcome::Ok);
        drop(CountedCall::begin(&calls, operation));
        for (outcome, expected) in
            [(SalesforceOutcome::Ok, 1), (SalesforceOutcome::Timeout, 1), (SalesforceOutcome::Network, 0)]
        {
            assert_eq!(calls.calls.get((operation, outcome)), expected, "{outcome:?}");
        }
    }

    #[test]
    fn each_answer_that_is_not_wanted_has_its_outcome() {
        let limit = r#"[{"errorCode":"REQUEST_LIMIT_EXCEEDED","message":"TotalRequests Limit exceeded."}]"#;
        for (status, body, expected) in [
            (429, "", SalesforceOutcome::Limit),
            (403, limit, SalesforceOutcome::Limit),
            (403, "[]", SalesforceOutcome::Rejected),
            (302, "", SalesforceOutcome::Rejected),
            (503, "", SalesforceOutcome::ServerError),
            (200, "<html>", SalesforceOutcome::ServerError),
        ] {
            assert_eq!(refused(status, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
