//! What an answer with an error means, or a request without an answer: [`of_answer`], [`of_failure`].

use super::fault::{APP, BUSY, Fault, NO_ACCESS, Verdict};
use super::response::error_codes;
use crate::http::Failure;

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

/// Returns what a description of an object of more than `bytes_max` means.
pub(super) fn too_large_description(bytes_max: usize) -> Verdict {
    Verdict::Final(Fault::rejected(
        "Salesforce sends too much; tell an administrator",
        format!(
            "the description of an object is larger than {} MiB, more than any org needs for one object: is \
             salesforce.login_url another server's, or is there a proxy on the way?",
            bytes_max >> 20
        ),
    ))
}

/// Returns what an answer to a write of more than `bytes_max` means: it may have been done.
pub(super) fn too_large_after_write(bytes_max: usize) -> Verdict {
    Verdict::Final(Fault::unavailable(
        "Salesforce's answer to the write was too large to read, so it is not known whether it was done; try again with \
         the same id",
        format!(
            "an answer of more than {} MiB to a write was not read: a proxy on the way, or salesforce.login_url is another \
             server's",
            bytes_max >> 20
        ),
    ))
    .in_doubt()
}

/// Returns what an answer of more than `bytes_max` means.
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
        _ => of_status(status, code),
    }
}

/// Returns what the status means, for codes that say nothing else.
fn of_status(status: u16, code: &str) -> Verdict {
    let rejected = |advice: &str| Verdict::Final(Fault::rejected(NO_ACCESS, format!("HTTP {status} {code}: {advice}")));
    match (code, status) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ErrorCode;

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
                of_answer(status, body.as_bytes(), &["CTI_Password__c", "CTI_Username__c"]).told();
            assert_eq!(name, expected, "{status} {body}");
            assert!(operator.contains(words), "{status} {body}: {operator}");
            let unavailable = name == "again" || body.contains("LIMIT");
            assert_eq!(code == ErrorCode::UpstreamUnavailable, unavailable, "{status} {body}");
        }
    }

    #[test]
    fn a_crowd_and_code_that_fails_are_not_the_daily_limit_or_an_overload() {
        let told = |status: u16, code: &str, message: &str| {
            let body = format!(r#"[{{"message":"{message}","errorCode":"{code}"}}]"#);
            let (kind, code, operator) = of_answer(status, body.as_bytes(), &[]).told();
            assert!(!operator.contains("24 hours") && !operator.contains("overloaded"), "{operator}");
            (kind, code, operator)
        };
        for limit in ["ConcurrentPerOrgLongTxn Limit exceeded.", "ConcurrentRequests (Concurrent API Requests) Limit"] {
            let (kind, code, operator) = told(403, "REQUEST_LIMIT_EXCEEDED", limit);
            assert_eq!((kind, code), ("again", ErrorCode::UpstreamUnavailable));
            assert!(operator.contains("run at once in the org"), "{operator}");
        }
        let (kind, code, operator) = told(500, "APEX_ERROR", "System.NullPointerException: never shown");
        assert_eq!((kind, code), ("final", ErrorCode::UpstreamRejected));
        assert!(operator.contains("Debug Logs") && operator.contains("Apex Jobs"), "{operator}");
        assert!(!operator.contains("never shown"), "{operator}");
    }
}
