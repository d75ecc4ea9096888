//! `POST /v1/reload`: reads the configuration again, and puts it in force.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::acts::Act;
use super::problem::{Code, Problem};
use super::request::{Answer, Body, Query};
use crate::config::Config;
use crate::server::{How, ReloadError, Reloaded, Reloader};

/// How much is said of mistakes.
const DETAIL_CHARS_MAX: usize = 4000;

/// Whether to change anything.
#[derive(Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Check everything, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// How to reload.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadOptions {
    /// What to do about keys that need a restart.
    #[serde(default)]
    restart_keys: RestartKeys,
    /// Reload all nodes of the cluster: all of it is put in force on all of them, or nothing anywhere.
    #[serde(default)]
    cluster: bool,
}

/// What to do about changed keys that need a restart.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RestartKeys {
    /// Refuse the reload.
    #[default]
    Refuse,
    /// Leave them as they are, and put the rest in force.
    Ignore,
}

/// What a reload has changed, or would change.
#[derive(Serialize, ToSchema)]
pub(super) struct ReloadOutcome {
    /// Whether it is in force: not after a dry run.
    applied: bool,
    /// How many reloads were put in force since the start.
    number: u64,
    /// The keys that differ and take effect with a reload.
    changed: Vec<String>,
    /// The keys that differ and need a restart.
    restart: Vec<String>,
    /// Sessions that have ended.
    ended: usize,
    /// What the operator should know of the new configuration.
    warnings: Vec<String>,
}

/// Reload the configuration
///
/// As SIGHUP does: the configuration and its files are read and checked whole, and all of it is put in force or nothing.
#[utoipa::path(
    post,
    path = "/v1/reload",
    params(Parameters),
    request_body(content = Option<ReloadOptions>),
    responses((status = 200, description = "It is in force, or could be.", body = ReloadOutcome))
)]
pub(super) async fn reload(
    State(shared): State<Shared>,
    Query(Parameters { dry_run }): Query<Parameters>,
    act: Act,
    Body(wanted): Body<ReloadOptions>,
) -> Result<Answer<ReloadOutcome>, Problem> {
    act.note(
        &serde_json::json!({ "dry_run": dry_run, "restart_keys": wanted.restart_keys, "cluster": wanted.cluster }),
    );
    let Some(options) = shared.broker.source.get().filter(|options| options.file.is_some()).cloned() else {
        return Err(Problem::new(Code::NoConfigFile, "the broker was started without a configuration file"));
    };
    let how = How { dry_run, keeps_restart_keys: wanted.restart_keys == RestartKeys::Ignore };
    let reloader = Reloader::new(shared.broker.clone());
    let reloaded = match wanted.cluster {
        true => reloader.reload_all(how, options).await,
        false => reloader.reload(how, move || Config::load(options)).await,
    };
    let Reloaded { number, changed, restart, sessions, warnings, .. } = reloaded.map_err(|error| problem(&error))?;
    Ok(Answer(ReloadOutcome { applied: !dry_run, number, changed, restart, ended: sessions.ended, warnings }))
}

fn problem(error: &ReloadError) -> Problem {
    let code = match error {
        ReloadError::Mistakes(_)
        | ReloadError::Unusable(_)
        | ReloadError::Elsewhere { .. }
        | ReloadError::Differs { .. } => Code::InvalidConfig,
        ReloadError::Restart(_) | ReloadError::OfTheCluster(_) => Code::RestartNeeded,
        ReloadError::NoCluster => Code::InvalidRequest,
        ReloadError::Busy | ReloadError::Unreached { .. } | ReloadError::Partly { .. } | ReloadError::Ended => {
            Code::Unavailable
        }
    };
    // A configuration can have many mistakes.
    let text = error.to_string();
    let cut = text.char_indices().nth(DETAIL_CHARS_MAX).map_or(text.len(), |(at, _)| at);
    Problem::new(code, text.get(..cut).unwrap_or_default().to_owned())
}
