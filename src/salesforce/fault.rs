//! [`Fault`]: why a request failed. It has a code and a short text for the agent, and a line for the operator that says
//! what to change, by menu path. [`of_answer`] and [`of_login`] make it from the status and body of an answer.
//!
//! No text of an answer reaches the agent. Only codes and the known texts of logins reach the log, because a message
//! may quote a row.

use std::borrow::Cow;

use wire::{ErrorCode, Refusal};

use super::response::{LoginError, error_codes};
use crate::http::Failure;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    code: ErrorCode,
    agent: Cow<'static, str>,
    operator: Cow<'static, str>,
    what: What,
    /// The open breaker refused the request; the log has the cause already.
    again: bool,
    /// A write may have been done all the same.
    in_doubt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Salesforce as a whole: the network, the login, permissions.
    Request,
    /// The daily limit.
    Limit,
    /// One user's row, or one record.
    Row,
    /// One object's settings and permissions.
    Object,
}

impl Fault {
    /// Salesforce cannot be reached, or not at present.
    pub(super) fn unavailable(agent: impl Into<Cow<'static, str>>, operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UpstreamUnavailable, agent, operator, What::Request)
    }

    /// Salesforce refuses until somebody changes something.
    pub(super) fn rejected(agent: impl Into<Cow<'static, str>>, operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UpstreamRejected, agent, operator, What::Request)
    }

    /// The user's row cannot be used.
    pub(super) fn row(agent: impl Into<Cow<'static, str>>, operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UpstreamRejected, agent, operator, What::Row)
    }

    /// One object cannot be written until somebody changes something.
    pub(super) fn object(agent: impl Into<Cow<'static, str>>, operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UpstreamRejected, agent, operator, What::Object)
    }

    /// Salesforce fails on one object, and may succeed later.
    pub(super) fn object_unavailable(
        agent: impl Into<Cow<'static, str>>,
        operator: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(ErrorCode::UpstreamUnavailable, agent, operator, What::Object)
    }

    /// Another process has locked the record.
    pub(super) fn locked(agent: impl Into<Cow<'static, str>>, operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UpstreamUnavailable, agent, operator, What::Row)
    }

    /// There is no row for the user.
    pub(super) fn not_found(agent: impl Into<Cow<'static, str>>, operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::CredentialsNotFound, agent, operator, What::Row)
    }

    /// The org has used up its API requests of a day.
    pub(super) fn limit() -> Self {
        Self::new(
            ErrorCode::UpstreamUnavailable,
            "the Salesforce org has used up its API requests; tell an administrator",
            "REQUEST_LIMIT_EXCEEDED: the org's API requests of 24 hours are used up, or too many slow calls run at once. \
             Setup > Company Settings > Company Information shows 'API Requests, Last 24 Hours'; Setup > Environments > \
             System Overview shows who uses them",
            What::Limit,
        )
    }

    fn new(
        code: ErrorCode,
        agent: impl Into<Cow<'static, str>>,
        operator: impl Into<Cow<'static, str>>,
        what: What,
    ) -> Self {
        Self { code, agent: agent.into(), operator: operator.into(), what, again: false, in_doubt: false }
    }

    /// The form for a write that may have been done all the same.
    pub(super) fn in_doubt(mut self) -> Self {
        self.in_doubt = true;
        self
    }

    /// Returns whether a write may have been done all the same.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Returns whether the same request may succeed later.
    pub(super) fn may_pass(&self) -> bool {
        self.code.retryable()
    }

    /// The form that an open breaker returns.
    pub(super) fn while_open(mut self) -> Self {
        self.again = true;
        self
    }

    /// Returns whether it is the daily limit.
    pub(super) fn is_limit(&self) -> bool {
        self.what == What::Limit
    }

    /// Returns whether it concerns one row or one object, so that it says nothing about Salesforce as a whole.
    pub(super) fn is_particular(&self) -> bool {
        matches!(self.what, What::Row | What::Object)
    }

    /// The text for the operator.
    pub(super) fn operator(&self) -> &str {
        &self.operator
    }

    /// The refusal for the agent.
    pub(super) fn refusal(&self) -> Refusal {
        Refusal::new(self.code, self.agent.clone())
    }

