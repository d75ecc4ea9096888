//! `DELETE /v1/retained`: removes the retained values of a triple.

use std::future::poll_fn;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use wire::{Triple, check_name, check_part};

use super::Shared;
use super::acts::Act;
use super::problem::Problem;
use super::request::{Answer, Query};
use crate::router::{Denied, Removal};

/// Which values, all exactly.
#[derive(Serialize, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The first part of the triple.
    channel: String,
    /// The second part.
    topic: String,
    /// The third part.
    subtopic: String,
    /// The user to whom they belong; absent on a shared channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

/// What was removed.
#[derive(Serialize, ToSchema)]
pub(super) struct Removed {
    /// How many values: one for each target.
    removed: usize,
}

/// Remove the retained values of a triple
///
/// Nobody is told. On a channel with `retain = "durable"`, they are removed from the disk too before the answer.
#[utoipa::path(
    delete,
    path = "/v1/retained",
    params(Which),
    responses((status = 200, description = "They are removed.", body = Removed))
)]
pub(super) async fn remove(
    State(shared): State<Shared>,
    act: Act,
    Query(which): Query<Which>,
) -> Result<Answer<Removed>, Problem> {
    act.note(&which);
    let Which { channel, topic, subtopic, user } = which;
    for (key, part) in [("channel", &channel), ("topic", &topic), ("subtopic", &subtopic)] {
        check_part(part).map_err(|fault| Problem::invalid(format!("{key} {fault}")))?;
    }
    if let Some(Err(fault)) = user.as_deref().map(check_name) {
        return Err(Problem::invalid(format!("user {fault}")));
    }
    let refused = |refusal: wire::Refusal| Problem::new(refusal.code, refusal.message);
    let (router, triple) = (&shared.broker.router, Triple::new(channel, topic, subtopic));
    let removal = router.remove_retained(Instant::now().into_std(), user.as_deref(), &triple);
    let removed = match removal.map_err(refused)? {
        Removal::Removed(removed) => removed,
        Removal::Waits(mut ticket) => {
            let outcome = poll_fn(|cx| ticket.poll(cx)).await;
            let routed = outcome.map_err(|Denied { refusal, .. }| refused(refusal))?;
            routed.receipt.map_or(0, |receipt| receipt.receivers)
        }
    };
    Ok(Answer(Removed { removed }))
}
