//! `POST /v1/sessions/close`: ends sessions, or sends their clients to connect again.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::Instant;
use utoipa::ToSchema;
use wire::ErrorCode;

use super::Shared;
use super::acts::Act;
use super::problem::Problem;
use super::request::{Answer, Body};
use crate::router::{self, CLOSED_BECAUSE_BYTES_MAX, Sessions};

/// Which sessions to close, and how. A session has to match all of `source`, `user` and `session` that are given; at least one
/// is.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Close {
    /// Sessions of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Sessions of this user.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The session with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// Why, for the application and its user; at most 120 bytes.
    #[schema(min_length = 1, max_length = 120)]
    reason: String,
    /// The clients are to connect again, at times that are spread.
    #[serde(default)]
    reconnect: bool,
}

/// What was closed.
#[derive(Serialize, ToSchema)]
#[schema(as = Closed)]
pub(super) struct Outcome {
    /// How many sessions, on all nodes of a cluster.
    closed: u64,
    /// Not every node of the cluster has answered.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    /// The nodes that did not answer within 2 s.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unanswered: Vec<String>,
}

/// Close sessions
///
/// Without `reconnect`, they end at once with 4410 and the reason; their clients stop. With it, they are closed with 1012 after
/// a notice that says when to connect again, and resumable ones keep their grace. An application
/// is not locked out by this. In a cluster, it closes the sessions of all nodes.
#[utoipa::path(
    post,
    path = "/v1/sessions/close",
    request_body = Close,
    responses((status = 200, description = "They are closed.", body = Outcome))
)]
pub(super) async fn close(
    State(shared): State<Shared>,
    act: Act,
    Body(close): Body<Close>,
) -> Result<Answer<Outcome>, Problem> {
    act.note(&close);
    let Close { source, user, session, reason, reconnect } = close;
    if source.is_none() && user.is_none() && session.is_none() {
        return Err(Problem::invalid("name the sessions: at least one of source, user and session"));
    }
    if reason.trim().is_empty() || reason.len() > CLOSED_BECAUSE_BYTES_MAX {
        return Err(Problem::invalid(format!("reason must have 1 to {CLOSED_BECAUSE_BYTES_MAX} bytes")));
    }
    let which = Sessions { source, user, id: session };
    let (told, answer) = oneshot::channel();
    // Nobody waits any more if the caller has hung up.
    let told = |closed| drop(told.send(closed));
    let now = Instant::now().into_std();
    shared.broker.router.close_everywhere(now, &router::Close { which, reason, reconnect }, told);
    let closed = answer.await.map_err(|_| Problem::new(ErrorCode::Internal, "the broker ends"))?;
    let router::Closed { sessions, silent } = closed;
    Ok(Answer(Outcome { closed: sessions, partial: !silent.is_empty(), unanswered: silent }))
}