    /// Logs the line for the operator.
    pub(super) fn log(&self) {
        let (code, hint) = (self.code.as_str(), &*self.operator);
        match (self.code, self.what) {
            _ if self.again => tracing::debug!(code, hint, "refused by the open circuit breaker"),
            (ErrorCode::UpstreamRejected, _) => {
                tracing::error!(code, hint, "could not fetch credentials from Salesforce");
            }
            (_, What::Row) => tracing::info!(code, hint, "could not fetch credentials from Salesforce"),
            (_, What::Request | What::Limit | What::Object) => {
                tracing::warn!(code, hint, "could not fetch credentials from Salesforce");
            }
        }
    }

    /// Logs the line for the operator about a record that was not written: names of fields, never a value.
    pub(super) fn log_unwritten(&self, object: &str, fields: &str) {
        let (code, hint) = (self.code.as_str(), &*self.operator);
        match (self.code, self.what) {
            _ if self.again => tracing::debug!(object, fields, code, hint, "refused by the open circuit breaker"),
            (ErrorCode::UpstreamRejected, What::Request | What::Object) => {
                tracing::error!(object, fields, code, hint, "a record was not written to Salesforce");
            }
            _ => tracing::warn!(object, fields, code, hint, "a record was not written to Salesforce"),
        }
    }
}

/// What a failed request means for what comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Repeating it may help.
    Again(Fault),
    /// The token has or may have expired.
    Login(Fault),
    /// Repeating it does not help.
    Final(Fault),
}

impl Verdict {
    /// The same, but not to be repeated.
    pub(super) fn once(self) -> Self {
        match self {
            Self::Again(fault) => Self::Final(fault),
            verdict @ (Self::Login(_) | Self::Final(_)) => verdict,
        }
    }

    /// The same for a write that may have been done all the same, so it is not to be repeated.
    pub(super) fn in_doubt(self) -> Self {
        Self::Final(self.fault().in_doubt())
    }

    /// Returns whether it concerns one row or one object.
    pub(super) fn is_particular(&self) -> bool {
        let (Self::Again(fault) | Self::Login(fault) | Self::Final(fault)) = self;
        fault.is_particular()
    }

    /// The fault, if nothing more is tried.
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Again(fault) | Self::Login(fault) | Self::Final(fault) => fault,
        }
    }
}

const BUSY: &str = "Salesforce does not answer as it should just now; try again in a moment";
const NO_ACCESS: &str = "Salesforce refuses the broker; tell an administrator: the broker's log says what to change";

/// Returns what a request that got no complete answer means.
pub(super) fn of_failure(failure: &Failure) -> Verdict {
    const AGENT: &str = "Salesforce cannot be reached just now; try again in a moment";
    match failure {
        Failure::TooLarge => Verdict::Final(Fault::rejected(
            "Salesforce sends too much; tell an administrator",
            "an answer of more than 1 MiB was not read: salesforce.credentials names too large an object or resource",
        )),
        Failure::Tls(cause) => Verdict::Final(Fault::unavailable(
            AGENT,
            format!(
                "TLS failed ({cause}): a proxy that looks into TLS needs its certificate in salesforce.ca_file; else the \
                 name in salesforce.login_url is wrong"
            ),
        )),
        Failure::Unconnected(cause) | Failure::Broken(cause) => Verdict::Again(Fault::unavailable(
            AGENT,
            format!(
                "{cause}: name resolution, a firewall or a proxy (HTTPS_PROXY) on the way, or status.salesforce.com"
            ),
        )),
    }
}

const UNSEARCHABLE: &str =
    "salesforce.credentials.key_field cannot be searched: make it Text, 'External ID', not encrypted";

/// The app's place in Setup.
const APP: &str = "Setup > Apps > External Client Apps > External Client App Manager > the broker's app";

