//! `POST /services/oauth2/introspect`: describes a token to the client that it was issued to.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::json;

use super::call::{Call, find};
use super::org::State;
use super::reply::{Refusal, Reply};
use super::token;

/// Describes a token to a client.
pub(super) fn answer(now: Duration, state: &State, call: &Call) -> Reply {
    if call.method != Method::POST {
        return Refusal::method("POST").into();
    }
    let form = call.form().unwrap_or_default();
    let client = match token::client(state, call, &form) {
        Ok(client) => client,
        Err(denial) => return Reply { status: StatusCode::UNAUTHORIZED, ..Reply::from(denial) },
    };
    let session = find(&form, "token").and_then(|it| state.sessions.look(now, it));
    let session = session.filter(|it| client.introspect_all || it.client_id == client.id);
    let Some(session) = session else { return Reply::ok(&json!({ "active": false })) };
    Reply::ok(&json!({
        "active": true,
        "scope": session.scope,
        "client_id": session.client_id,
        "username": session.user.username,
        "sub": format!("{}/id/{}/{}", call.base, state.organization.id, session.user.id),
        "token_type": "access_token",
        "exp": session.ends.as_secs(),
        "iat": session.issued.as_secs(),
        "nbf": session.issued.as_secs(),
    }))
}
