//! Reads the org's answer about a token: [`introspected`] and [`told`] accept no more of it than necessary.

use std::time::Duration;

use serde::Deserialize;

use super::Proven;
use crate::auth::AuthError;
use crate::config::exact_record_id;

/// How far the org's clock may be ahead of the broker's.
const CLOCK_SKEW: Duration = Duration::from_mins(1);

/// The refusal of a token that belongs to another org.
pub(super) const OTHER_ORG: &str = "the token is of another Salesforce org than the one in org_id";

/// Why an answer proves nobody.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The token is refused.
    Refused(&'static str),
    /// The answer is not one that an org gives.
    Unreadable,
}

impl From<Doubt> for AuthError {
    fn from(doubt: Doubt) -> Self {
        match doubt {
            Doubt::Refused(why) => Self::Unauthenticated(why.into()),
            Doubt::Unreadable => {
                Self::Unavailable("Salesforce does not answer as it should; try again in a moment".into())
            }
        }
    }
}

/// Returns a user's record id in 18 characters.
pub(super) fn user_id(text: &str) -> Option<String> {
    exact_record_id(text).filter(|id| id.starts_with("005"))
}

/// The answer to an introspection (RFC 7662). A repeated key makes it unreadable, here and below.
#[derive(Deserialize)]
struct Introspected {
    active: bool,
    client_id: Option<String>,
    username: Option<String>,
    sub: Option<String>,
    token_type: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// Returns whether an introspection says that a token is not active.
pub(super) fn is_inactive(body: &[u8]) -> bool {
    serde_json::from_slice(body).is_ok_and(|answer: Introspected| !answer.active)
}

/// Reads the answer to an introspection. `clients` are the apps whose tokens are accepted.
pub(super) fn introspected(now: Duration, body: &[u8], org_id: &str, clients: &[String]) -> Result<Proven, Doubt> {
    let answer: Introspected = serde_json::from_slice(body).map_err(|_| Doubt::Unreadable)?;
    if !answer.active {
        return Err(Doubt::Refused(
            "Salesforce says that the token is not active: it has expired, was revoked, or is another app's that \
             client_id may not see",
        ));
    }
    if !answer.client_id.is_some_and(|client| clients.contains(&client)) {
        return Err(Doubt::Refused("the token was given to another app than those of allowed_clients"));
    }
    if answer.token_type.is_some_and(|kind| kind.to_ascii_lowercase().contains("refresh")) {
        return Err(Doubt::Refused("the token is a refresh token: send the access token"));
    }
    let (org, user_id) = answer.sub.as_deref().and_then(identity).ok_or(Doubt::Unreadable)?;
    if org != org_id {
        return Err(Doubt::Refused(OTHER_ORG));
    }
    let time = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(|_| Doubt::Unreadable);
    let ends = answer.exp.map(time).transpose()?;
    if ends.is_some_and(|ends| ends <= now) {
        return Err(Doubt::Refused("the token has expired: get a new one"));
    }
    if answer.nbf.map(time).transpose()?.is_some_and(|begins| begins > now.saturating_add(CLOCK_SKEW)) {
        return Err(Doubt::Refused("the token is not good yet: the broker's clock is behind Salesforce's"));
    }
    Ok(Proven { user_id, username: answer.username, federation_id: None, ends })
}

/// Returns the org and the user in an identity URL, `https://…/id/ORG/USER`. The URL itself is never requested.
fn identity(address: &str) -> Option<(String, String)> {
    let mut parts = address.rsplit('/');
    let (user, org) = (user_id(parts.next()?)?, exact_record_id(parts.next()?)?);
    (parts.next()? == "id").then_some((org, user))
}

#[derive(Deserialize)]
struct Told {
    user_id: String,
    organization_id: String,
    preferred_username: Option<String>,
    active: Option<bool>,
}

/// Reads the answer to a userinfo request.
pub(super) fn told(body: &[u8], org_id: &str) -> Result<Proven, Doubt> {
    let answer: Told = serde_json::from_slice(body).map_err(|_| Doubt::Unreadable)?;
    let user_id = user_id(&answer.user_id).ok_or(Doubt::Unreadable)?;
    if exact_record_id(&answer.organization_id).ok_or(Doubt::Unreadable)? != org_id {
        return Err(Doubt::Refused(OTHER_ORG));
    }
    if answer.active == Some(false) {
        return Err(Doubt::Refused("the user is not active in Salesforce"));
    }
    Ok(Proven { user_id, username: answer.preferred_username, federation_id: None, ends: None })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ORG: &str = "00D000000000001EAA";
    const NOW: Duration = Duration::from_hours(500_000);

    fn with(mut answer: Value, change: Value) -> String {
        let Value::Object(change) = change else { panic!("an object") };
        answer.as_object_mut().unwrap().extend(change);
        answer.as_object_mut().unwrap().retain(|_, value| *value != json!("absent"));
        answer.to_string()
    }

    /// The answer that Salesforce documents, with some of it changed.
    fn introspection(change: Value) -> Result<Proven, Doubt> {
        let answer = json!({
            "active": true, "scope": "api", "client_id": "ours", "username": "alice@example.com",
            "sub": "https://login.salesforce.com/id/00D000000000001EAA/005000000000002AAA", "token_type": "access_token",
            "exp": 1_800_007_200, "iat": 1_800_000_000, "nbf": 1_800_000_000,
        });
        introspected(NOW, with(answer, change).as_bytes(), ORG, &["ours".to_owned(), "mine".to_owned()])
    }

    #[test]
    fn introspection_is_believed_of_this_org_these_apps_and_this_moment() {
        let ends = Some(Duration::from_hours(500_002));
        let (user_id, username) = ("005000000000002AAA".to_owned(), Some("alice@example.com".to_owned()));
        let alice = Proven { user_id, username, federation_id: None, ends };
        assert_eq!(introspection(json!({})), Ok(alice.clone()));
        for change in [
            json!({"client_id": "mine"}),
            json!({"token_type": "Bearer"}),
            json!({"token_type": "absent", "nbf": "absent", "scope": null}),
            json!({"nbf": 1_800_000_060}),
            json!({"sub": "https://acme.my.salesforce.com/id/00D000000000001/005000000000002"}),
        ] {
            assert_eq!(introspection(change.clone()), Ok(alice.clone()), "{change}");
        }
        for (change, part) in [
            (json!({"active": false}), "not active"),
            (json!({"client_id": "theirs"}), "another app"),
            (json!({"client_id": null}), "another app"),
            (json!({"client_id": "absent"}), "another app"),
            (json!({"token_type": "refresh_token"}), "refresh token"),
            (json!({"sub": "https://x/id/00D000000000002EAA/005000000000002AAA"}), "another Salesforce org"),
            (json!({"exp": 1_800_000_000}), "expired"),
            (json!({"nbf": 1_800_000_061}), "not good yet"),
        ] {
            assert!(matches!(introspection(change), Err(Doubt::Refused(why)) if why.contains(part)), "{part}");
        }
        for change in [
            json!({"active": "true"}),
            json!({"active": "absent"}),
            json!({"sub": "absent"}),
            json!({"sub": "005000000000002AAA"}),
            json!({"sub": "https://x/00D000000000001EAA/005000000000002AAA"}),
            json!({"sub": "https://x/id/00D000000000001EAA/001000000000002AAA"}),
            json!({"sub": "https://x/id/00D000000000001EAA/005000000000002AAB"}),
            json!({"sub": "https://x/id/00D000000000001EAA/005000000000002AAA/"}),
            json!({"exp": -1}),
            json!({"exp": "1800007200"}),
        ] {
            assert_eq!(introspection(change.clone()), Err(Doubt::Unreadable), "{change}");
        }
        let twice = br#"{"active":false,"active":true}"#;
        assert_eq!(introspected(NOW, twice, ORG, &[]), Err(Doubt::Unreadable));
    }

    #[test]
    fn userinfo_is_believed_of_this_org() {
        let answer = |change| {
            let answer = json!({
                "sub": "https://login.salesforce.com/id/00D000000000001EAA/005000000000002AAA", "user_id": "005000000000002AAA",
                "organization_id": ORG, "preferred_username": "alice@example.com", "active": true,
            });
            told(with(answer, change).as_bytes(), ORG)
        };
        let (user_id, username) = ("005000000000002AAA".to_owned(), Some("alice@example.com".to_owned()));
        let alice = Proven { user_id, username, federation_id: None, ends: None };
        assert_eq!(answer(json!({})), Ok(alice.clone()));
        assert_eq!(answer(json!({"organization_id": "00D000000000001", "active": "absent"})), Ok(alice));
        assert_eq!(answer(json!({"organization_id": "00D000000000002EAA"})), Err(Doubt::Refused(OTHER_ORG)));
        assert!(matches!(answer(json!({"active": false})), Err(Doubt::Refused(_))));
        for change in [
            json!({"user_id": "absent"}),
            json!({"user_id": "alice"}),
            json!({"organization_id": null}),
            json!({"organization_id": "acme"}),
        ] {
            assert_eq!(answer(change.clone()), Err(Doubt::Unreadable), "{change}");
        }
        for body in ["", "null", "[]", "<html>", "\"x\"", r#"{"user_id":"a","user_id":"b"}"#] {
            assert_eq!(told(body.as_bytes(), ORG), Err(Doubt::Unreadable), "{body}");
        }
    }
}
