//! Apex REST: `GET /services/apexrest/PATH/KEY`, where code of the org answers with the fields of one row; and `GET
//! /services/apexrest/switchboard/token`, which signs a token for the caller (`gadget`).
//!
//! Like Apex, it ignores field-level security and reads encrypted fields in the clear.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::call::Call;
use super::gadget;
use super::org::State;
use super::reply::{Refusal, Reply};
use super::sessions::Session;

/// A path served by Apex code.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    /// The part before the key: `/cti`.
    path: String,
    object: String,
    /// The field that contains the key.
    key: String,
}

/// Answers a call below `/services/apexrest`.
pub(super) fn answer(
    now: Duration,
    state: &State,
    session: &Session,
    call: &Call,
    below: &[&str],
) -> Result<Reply, Refusal> {
    if below == gadget::PATH {
        return gadget::answer(now, state, &session.user, call);
    }
    let (key, path) = below.split_last().ok_or_else(Refusal::not_found)?;
    let resource = state.apex.iter().find(|it| it.path.trim_matches('/').split('/').eq(path.iter().copied()));
    let not_found = || Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", "Could not find a match for URL");
    let resource = resource.ok_or_else(not_found)?;
    if call.method != Method::GET {
        return Err(Refusal::method("GET"));
    }
    let object = state.schema.object(&resource.object).ok_or_else(not_found)?;
    let field = object.field(&resource.key).ok_or_else(not_found)?;
    let row = state.store.rows(&object.name).iter().find(|it| it.value(&field.name) == *key);
    row.map(|it| Reply::ok(&Value::Object(it.values.clone()))).ok_or_else(not_found)
}
