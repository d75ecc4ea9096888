//! What a caller sends, read into types: [`Body`] and [`Query`]. What cannot be read is a [`Problem`].

use std::io;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use wire::ErrorCode;

use super::CALL_TIME;
use super::problem::{Code, Problem};
use crate::wiped::Wiped;

/// The largest body.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The media type of an answer.
const JSON: &str = "application/json";

/// The size at which the buffer of an answer with a secret starts.
const SECRET_ANSWER_BYTES: usize = 512;

/// A body in JSON. Without a body, it is read from `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let too_large = |_| {
            let why = format!("the body is larger than {BODY_BYTES_MAX} bytes, or was not sent whole");
            Problem::new(ErrorCode::TooLarge, why)
        };
        let too_late = |_| {
            let why = format!("the body was not sent whole within {} s", CALL_TIME.as_secs());
            Problem::new(Code::BodyTimeout, why)
        };
        // An act has no other time limit.
        let read = timeout(CALL_TIME, axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX)).await;
        let text = read.map_err(too_late)?.map_err(too_large)?;
        let text: &[u8] = if text.is_empty() { b"{}" } else { &text };
        // The error can quote what was sent. Only the caller gets it: it is neither logged nor recorded.
        serde_json::from_slice(text).map(Self).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Problem::invalid(format!("the body does not fit this call: {error}")),
            _ => Problem::new(ErrorCode::InvalidJson, format!("the body is not JSON: {error}")),
        })
    }
}

/// The parameters of the query.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(Problem::invalid(format!("the query does not fit this call: {}", error.body_text()))),
        }
    }
}

/// An answer in JSON.
pub(super) struct Answer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => ([(CONTENT_TYPE, JSON)], text).into_response(),
            Err(error) => unwritten(&error),
        }
    }
}

/// An answer in JSON that has a secret. Its text is erased when it has been sent.
pub(super) struct SecretAnswer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for SecretAnswer<T> {
    fn into_response(self) -> Response {
        let mut text = SecretText(Wiped::with_capacity(SECRET_ANSWER_BYTES));
        match serde_json::to_writer(&mut text, &self.0) {
            Ok(()) => ([(CONTENT_TYPE, JSON)], Bytes::from_owner(text.0.into_bytes())).into_response(),
            Err(error) => unwritten(&error),
        }
    }
}

struct SecretText(Wiped);

impl io::Write for SecretText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.push(bytes, BODY_BYTES_MAX) {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unwritten(error: &serde_json::Error) -> Response {
    tracing::error!(%error, "an answer of the admin API cannot be written");
    Problem::new(ErrorCode::Internal, "the answer cannot be written; the log says more").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_not_sent_whole_is_awaited_no_longer_than_a_call_may_take() {
        let never = futures_util::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>();
        let request = Request::new(axum::body::Body::from_stream(never));
        let read = timeout(CALL_TIME * 2, Body::<serde_json::Value>::from_request(request, &())).await;
        let problem = read.expect("the limit of the body").err().unwrap();
        assert_eq!(problem.code, Code::BodyTimeout);
    }
}
