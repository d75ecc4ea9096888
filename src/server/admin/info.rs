//! `GET /v1/info`: what runs here.

use axum::Extension;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::access::Caller;
use super::request::Answer;
use super::urls;
use crate::config::AuthMode;
use crate::telemetry::recorder::Reach;

/// What runs here.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Info {
    /// The version of switchboard.
    version: &'static str,
    /// The commit that it was built from, if the build says so.
    revision: Option<&'static str>,
    /// The name of the host.
    node: String,
    /// For how long it has been running.
    uptime_seconds: u64,
    /// `open` or `tokens`: how sessions prove who they are.
    mode: &'static str,
    /// The operating system and the processor.
    platform: String,
    /// The URLs of the listeners for applications.
    listeners: Vec<String>,
    /// The URLs of the admin listeners.
    admin: Vec<String>,
    /// How far back the flight recorder reaches, if it is on.
    recorder: Option<Reach>,
    /// The name of the token of this call.
    token: String,
    /// What it allows: `read`, `act` or `payloads`.
    may: &'static str,
}

/// The commit; the build of a package sets it.
const REVISION: Option<&str> = option_env!("SWITCHBOARD_REVISION");

/// Say which broker this is
#[utoipa::path(get, path = "/v1/info", responses((status = 200, description = "What runs here.", body = Info)))]
pub(super) async fn info(State(shared): State<Shared>, Extension(caller): Extension<Caller>) -> Answer<Info> {
    let mode = match shared.broker.in_force.get().auth {
        AuthMode::Open => "open",
        AuthMode::Tokens => "tokens",
    };
    let recorder = shared.broker.router.recorder();
    Answer(Info {
        version: env!("CARGO_PKG_VERSION"),
        revision: REVISION,
        node: shared.node.to_string(),
        uptime_seconds: shared.started.elapsed().as_secs(),
        mode,
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        listeners: shared.listeners.clone(),
        admin: urls(&shared.addresses, shared.broker.in_force.get().admin.tls),
        recorder: recorder.is_on().then(|| recorder.reach()),
        token: caller.name.to_string(),
        may: caller.may.as_str(),
    })
}