/// Returns what an answer with an error means. `names` are the configured fields and the object, which the log may
/// name.
pub(super) fn of_answer(status: u16, body: &[u8], names: &[&str]) -> Verdict {
    let errors = error_codes(body);
    let code = errors.first().map_or("", |error| error.code);
    let message = errors.first().map_or("", |error| &error.message);
    let rejected = |advice: &str| Verdict::Final(Fault::rejected(NO_ACCESS, format!("HTTP {status} {code}: {advice}")));
    match (code, status) {
        ("REQUEST_LIMIT_EXCEEDED", _) => Verdict::Final(Fault::limit()),
        ("INVALID_SESSION_ID" | "INVALID_AUTH_HEADER", _) | ("", 401) => of_session(status, code, message),
        ("INVALID_OPERATION_WITH_EXPIRED_PASSWORD", _) => rejected(
            "the integration user's password has expired. Setup > Users > Users > the integration user > Reset Password, or \
             'Password Never Expires' in its permission set's System Permissions",
        ),
        ("API_DISABLED_FOR_ORG" | "API_CURRENTLY_DISABLED", _) => rejected(
            "the API is off for this user or edition. Setup > Users > Permission Sets > the broker's set > System \
             Permissions: 'API Enabled'",
        ),
        // "field 'X' can not be filtered in a query call": the field exists and is readable.
        ("INVALID_QUERY_FILTER_OPERATOR", _) => rejected(UNSEARCHABLE),
        ("INVALID_FIELD", _) if message.contains("can not be filtered") => rejected(UNSEARCHABLE),
        ("INVALID_FIELD", _) => rejected(&format!(
            "{} does not exist, or field-level security hides it. Setup > Users > Permission Sets > the broker's set > \
             Object Settings > the object > Field Permissions: 'Read Access'; or correct salesforce.credentials",
            named(message, names)
        )),
        ("INVALID_TYPE", _) => rejected(
            "the object of salesforce.credentials.object does not exist, or may not be read. Setup > Users > Permission \
             Sets > the broker's set > Object Settings > the object: 'Read' and 'View All'",
        ),
        ("INSUFFICIENT_ACCESS" | "INSUFFICIENT_ACCESS_OR_READONLY", _) => rejected(
            "a permission is missing. Setup > Users > Permission Sets > the broker's set > Object Settings > the object: \
             'Read' and 'View All'",
        ),
        ("QUERY_TIMEOUT", _) => Verdict::Again(Fault::unavailable(
            BUSY,
            format!(
                "HTTP {status} {code}: the query is slow; make salesforce.credentials.key_field an External ID (indexed)"
            ),
        )),
        ("MALFORMED_QUERY" | "QUERY_TOO_COMPLICATED", _) | (_, 414 | 431) => {
            rejected("a mistake of the broker's own: report it, with salesforce.credentials as it is configured")
        }
        (_, 410) => rejected("this version of the API is gone: set salesforce.api_version to a newer one"),
        ("SERVER_UNAVAILABLE" | "UNKNOWN_EXCEPTION", _) | (_, 406 | 420 | 429 | 500..=599) => {
            Verdict::Again(Fault::unavailable(
                BUSY,
                format!("HTTP {status} {code}: Salesforce is overloaded or under maintenance: status.salesforce.com"),
            ))
        }
        (_, 300..=399) => rejected(
            "Salesforce answers with a redirect, which is never followed: set salesforce.login_url to the org's My Domain \
             (Setup > Company Settings > My Domain)",
        ),
        (_, 404) => rejected("the address does not exist: check salesforce.api_version, the object and apex_path"),
        (_, 401 | 403) => rejected(
            "Salesforce refuses the integration user. Setup > Users > Permission Sets > the broker's set: object, fields, \
             'API Enabled'; Setup > Security > API Access Control: the app is allowed",
        ),
        _ => rejected("an answer that the broker does not know; the org's Setup > Environments > Logs may say more"),
    }
}

/// Returns what a refused token means: it has expired, so a new login helps; or it is not allowed here, so it does not.
fn of_session(status: u16, code: &str, message: &str) -> Verdict {
    let says = |words: &str| message.to_ascii_lowercase().contains(words);
    if says("not valid for use with the rest api") || says("is not attached to agent") {
        return Verdict::Final(Fault::rejected(
            NO_ACCESS,
            format!(
                "HTTP {status} {code}: the session is not allowed for the REST API, which a new login cannot change. {APP} > \
                 Settings > OAuth Settings: the scope 'Manage user data via APIs (api)'; Setup > Security > Session \
                 Settings: no policy that bars API sessions"
            ),
        ));
    }
    Verdict::Login(Fault::rejected(
        NO_ACCESS,
        format!(
            "HTTP {status} {code}: Salesforce refuses a token that it has just given. {APP} > Policies: IP relaxation and \
             session policies; Setup > Users > Users > the integration user: active, and its profile's login hours and IP \
             ranges"
        ),
    ))
}

