//! `POST /services/oauth2/token`: JWT bearer and client credentials; `/revoke` ends a token.
//!
//! Other flows, such as username-password, are refused as in an org where they are switched off.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{CACHE_CONTROL, PRAGMA};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::call::{Call, find};
use super::faults::Effects;
use super::jwt::Assertion;
use super::org::State;
use super::reply::{Refusal, Reply};
use super::seed::{Client, User};
use super::sessions::Session;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The largest difference between clocks. An assertion may last five minutes more than this.
const SKEW: Duration = Duration::from_mins(3);
const LIFE_MAX: Duration = Duration::from_mins(5);

/// A refusal of the token endpoint: a JSON object, not the array of the REST API.
pub(super) struct Denial {
    error: String,
    description: String,
}

impl Denial {
    /// A refusal with the endpoint's texts.
    pub(super) fn new(error: &str, description: &str) -> Self {
        Self { error: error.to_owned(), description: description.to_owned() }
    }

    fn grant(description: &str) -> Self {
        Self::new("invalid_grant", description)
    }
}

impl From<Denial> for Reply {
    fn from(denial: Denial) -> Self {
        let body = json!({ "error": denial.error, "error_description": denial.description });
        uncached(Self::json(StatusCode::BAD_REQUEST, &body))
    }
}

/// Logs someone in.
pub(super) fn answer(now: Duration, state: &mut State, call: &Call, effects: &Effects) -> Reply {
    if call.method != Method::POST {
        return Refusal::method("POST").into();
    }
    let granted = match call.form() {
        None => Err(Denial::new("unsupported_grant_type", "grant type not supported")),
        Some(form) => match find(&form, "grant_type") {
            Some(JWT_BEARER) => by_assertion(now, state, call, &form),
            Some("client_credentials") => by_secret(state, call, &form),
            _ => Err(Denial::new("unsupported_grant_type", "grant type not supported")),
        },
    };
    match granted {
        Ok(grant) => {
            state.logins += 1;
            issue(now, state, call, effects, grant)
        }
        Err(denial) => denial.into(),
    }
}

/// Ends a token.
pub(super) fn revoke(state: &mut State, call: &Call) -> Reply {
    let form = call.form().unwrap_or_default();
    let token = find(&form, "token").or_else(|| call.parameter("token"));
    match token {
        Some(token) => {
            state.sessions.end(token);
            Reply::of(StatusCode::OK, "text/plain", "")
        }
        None => Denial::new("unsupported_token_type", "this token type is not supported").into(),
    }
}

/// Identifies a client by its id and secret, in the body or by HTTP Basic.
pub(super) fn client<'s>(state: &'s State, call: &Call, form: &[(String, String)]) -> Result<&'s Client, Denial> {
    let (id, secret) = match call.basic() {
        Some((id, secret)) => (id, Some(secret)),
        None => {
            (find(form, "client_id").unwrap_or_default().to_owned(), find(form, "client_secret").map(ToOwned::to_owned))
        }
    };
    let Some(client) = state.clients.iter().find(|it| it.id == id) else {
        return Err(Denial::new("invalid_client_id", "client identifier invalid"));
    };
    match secret {
        Some(secret) if client.secret.as_deref() == Some(secret.as_str()) => Ok(client),
        _ => Err(Denial::new("invalid_client", "invalid client credentials")),
    }
}

struct Grant {
    user: Arc<User>,
    client_id: String,
    scope: String,
    by_assertion: bool,
}

fn by_assertion(now: Duration, state: &State, call: &Call, form: &[(String, String)]) -> Result<Grant, Denial> {
    let invalid = || Denial::grant("invalid assertion");
    let assertion = find(form, "assertion").and_then(Assertion::read).ok_or_else(invalid)?;
    let issuer = assertion.text("iss").unwrap_or_default();
    let Some(client) = state.clients.iter().find(|it| it.id == issuer) else {
        return Err(Denial::new("invalid_client_id", "client identifier invalid"));
    };
    let certificate = client.certificate_der.as_ref().ok_or_else(invalid)?;
    if !assertion.signed_by(certificate) {
        return Err(invalid());
    }
    let audiences = assertion.audiences();
    let known = |it: &&str| state.organization.audiences.iter().any(|known| known == it) || *it == call.base;
    if !audiences.iter().any(known) {
        return Err(Denial::grant("audience is invalid"));
    }
    match assertion.ends() {
        None => return Err(invalid()),
        Some(ends) if ends.saturating_add(SKEW) < now => return Err(Denial::grant("expired authorization code")),
        Some(ends) if ends > now + LIFE_MAX + SKEW => return Err(invalid()),
        Some(_) => {}
    }
    let subject = assertion.text("sub").unwrap_or_default();
    let unapproved = || Denial::grant("user hasn't approved this consumer");
    let user = user(state, subject).ok_or_else(unapproved)?;
    if client.users.as_ref().is_some_and(|users| !users.iter().any(|it| it.eq_ignore_ascii_case(subject))) {
        return Err(unapproved());
    }
    grant(client, user, true)
}

fn by_secret(state: &State, call: &Call, form: &[(String, String)]) -> Result<Grant, Denial> {
    let client = client(state, call, form)?;
    let run_as = client.run_as.as_deref().and_then(|it| user(state, it));
    let run_as = run_as.ok_or_else(|| Denial::grant("no client credentials user enabled"))?;
    grant(client, run_as, false)
}

fn grant(client: &Client, user: &Arc<User>, by_assertion: bool) -> Result<Grant, Denial> {
    if !user.active {
        return Err(Denial::new("inactive_user", "user is inactive"));
    }
    let supported = |scope: &&str| by_assertion || !["full", "refresh_token", "offline_access"].contains(scope);
    let scope: Vec<_> = client.scope.split_whitespace().filter(supported).collect();
    // An approval must include more than the right to refresh.
    if scope.iter().all(|it| ["refresh_token", "offline_access"].contains(it)) {
        return Err(Denial::grant(if by_assertion {
            "user hasn't approved this consumer"
        } else {
            "no valid scopes defined"
        }));
    }
    Ok(Grant { user: Arc::clone(user), client_id: client.id.clone(), scope: scope.join(" "), by_assertion })
}

fn user<'s>(state: &'s State, username: &str) -> Option<&'s Arc<User>> {
    state.users.iter().find(|it| it.username.eq_ignore_ascii_case(username))
}

fn issue(now: Duration, state: &mut State, call: &Call, effects: &Effects, grant: Grant) -> Reply {
    let org_id = state.organization.id.clone();
    let mut body = json!({
        "access_token": null,
        "scope": grant.scope,
        "instance_url": effects.instance_url.as_deref().unwrap_or(&call.base),
        "id": format!("{}/id/{org_id}/{}", call.base, grant.user.id),
        "token_type": "Bearer",
    });
    if !grant.by_assertion
        && let Value::Object(body) = &mut body
    {
        body.insert("issued_at".to_owned(), json!(now.as_millis().to_string()));
        // In the right form; it is not verified here.
        body.insert("signature".to_owned(), json!(BASE64_STANDARD.encode(rand::random::<[u8; 32]>())));
    }
    let session = Session {
        user: grant.user,
        client_id: grant.client_id,
        scope: grant.scope,
        issued: now,
        ends: now + state.lifetime(),
    };
    let token = state.sessions.open(&org_id, session);
    if let Value::Object(body) = &mut body {
        body.insert("access_token".to_owned(), json!(token));
    }
    uncached(Reply::ok(&body))
}

fn uncached(reply: Reply) -> Reply {
    reply.with(CACHE_CONTROL, "no-cache, no-store").with(PRAGMA, "no-cache")
}
