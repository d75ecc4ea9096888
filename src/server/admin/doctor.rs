//! `GET /v1/doctor`: what can keep a page in a browser from reaching the broker.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use utoipa::ToSchema;
use wire::ErrorCode;

use super::Shared;
use super::problem::Problem;
use super::request::{Answer, Query};
use crate::server::doctor::{Browser, Finding, Question, examine};

/// About which page.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The origin of the page, as a browser writes it.
    #[param(example = "https://crm.example.com")]
    origin: Option<String>,
    /// The browser; all, if it is left out.
    #[param(inline)]
    browser: Option<Browser>,
}

/// What was found.
#[derive(Serialize, ToSchema)]
pub(super) struct Findings {
    /// The findings.
    findings: Vec<Finding>,
    /// The broker that was asked.
    node: String,
}

/// Say what can keep a page in a browser from connecting
///
/// Looks at the broker and at its machine. What a page itself can see, and the policies of another machine, are not known here.
#[utoipa::path(
    get,
    path = "/v1/doctor",
    params(Wanted),
    responses((status = 200, description = "What was found.", body = Findings))
)]
pub(super) async fn doctor(
    State(shared): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<Findings>, Problem> {
    let question = Question::new(wanted.origin.as_deref(), wanted.browser).map_err(Problem::invalid)?;
    // One at a time, as all looks at files.
    let turn = shared.disk.clone().acquire_owned().await;
    let own = Shared::clone(&shared);
    let look = spawn_blocking(move || {
        let _turn = turn;
        let config = own.broker.config.lock().clone();
        examine(&config, Some(&own.listeners), &question)
    });
    let findings =
        look.await.map_err(|_| Problem::new(ErrorCode::Internal, "the look has failed; the log says more"))?;
    Ok(Answer(Findings { findings, node: shared.node.to_string() }))
}
