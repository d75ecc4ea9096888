//! How a [`Problem`] is answered.

use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::server::problem::{CHALLENGE, RETRY_AFTER_SECONDS};
pub(super) use crate::server::problem::{Code, Document, PROBLEM_JSON, Problem};

/// The code of a problem, kept with the response for the audit record.
#[derive(Clone, Copy)]
pub(super) struct Answered(pub(super) Code);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, self.to_json()).into_response();
        response.extensions_mut().insert(Answered(self.code));
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
        set(CONTENT_TYPE, PROBLEM_JSON);
        if status == StatusCode::UNAUTHORIZED {
            set(WWW_AUTHENTICATE, CHALLENGE);
        }
        if self.is_temporary() {
            set(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}
