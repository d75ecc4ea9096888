//! The user of a token: `/services/oauth2/userinfo`, and the identity URL `/id/ORG/USER`.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::call::{Call, find};
use super::clock::written;
use super::org::State;
use super::reply::Reply;
use super::seed::User;
use super::sessions::Session;

/// `/services/oauth2/userinfo`
pub(super) fn answer(now: Duration, state: &mut State, call: &Call) -> Reply {
    match session(now, state, call) {
        Ok(session) => Reply::ok(&told(state, call, &session.user)),
        Err(text) => forbidden(text),
    }
}

/// `/id/ORG/USER`
pub(super) fn identity(now: Duration, state: &mut State, call: &Call, (org, user): (&str, &str)) -> Reply {
    let session = match session(now, state, call) {
        Ok(session) => session,
        Err(text) => return forbidden(text),
    };
    if org != state.organization.id {
        return forbidden("Wrong_Org");
    }
    if user != session.user.id {
        return forbidden("Bad_Id");
    }
    let mut identity = told(state, call, &session.user);
    if let Value::Object(identity) = &mut identity {
        let user = &session.user;
        identity.insert("id".to_owned(), json!(address(state, call, user)));
        identity.insert("asserted_user".to_owned(), json!(true));
        identity.insert("username".to_owned(), json!(user.username));
        identity.insert("display_name".to_owned(), json!(user.name()));
        identity.insert("active".to_owned(), json!(user.active));
        identity.insert("last_modified_date".to_owned(), json!(written(session.issued)));
    }
    Reply::ok(&identity)
}

fn session(now: Duration, state: &mut State, call: &Call) -> Result<Session, &'static str> {
    let form = call.form().unwrap_or_default();
    let token = call.token().or_else(|| call.parameter("oauth_token")).or_else(|| find(&form, "access_token"));
    let Some(token) = token else { return Err("Missing_OAuth_Token") };
    let lifetime = state.lifetime();
    state.sessions.find(now, lifetime, token).ok_or("Bad_OAuth_Token")
}

/// These two resources refuse with plain text.
fn forbidden(text: &'static str) -> Reply {
    Reply::of(StatusCode::FORBIDDEN, "text/html;charset=UTF-8", text)
}

fn address(state: &State, call: &Call, user: &User) -> String {
    format!("{}/id/{}/{}", call.base, state.organization.id, user.id)
}

fn told(state: &State, call: &Call, user: &User) -> Value {
    let base = &call.base;
    let rest = format!("{base}/services/data/v{{version}}");
    json!({
        "sub": address(state, call, user),
        "user_id": user.id,
        "organization_id": state.organization.id,
        "preferred_username": user.username,
        "nickname": user.username,
        "name": user.name(),
        "email": user.email,
        "email_verified": true,
        "given_name": user.first_name,
        "family_name": user.last_name,
        "zoneinfo": "Etc/UTC",
        "photos": {},
        "profile": format!("{base}/{}", user.id),
        "address": {},
        "urls": {
            "rest": format!("{rest}/"),
            "query": format!("{rest}/query/"),
            "sobjects": format!("{rest}/sobjects/"),
            "custom_domain": base,
        },
        "active": user.active,
        "user_type": "STANDARD",
        "language": "en_US",
        "locale": "en_GB",
        "utcOffset": 0,
        "is_app_installed": true,
        "is_salesforce_integration_user": user.integration,
    })
}
