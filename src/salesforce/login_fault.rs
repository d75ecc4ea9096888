//! What a refused login means: [`of_login`].

use super::fault::{APP, BUSY, Fault, NO_ACCESS, Verdict};
use super::response::LoginError;

/// Returns what a refused login means. `skew` is how far this computer's clock is ahead, in seconds, if known.
pub(super) fn of_login(status: u16, body: &[u8], skew: Option<i64>) -> Verdict {
    let LoginError { error, description } = LoginError::read(body);
    let says = |words: &str| description.to_ascii_lowercase().contains(words);
    let clock = skew.filter(|skew| skew.abs() > 60).map(|skew| {
        let side = if skew > 0 { "ahead of" } else { "behind" };
        format!("; and this computer's clock is {} s {side} Salesforce's: let NTP set it", skew.abs())
    });
    let refused = |advice: &str| {
        let known = if error.is_empty() { format!("HTTP {status}") } else { format!("{error}, {description:?}") };
        let operator = format!("the login was refused ({known}): {advice}{}", clock.as_deref().unwrap_or_default());
        Verdict::Final(Fault::barred(NO_ACCESS, operator))
    };
    let busy = |operator: String| Fault::gone(BUSY, operator);
    match error.as_str() {
        "rate_limit_exceeded" => Verdict::Final(busy(format!(
            "the login was refused ({error}): the integration user logs in too often; who else uses it?"
        ))),
        _ if says("login rate exceeded") => Verdict::Final(busy(
            "the login was refused (login rate exceeded): the integration user logs in too often; who else uses it?"
                .to_owned(),
        )),
        _ if matches!(status, 406 | 420 | 429 | 500..=599) => {
            Verdict::Again(busy(format!("the login was answered HTTP {status}: status.salesforce.com")))
        }
        _ if (300..400).contains(&status) => refused(
            "it was redirected, which is never followed: set salesforce.login_url to https://login.salesforce.com, \
             https://test.salesforce.com or the org's My Domain (Setup > Company Settings > My Domain)",
        ),
        _ if says("hasn't approved this consumer") => refused(&format!(
            "{APP} > Policies > OAuth Policies: 'Admin approved users are pre-authorized', and a permission set there that \
             the integration user has; or salesforce.username is not a user of this org",
        )),
        _ if says("audience") => refused(
            "set salesforce.audience to https://login.salesforce.com (production) or https://test.salesforce.com (sandbox)",
        ),
        _ if says("expired authorization code") => {
            refused("the assertion came too late, most likely by the clock of this computer")
        }
        _ if says("invalid assertion") => refused(&format!(
            "{APP} > Settings > OAuth Settings > JWT Bearer Flow: the certificate has to belong to \
             salesforce.private_key_file, and must not have ended (openssl x509 -enddate)"
        )),
        _ if says("no valid scopes") => refused(&format!("{APP} > Settings > OAuth Settings: the scope 'api'")),
        _ if says("user is locked") => {
            refused("Setup > Users > Users > the integration user > Unlock; then find out who locked it")
        }
        "inactive_user" => refused("Setup > Users > Users > the integration user: 'Active'"),
        "inactive_org" => refused("the org is not active"),
        "invalid_client_id" | "invalid_client" => refused(&format!(
            "{APP} > Settings > OAuth Settings > Consumer Key and Secret: the same as salesforce.client_id and \
             salesforce.client_secret_file"
        )),
        "invalid_app_access" => {
            refused("Setup > Users > Permission Sets > the broker's set > External Client App Access")
        }
        "unsupported_grant_type" => refused(&format!("{APP} > Settings > Flow Enablement: the flow in use")),
        _ if says("not supported on this domain") => {
            refused("set salesforce.login_url to the org's My Domain (Setup > Company Settings > My Domain)")
        }
        _ => {
            refused(&format!("{APP} > Policies, and Setup > Identity > Login History of the integration user, say why"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refused_login_says_what_to_change() {
        let body = |error: &str, words: &str| format!(r#"{{"error":"{error}","error_description":"{words}"}}"#);
        let grant = |words: &str| body("invalid_grant", words);
        for (status, body, expected, words) in [
            (400, grant("user hasn't approved this consumer"), "final", "pre-authorized"),
            (400, grant("audience is invalid"), "final", "salesforce.audience"),
            (400, grant("Audience validation failed"), "final", "salesforce.audience"),
            (400, grant("invalid assertion"), "final", "certificate"),
            (400, grant("expired authorization code"), "final", "behind Salesforce's"),
            (
                400,
                grant("user is locked"),
                "final",
                "Unlock; then find out who locked it; and this computer's clock is 400 s behind",
            ),
            (400, grant("no valid scopes defined"), "final", "'api'"),
            (400, grant("something new"), "final", "Login History"),
            (400, body("invalid_client_id", "client identifier invalid"), "final", "Consumer Key"),
            (400, body("inactive_user", "user is inactive"), "final", "'Active'"),
            (400, body("rate_limit_exceeded", ""), "final", "too often"),
            (400, "<html>".to_owned(), "final", "HTTP 400"),
            (302, String::new(), "final", "My Domain"),
            (503, String::new(), "again", "HTTP 503"),
        ] {
            let (name, _, operator) = of_login(status, body.as_bytes(), Some(-400)).told();
            assert_eq!(name, expected, "{status} {body}");
            assert!(operator.contains(words), "{status} {body}: {operator}");
        }
    }
}
