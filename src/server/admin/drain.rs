//! `POST /v1/drain`: ends the broker as SIGTERM does.

use axum::extract::State;
use axum::http::StatusCode;

use super::Shared;

/// Drain the broker, and end its process
///
/// As SIGTERM does: sessions are told when to return, requests in flight may finish, then the process ends.
#[utoipa::path(
    post,
    path = "/v1/drain",
    responses((status = 202, description = "The drain begins."))
)]
pub(super) async fn drain(State(shared): State<Shared>) -> StatusCode {
    shared.broker.drain_asked.cancel();
    StatusCode::ACCEPTED
}
