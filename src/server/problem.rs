//! [`Problem`]: an error as `application/problem+json` (RFC 9457), for programs that call the broker over HTTP.

use std::borrow::Cow;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use wire::{ErrorCode, Refusal};

/// The media type of problem documents.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// The challenge of a 401.
pub(super) const CHALLENGE: &str = "Bearer realm=\"switchboard\"";

/// The seconds after which a caller that gets 429 or 503 may try again.
pub(super) const RETRY_AFTER_SECONDS: &str = "5";

/// What is wrong with a call. The codes that the wire has too mean the same here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// A code of the wire.
    Wire(ErrorCode),
    /// A parameter or a member of the body is unknown, missing or has a wrong value.
    InvalidRequest,
    /// There is no such call.
    NotFound,
    /// The call takes another method.
    MethodNotAllowed,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// The body was not sent whole in time.
    BodyTimeout,
    /// The `Host` is not served.
    MisdirectedRequest,
    /// The broker cannot answer now.
    Unavailable,
    /// The configuration has mistakes, or names files that cannot be used.
    InvalidConfig,
    /// Keys have changed that need a restart.
    RestartNeeded,
    /// There is no configuration file to read again.
    NoConfigFile,
}

impl Code {
    /// As the member `code` has it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Wire(code) => code.as_str(),
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::BodyTimeout => "BODY_TIMEOUT",
            Self::MisdirectedRequest => "MISDIRECTED_REQUEST",
            Self::Unavailable => "UNAVAILABLE",
            Self::InvalidConfig => "INVALID_CONFIG",
            Self::RestartNeeded => "RESTART_NEEDED",
            Self::NoConfigFile => "NO_CONFIG_FILE",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidConfig => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RestartNeeded | Self::NoConfigFile => StatusCode::CONFLICT,
            Self::Wire(code) => status_of(code),
        }
    }
}

impl From<ErrorCode> for Code {
    fn from(code: ErrorCode) -> Self {
        Self::Wire(code)
    }
}

/// The status of a code of the wire: docs/protocol.md, "Publish by HTTP".
fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::NotRegistered | ErrorCode::InvalidJson | ErrorCode::InvalidEnvelope => StatusCode::BAD_REQUEST,
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
        ErrorCode::AlreadyRegistered
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

/// An error of a call. Its text never quotes a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    status: StatusCode,
    detail: Cow<'static, str>,
    /// A triple that may have been meant.
    hint: Option<Value>,
}

impl Problem {
    /// An error with what is wrong and what to do.
    pub(super) fn new(code: impl Into<Code>, detail: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        Self { code, status: code.status(), detail: detail.into(), hint: None }
    }

    /// A wrong parameter or member.
    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// Why an envelope was refused.
    pub(super) fn of(refusal: &Refusal) -> Self {
        let hint = refusal.details().find(|(key, _)| *key == "Hint").map(|(_, hint)| hint.clone());
        Self { hint, ..Self::new(refusal.code, refusal.message.clone()) }
    }

    /// The same with another code, and the status of that.
    pub(super) fn with_code(self, code: Code) -> Self {
        Self { code, status: code.status(), ..self }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the answer says when to try again.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }

    /// The JSON text.
    pub(super) fn to_json(&self) -> String {
        let code = self.code.as_str();
        let document = Document {
            kind: format!("urn:switchboard:error:{code}"),
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code,
            hint: self.hint.as_ref(),
        };
        serde_json::to_string(&document).unwrap_or_default()
    }
}

/// A problem document.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// `urn:switchboard:error:CODE`
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: &'a str,
    /// The status.
    status: u16,
    /// What is wrong, and what to do.
    detail: &'a str,
    /// The code.
    code: &'a str,
    /// A triple that may have been meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    hint: Option<&'a Value>,
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
        assert_eq!((problem.status(), problem.is_temporary()), (StatusCode::NOT_FOUND, false));
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
        let is_error = |code: &&ErrorCode| status_of(**code).is_client_error() || status_of(**code).is_server_error();
        assert_eq!(ErrorCode::ALL.iter().filter(is_error).count(), ErrorCode::ALL.len());
        let others = ErrorCode::ALL.iter().filter(|code| status_of(**code) == StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(others.count(), 9);
    }
}
