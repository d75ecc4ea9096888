//! What a caller sends, read into types: [`Body`] and [`Query`]. What cannot be read is a [`Problem`].

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use wire::ErrorCode;

use super::problem::Problem;

/// The largest body.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A body in JSON. Without a body, it is read from `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let too_large = |_| {
            let why = format!("the body is larger than {BODY_BYTES_MAX} bytes, or was not sent whole");
            Problem::new(ErrorCode::TooLarge, why)
        };
        let text = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(too_large)?;
        let text: &[u8] = if text.is_empty() { b"{}" } else { &text };
        // The errors name members and types, and a value only where it is not a text.
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
            Ok(text) => ([(axum::http::header::CONTENT_TYPE, "application/json")], text).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer of the admin API cannot be written");
                Problem::new(ErrorCode::Internal, "the answer cannot be written; the log says more").into_response()
            }
        }
    }
}
