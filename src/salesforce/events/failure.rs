//! [`Failure`]: why a stream of events ended, and what to do next. Salesforce's own code is in the trailer
//! `error-code`; its message is never logged.

use tonic::{Code, Status};

use crate::http;
use crate::salesforce::answer_fault::of_failure;
use crate::salesforce::fault::Fault;

/// Why a stream ended.
#[derive(Debug)]
pub(super) struct Failure {
    /// What to do next.
    pub(super) next: Next,
    /// A hint for the operator.
    pub(super) hint: String,
    /// The id of the call in Salesforce's logs, for a support case.
    pub(super) rpc_id: Option<String>,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Log in again.
    Login,
    /// Begin at the topic's configured start, because the replay id is no longer valid.
    Anew,
    /// Wait for long: somebody has to change something.
    Slowly,
    /// Wait for a short time.
    Again,
}

impl Failure {
    /// A failure that passes by itself.
    pub(super) fn passing(hint: &str) -> Self {
        Self { next: Next::Again, hint: hint.to_owned(), rpc_id: None }
    }

    /// A failed login.
    pub(super) fn login(fault: &Fault) -> Self {
        Self { next: Next::Again, hint: fault.operator().to_owned(), rpc_id: None }
    }

    /// The failure that a gRPC status means.
    pub(super) fn of(status: &Status) -> Self {
        let trailer = |name: &str| status.metadata().get(name).and_then(|it| it.to_str().ok());
        let known = trailer("error-code").unwrap_or_default();
        let (next, advice) = meaning(status.code(), known);
        let told = if known.is_empty() { format!("{:?}", status.code()) } else { known.to_owned() };
        let hint = match http::Failure::find_in(status) {
            Some(failure) => of_failure(&failure).fault().operator().replace("login_url", "events.endpoint"),
            None => format!("{told}: {advice}"),
        };
        Self { next, hint, rpc_id: trailer("rpc-id").map(str::to_owned) }
    }
}

fn meaning(code: Code, known: &str) -> (Next, &'static str) {
    let says = |words: &str| known.contains(words);
    match code {
        _ if says(".replayid.") => (
            Next::Anew,
            "the kept replay id is not taken any more (older than three days, or another org's): the topic begins as \
             its key 'start' says, and what was published meanwhile may be missing",
        ),
        _ if says(".auth.error") || says(".auth.refresh.invalid") => (Next::Login, "the session has ended"),
        Code::Unauthenticated => (Next::Login, "the session is not taken"),
        Code::NotFound | Code::InvalidArgument | Code::PermissionDenied | Code::FailedPrecondition => (
            Next::Slowly,
            "there is no such topic, or the integration user may not read it. Setup > Integrations > Platform Events, or \
             Change Data Capture (the object must be selected); Setup > Users > Permission Sets > the broker's set > \
             Object Settings: 'Read', for changes 'View All'",
        ),
        Code::ResourceExhausted => (
            Next::Again,
            "the org has used up its event deliveries of 24 hours, or has too many subscribers. Setup > Integrations > \
             Platform Events shows them",
        ),
        _ => (
            Next::Again,
            "the Pub/Sub API is not available: status.salesforce.com, or a proxy that does not pass HTTP/2",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trailer_says_more_than_the_code() {
        let of = |code, known: &str| {
            let mut status = Status::new(code, "told to nobody");
            if !known.is_empty() {
                status.metadata_mut().insert("error-code", known.parse().unwrap());
            }
            let failure = Failure::of(&status);
            assert!(!failure.hint.contains("told to nobody"));
            failure.next
        };
        let prefix = "sfdc.platform.eventbus.grpc.";
        assert_eq!(of(Code::Unauthenticated, &format!("{prefix}service.auth.error")), Next::Login);
        assert_eq!(of(Code::Unknown, &format!("{prefix}service.auth.refresh.invalid")), Next::Login);
        assert_eq!(of(Code::Unauthenticated, ""), Next::Login);
        for known in ["fetch.replayid.corrupted", "fetch.replayid.validation.failed"] {
            assert_eq!(of(Code::InvalidArgument, &format!("{prefix}subscription.{known}")), Next::Anew);
        }
        assert_eq!(of(Code::InvalidArgument, &format!("{prefix}topic.x")), Next::Slowly);
        assert_eq!(of(Code::PermissionDenied, ""), Next::Slowly);
        for code in [Code::Unavailable, Code::Internal, Code::Unknown, Code::Cancelled, Code::ResourceExhausted] {
            assert_eq!(of(code, ""), Next::Again);
        }
    }
}
