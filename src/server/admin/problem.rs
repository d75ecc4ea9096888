//! [`Problem`]: how an error is answered (RFC 9457).

use std::borrow::Cow;

use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use wire::ErrorCode;

/// The media type of problem documents.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// After how many seconds a caller may try again.
const RETRY_AFTER_SECONDS: &str = "5";

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
    /// The `Host` is not served.
    MisdirectedRequest,
    /// The broker cannot answer now.
    Unavailable,
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
            Self::MisdirectedRequest => "MISDIRECTED_REQUEST",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Wire(code) => match code {
                ErrorCode::InvalidJson
                | ErrorCode::InvalidEnvelope
                | ErrorCode::NotRegistered
                | ErrorCode::AlreadyRegistered
                | ErrorCode::UnknownCommand
                | ErrorCode::NoSuchSubscription
                | ErrorCode::TooManySubscriptions => StatusCode::BAD_REQUEST,
                ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
                ErrorCode::Forbidden | ErrorCode::SourceMismatch | ErrorCode::ReservedChannel => StatusCode::FORBIDDEN,
                ErrorCode::NoHandler | ErrorCode::NoSuchRequest | ErrorCode::CredentialsNotFound => {
                    StatusCode::NOT_FOUND
                }
                ErrorCode::SourceInUse => StatusCode::CONFLICT,
                ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                ErrorCode::UserRequired => StatusCode::UNPROCESSABLE_ENTITY,
                ErrorCode::RateLimited | ErrorCode::TooManyRequests | ErrorCode::TooManySessions => {
                    StatusCode::TOO_MANY_REQUESTS
                }
                ErrorCode::HandlerGone | ErrorCode::UpstreamRejected => StatusCode::BAD_GATEWAY,
                ErrorCode::UpstreamUnavailable | ErrorCode::StorageUnavailable | ErrorCode::RequestCancelled => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                ErrorCode::RequestTimeout => StatusCode::GATEWAY_TIMEOUT,
                ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }
}

impl From<ErrorCode> for Code {
    fn from(code: ErrorCode) -> Self {
        Self::Wire(code)
    }
}

/// An error, answered as a problem document. Its text never quotes a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    detail: Cow<'static, str>,
}

impl Problem {
    /// An error with what is wrong and what to do.
    pub(super) fn new(code: impl Into<Code>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), detail: detail.into() }
    }

    /// A wrong parameter or member.
    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidRequest, detail)
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
}

/// The code of a problem, kept with the response for the audit record.
#[derive(Clone, Copy)]
pub(super) struct Answered(pub(super) Code);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code) = (self.code.status(), self.code.as_str());
        let document = Document {
            kind: format!("urn:switchboard:error:{code}"),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: &self.detail,
            code,
        };
        let mut response = (status, serde_json::to_vec(&document).unwrap_or_default()).into_response();
        response.extensions_mut().insert(Answered(self.code));
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
        set(CONTENT_TYPE, PROBLEM_JSON);
        match status {
            StatusCode::UNAUTHORIZED => drop(set(WWW_AUTHENTICATE, "Bearer realm=\"switchboard\"")),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                drop(set(RETRY_AFTER, RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        response
    }
}