/// Returns which of the names a message is about: the one that it quotes ("No such column 'X'"), because it may repeat
/// the whole query; otherwise those that it contains.
fn named(message: &str, names: &[&str]) -> String {
    let quoted = |name: &str| message.contains(&format!("'{name}'"));
    if let Some(name) = names.iter().find(|name| name.split('.').any(quoted)) {
        return (*name).to_owned();
    }
    let about: Vec<&str> = names.iter().copied().filter(|name| message.contains(name)).collect();
    match about.as_slice() {
        [] => "a configured field".to_owned(),
        // A quoted query contains all of them, and a longer name may contain a shorter one. Then the first is the best
        // guess.
        [first, ..] if about.len() > 2 => (*first).to_owned(),
        some => some.join(" or "),
    }
}

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
        Verdict::Final(Fault::rejected(NO_ACCESS, operator))
    };
    let busy = |operator: String| Fault::unavailable(BUSY, operator);
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

    fn kind(verdict: Verdict) -> (&'static str, ErrorCode, String) {
        let name = match verdict {
            Verdict::Again(_) => "again",
            Verdict::Login(_) => "login",
            Verdict::Final(_) => "final",
        };
        let fault = verdict.fault();
        (name, fault.code, fault.operator.into_owned())
    }

    #[test]
    fn each_answer_is_told_apart() {
        let array = |code: &str, message: &str| format!(r#"[{{"message":"{message}","errorCode":"{code}"}}]"#);
        let html = "<html><body>maintenance</body></html>".to_owned();
        let cases = [
            (401, array("INVALID_SESSION_ID", "Session expired or invalid"), "login", "has just given"),
            (
                401,
                array("INVALID_SESSION_ID", "This session is not valid for use with the REST API"),
                "final",
                "a new login",
            ),
            (401, array("INVALID_SESSION_ID", "Connected app is not attached to Agent"), "final", "a new login"),
            (401, array("INVALID_OPERATION_WITH_EXPIRED_PASSWORD", ""), "final", "Reset Password"),
            (401, String::new(), "login", "has just given"),
            (403, array("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), "final", "Company Information"),
            (403, array("API_DISABLED_FOR_ORG", ""), "final", "API Enabled"),
            (403, html.clone(), "final", "API Access Control"),
            (
                400,
                array(
                    "INVALID_FIELD",
                    "SELECT CTI_Username__c,CTI_Password__c FROM x WHERE CTI_Username__c = 'y' No such column 'CTI_Password__c' on entity",
                ),
                "final",
                "INVALID_FIELD: CTI_Password__c does not exist",
            ),
            (
                400,
                array("INVALID_FIELD", "field 'CTI_Password__c' can not be filtered in a query call"),
                "final",
                "searched",
            ),
            (
                400,
                array("INVALID_FIELD", "No such column 'CTI_Password__c' on entity"),
                "final",
                "CTI_Password__c does not",
            ),
            (400, array("INVALID_TYPE", ""), "final", "View All"),
            (400, array("MALFORMED_QUERY", "unexpected token"), "final", "own: report it"),
            (400, array("QUERY_TIMEOUT", ""), "again", "External ID"),
            (400, array("SOMETHING_NEW", ""), "final", "does not know"),
            (400, r#"{"errorCode":"INVALID_TYPE","message":"x"}"#.to_owned(), "final", "View All"),
            (404, html.clone(), "final", "does not exist"),
            (410, String::new(), "final", "api_version"),
            (414, String::new(), "final", "own: report it"),
            (302, String::new(), "final", "never followed"),
            (406, String::new(), "again", "HTTP 406"),
            (420, String::new(), "again", "HTTP 420"),
            (429, String::new(), "again", "HTTP 429"),
            (500, array("UNKNOWN_EXCEPTION", ""), "again", "HTTP 500"),
            (503, html, "again", "HTTP 503"),
            (503, r#"["odd", null]"#.to_owned(), "again", "HTTP 503"),
        ];
        for (status, body, expected, words) in cases {
            let (name, code, operator) =
                kind(of_answer(status, body.as_bytes(), &["CTI_Password__c", "CTI_Username__c"]));
            assert_eq!(name, expected, "{status} {body}");
            assert!(operator.contains(words), "{status} {body}: {operator}");
            let unavailable = name == "again" || body.contains("LIMIT");
            assert_eq!(code == ErrorCode::UpstreamUnavailable, unavailable, "{status} {body}");
        }
    }

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
            let (name, _, operator) = kind(of_login(status, body.as_bytes(), Some(-400)));
            assert_eq!(name, expected, "{status} {body}");
            assert!(operator.contains(words), "{status} {body}: {operator}");
        }
    }
}
