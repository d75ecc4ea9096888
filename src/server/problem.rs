//! [`Problem`]: an error as `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::Value;
use wire::{ErrorCode, Refusal};

/// The media type.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// An error of the broker, for a program that calls it over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// `urn:switchboard:error:CODE`
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    /// What was wrong, and what to do.
    detail: Cow<'static, str>,
    code: &'static str,
    /// A triple that may have been meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Value>,
}

impl Problem {
    /// A problem with this code. The title is that of the status.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: format!("urn:switchboard:error:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            hint: None,
        }
    }

    /// Why an envelope was refused, with the status of its code.
    pub(super) fn of(refusal: &Refusal) -> Self {
        let hint = refusal.details().find(|(key, _)| *key == "Hint").map(|(_, hint)| hint.clone());
        Self { hint, ..Self::new(status_of(refusal.code), refusal.code.as_str(), refusal.message.clone()) }
    }

    /// The same with another status.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status: status.as_u16(), title: status.canonical_reason().unwrap_or("Error"), ..self }
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The JSON text.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The status of an answer with this code: docs/protocol.md, "Publish by HTTP".
fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidJson | ErrorCode::InvalidEnvelope => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden | ErrorCode::SourceMismatch | ErrorCode::ReservedChannel => StatusCode::FORBIDDEN,
        ErrorCode::NoHandler | ErrorCode::NoSuchRequest => StatusCode::NOT_FOUND,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UserRequired => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::RateLimited | ErrorCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::HandlerGone => StatusCode::BAD_GATEWAY,
        ErrorCode::UpstreamUnavailable | ErrorCode::StorageUnavailable | ErrorCode::RequestCancelled => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::RequestTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::NotRegistered
        | ErrorCode::AlreadyRegistered
        | ErrorCode::SourceInUse
        | ErrorCode::UnknownCommand
        | ErrorCode::NoSuchSubscription
        | ErrorCode::TooManySubscriptions
        | ErrorCode::UpstreamRejected
        | ErrorCode::CredentialsNotFound
        | ErrorCode::TooManySessions
        | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_has_its_code_and_the_status_of_the_code() {
        let refusal =
            Refusal::new(ErrorCode::NoHandler, "nobody handles it").with("Hint", "did you mean Phone/Call/Dial?");
        let problem = Problem::of(&refusal);
        assert_eq!(problem.status(), StatusCode::NOT_FOUND);
        let json: Value = serde_json::from_str(&problem.to_json()).unwrap();
        let expected = json!({
            "type": "urn:switchboard:error:NO_HANDLER",
            "title": "Not Found",
            "status": 404,
            "detail": "nobody handles it",
            "code": "NO_HANDLER",
            "hint": "did you mean Phone/Call/Dial?",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn every_code_has_a_status_of_an_error() {
        let other: Vec<&str> = ErrorCode::ALL
            .iter()
            .filter(|code| status_of(**code) == StatusCode::INTERNAL_SERVER_ERROR)
            .map(|code| code.as_str())
            .collect();
        assert!(
            ErrorCode::ALL.iter().all(|code| status_of(*code).is_client_error() || status_of(*code).is_server_error())
        );
        assert_eq!(other.len(), 10, "{other:?}");
    }
}
