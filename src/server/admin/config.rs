//! `GET /v1/config`: every key in force, and where it was set.

use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::request::Answer;
use crate::config::Setting;

/// The configuration in force.
#[derive(Serialize, ToSchema)]
pub(super) struct Configuration {
    /// Its keys, in the order of the reference; then those of tables that can be repeated.
    keys: Vec<KeyInForce>,
}

/// A key in force.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyInForce {
    /// The key, such as `limits.rate` or `channels.Queue.scope`.
    key: String,
    /// Its value; `"set"` for a secret, the number of rows for `applications`, `null` for a default that is not a value.
    value: Value,
    /// A file and a line, an environment variable, a flag of `serve`, or `default`.
    set: String,
}

/// List every key in force, and where it was set
#[utoipa::path(
    get,
    path = "/v1/config",
    responses((status = 200, description = "The configuration in force.", body = Configuration))
)]
pub(super) async fn config(State(shared): State<Shared>) -> Answer<Configuration> {
    let in_force = shared.broker.in_force.get();
    let keys = in_force.values.list().iter().map(|Setting { key, value, place }| KeyInForce {
        key: key.clone(),
        value: value.clone(),
        set: place.as_ref().map_or_else(|| "default".to_owned(), ToString::to_string),
    });
    Answer(Configuration { keys: keys.collect() })
}
