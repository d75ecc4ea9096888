//! [`Fault`]: why a request failed. It has a code and a short text for the agent, and a line for the operator that says
//! what to change, by menu path. [`of_answer`] and [`of_login`] make it from the status and body of an answer.
//!
//! No text of an answer reaches the agent. Only codes and the known texts of logins reach the log, because a message
//! may quote a row.

use std::borrow::Cow;
use std::time::Duration;

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
    /// How long Salesforce asks to be left alone.
    pause: Option<Duration>,
    /// Salesforce was not asked, because of an earlier failure that the log has already.
    again: bool,
}

/// What a fault says about other requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Nothing: it concerns one row or one object, or Salesforce was not asked.
    Nothing,
    /// Requests for the same purpose are likely to fail too.
    Purpose,
    /// Salesforce does not work for any purpose.
    All,
    /// The requests of a day are used up.
    Day,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Salesforce as a whole: the network, the login, maintenance.
    Salesforce,
    /// The purpose of the request: its permissions, its configuration.
    Request,
    /// The daily limit.
    Limit,
    /// The limit of concurrent calls, which a short pause respects.
    Crowd,
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

    /// Salesforce does not work for any purpose at present.
    pub(super) fn gone(agent: impl Into<Cow<'static, str>>, operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UpstreamUnavailable, agent, operator, What::Salesforce)
    }

    /// Salesforce refuses the broker whatever it asks, until somebody changes something.
    pub(super) fn barred(agent: impl Into<Cow<'static, str>>, operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UpstreamRejected, agent, operator, What::Salesforce)
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

    /// Another process has locked the record.
    pub(super) fn locked(agent: impl Into<Cow<'static, str>>, operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UpstreamUnavailable, agent, operator, What::Row)
    }

    /// Code of the org failed, on its own data.
    pub(super) fn code(operator: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            ErrorCode::UpstreamRejected,
            "code of the Salesforce org failed; tell an administrator: the broker's log says where to look",
            operator,
            What::Row,
        )
    }

    /// A user has caused too many calls in a minute.
    pub(super) fn too_many_calls(calls_max: u32, left: Duration) -> Self {
        let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0)).max(1);
        Self::new(
            ErrorCode::RateLimited,
            format!("this user has caused {calls_max} calls to Salesforce within a minute; try again in {seconds} s"),
            format!(
                "a user's applications have caused {calls_max} calls within a minute, which salesforce.calls_per_user \
                 allows: a program that repeats requests without a pause"
            ),
            What::Row,
        )
    }

    /// Too many slow calls run in the org at once.
    pub(super) fn crowded() -> Self {
        Self::new(
            ErrorCode::UpstreamUnavailable,
            BUSY,
            "REQUEST_LIMIT_EXCEEDED: too many calls of 20 s and more run at once in the org, of all its clients. Setup > \
             Environments > System Overview shows the daily limits; the slow calls are in Setup > Environments > Logs > \
             API Usage, or are slow triggers and flows on the objects that are written",
            What::Crowd,
        )
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
            "REQUEST_LIMIT_EXCEEDED: the org's API requests of 24 hours are used up. Setup > Company Settings > Company Information shows \
             'API Requests, Last 24 Hours'; Setup > Environments > System Overview shows who uses them",
            What::Limit,
        )
    }

    fn new(
        code: ErrorCode,
        agent: impl Into<Cow<'static, str>>,
        operator: impl Into<Cow<'static, str>>,
        what: What,
    ) -> Self {
        Self { code, agent: agent.into(), operator: operator.into(), what, pause: None, again: false }
    }

    /// The form that an open breaker returns.
    pub(super) fn while_open(mut self) -> Self {
        self.again = true;
        self
    }

    /// The same, after which Salesforce asks to be left alone for a while.
    pub(super) fn with_pause(mut self, span: Duration) -> Self {
        self.pause = Some(span);
        self
    }

    /// How long Salesforce asks to be left alone.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.pause
    }

    /// Returns what it says about other requests.
    pub(super) fn extent(&self) -> Extent {
        match self.what {
            _ if self.again => Extent::Nothing,
            What::Salesforce => Extent::All,
            What::Request => Extent::Purpose,
            What::Limit => Extent::Day,
            What::Crowd | What::Row | What::Object => Extent::Nothing,
        }
    }

    /// Returns whether Salesforce was not asked, because of an earlier failure.
    pub(super) fn is_unasked(&self) -> bool {
        self.again
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
            _ if self.again => tracing::debug!(code, hint, "not asked: an earlier request failed"),
            (ErrorCode::UpstreamRejected, _) => {
                tracing::error!(code, hint, "could not fetch credentials from Salesforce");
            }
            (_, What::Row) => tracing::info!(code, hint, "could not fetch credentials from Salesforce"),
            (_, What::Salesforce | What::Request | What::Limit | What::Crowd | What::Object) => {
                tracing::warn!(code, hint, "could not fetch credentials from Salesforce");
            }
        }
    }

    /// Logs the line for the operator about a record that was not written: names of fields, never a value.
    pub(super) fn log_unwritten(&self, object: &str, fields: &str) {
        let (code, hint) = (self.code.as_str(), &*self.operator);
        match (self.code, self.what) {
            _ if self.again => tracing::debug!(object, fields, code, hint, "not asked: an earlier request failed"),
            (ErrorCode::UpstreamRejected, What::Salesforce | What::Request | What::Object) => {
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

    /// The same, after which Salesforce asks to be left alone for a while.
    pub(super) fn with_pause(self, span: Duration) -> Self {
        match self {
            Self::Again(fault) => Self::Again(fault.with_pause(span)),
            Self::Login(fault) => Self::Login(fault.with_pause(span)),
            Self::Final(fault) => Self::Final(fault.with_pause(span)),
        }
    }

    /// Returns whether too many calls ran at once.
    pub(super) fn is_crowd(&self) -> bool {
        let (Self::Again(fault) | Self::Login(fault) | Self::Final(fault)) = self;
        fault.what == What::Crowd
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
        Failure::TooLarge => too_large(1 << 20),
        Failure::Tls(cause) => Verdict::Final(Fault::gone(
            AGENT,
            format!(
                "TLS failed ({cause}): a proxy that looks into TLS needs its certificate in salesforce.ca_file; else the \
                 name in salesforce.login_url is wrong"
            ),
        )),
        Failure::Unconnected(cause) | Failure::Broken(cause) => Verdict::Again(Fault::gone(
            AGENT,
            format!(
                "{cause}: name resolution, a firewall or a proxy (HTTPS_PROXY) on the way, or status.salesforce.com"
            ),
        )),
    }
}

/// Returns what an answer of more than so many bytes means.
pub(super) fn too_large(bytes_max: usize) -> Verdict {
    Verdict::Final(Fault::rejected(
        "Salesforce sends too much; tell an administrator",
        format!(
            "an answer of more than {} MiB was not read: the object or resource of salesforce.credentials is not one that \
             holds logins, or salesforce.login_url is another server's",
            bytes_max >> 20
        ),
    ))
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
        ("REQUEST_LIMIT_EXCEEDED", _) if is_crowded(message) => Verdict::Again(Fault::crowded()),
        ("REQUEST_LIMIT_EXCEEDED", _) => Verdict::Final(Fault::limit()),
        ("APEX_ERROR", _) => Verdict::Final(Fault::code(format!(
            "HTTP {status} {code}: an Apex class of the org failed on this request. Setup > Environments > Logs > Debug \
             Logs of the integration user shows the exception; Setup > Environments > Jobs > Apex Jobs shows what it had \
             queued"
        ))),
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
        ("SERVER_UNAVAILABLE", _) | (_, 503) => Verdict::Again(Fault::gone(
            BUSY,
            format!("HTTP {status} {code}: Salesforce is overloaded or under maintenance: status.salesforce.com"),
        )),
        ("UNKNOWN_EXCEPTION", _) | (_, 500) => Verdict::Again(Fault::unavailable(
            BUSY,
            format!(
                "HTTP {status} {code}: an internal error of Salesforce, often in a trigger, a flow or the data of one \
                 object: Setup > Environments > Logs > Debug Logs of the integration user; Salesforce support knows the \
                 error's number, which is in the mail to the org's exception recipients"
            ),
        )),
        (_, 406 | 420 | 429 | 501..=599) => Verdict::Again(Fault::unavailable(
            BUSY,
            format!(
                "HTTP {status} {code}: Salesforce, or a proxy on the way, cannot serve the request now: \
                 status.salesforce.com"
            ),
        )),
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

/// Returns whether a limit is that of concurrent calls (`ConcurrentRequests`, `ConcurrentPerOrgLongTxn`), which passes
/// within seconds.
pub(super) fn is_crowded(message: &str) -> bool {
    message.to_ascii_lowercase().contains("concurrent")
}

/// Returns what a refused token means: it has expired, so a new login helps; or it is not allowed here, so it does not.
fn of_session(status: u16, code: &str, message: &str) -> Verdict {
    let says = |words: &str| message.to_ascii_lowercase().contains(words);
    if says("not valid for use with the rest api") || says("is not attached to agent") {
        return Verdict::Final(Fault::barred(
            NO_ACCESS,
            format!(
                "HTTP {status} {code}: the session is not allowed for the REST API, which a new login cannot change. {APP} > \
                 Settings > OAuth Settings: the scope 'Manage user data via APIs (api)'; Setup > Security > Session \
                 Settings: no policy that bars API sessions"
            ),
        ));
    }
    Verdict::Login(Fault::barred(
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
            (
                403,
                array("REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded."),
                "again",
                "run at once in the org",
            ),
            (
                403,
                array("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."),
                "again",
                "run at once in the org",
            ),
            (500, array("APEX_ERROR", "System.NullPointerException"), "final", "Apex Jobs"),
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
