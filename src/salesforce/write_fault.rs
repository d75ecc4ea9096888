//! What a refused write means: which record, field or permission is the cause, in a few words for the agent and by menu
//! path for the operator. [`of_write`] knows the errors of one record or one object; `answer_fault` knows the rest.
//!
//! An error of one record or one object says nothing about other requests, so it opens no breaker: one misconfigured object,
//! or one failing trigger, must not keep agents from their credentials.

use super::answer_fault::of_answer;
use super::fault::{Fault, Verdict};
use super::response::{ApiError, error_codes};

/// The object of a request, for messages about a failure.
pub(super) struct Target<'a> {
    /// Its API name.
    pub(super) object: &'a str,
    /// The API names of the fields that are written or read.
    pub(super) fields: Vec<&'a str>,
}

impl Target<'_> {
    /// The fields, as a list for the log.
    pub(super) fn named_fields(&self) -> String {
        self.fields.join(", ")
    }
}

/// Where the broker's permissions are in Setup.
const SET: &str = "Setup > Users > Permission Sets > the broker's set > Object Settings";

/// Returns what an answer with an error means.
pub(super) fn of_write(status: u16, body: &[u8], target: &Target<'_>) -> Verdict {
    let errors = error_codes(body);
    let Some(error) = errors.first() else { return of_answer(status, body, &target.fields) };
    if let Some(verdict) = of_object(status, error, target) {
        return verdict;
    }
    if !matches!(status, 400..=409 | 415) {
        return of_answer(status, body, &target.fields);
    }
    let (code, object) = (error.code, target.object);
    let fault = match code {
        // Not about a record or an object: the session, the app, the org.
        ""
        | "REQUEST_LIMIT_EXCEEDED"
        | "INVALID_SESSION_ID"
        | "INVALID_AUTH_HEADER"
        | "API_DISABLED_FOR_ORG"
        | "API_CURRENTLY_DISABLED"
        | "INVALID_OPERATION_WITH_EXPIRED_PASSWORD"
        | "SERVER_UNAVAILABLE" => return of_answer(status, body, &target.fields),
        "UNABLE_TO_LOCK_ROW" => {
            return Verdict::Again(Fault::locked(
                "somebody else is changing the record, or one that belongs to it; try again in a moment",
                format!(
                    "{code}: the record of {object}, or its parent, stayed locked: a long transaction, or many at once"
                ),
            ));
        }
        "INVALID_FIELD" | "INVALID_FIELD_FOR_INSERT_UPDATE" => Fault::object(
            refused(error, "it does not let the broker write a field"),
            format!(
                "HTTP {status} {code}: {} does not exist, or may not be written. {SET} > {object} > Field Permissions: \
                 'Edit Access'; or correct salesforce.objects",
                about(error, target)
            ),
        ),
        "INVALID_TYPE" | "INVALID_TYPE_FOR_OPERATION" => Fault::object(
            refused(error, "it does not let the broker write such records"),
            format!(
                "HTTP {status} {code}: the object {object} does not exist, or may not be written. {SET} > {object}: \
                 'Create' and 'Edit'; or correct salesforce.objects"
            ),
        ),
        "INSUFFICIENT_ACCESS" | "INSUFFICIENT_ACCESS_OR_READONLY" | "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY" => {
            Fault::object(
                refused(error, "the broker may not write this record"),
                format!(
                    "HTTP {status} {code}: a permission is missing, or sharing keeps the record away. {SET} > {object}: \
                     'Create', 'Edit', and 'Modify All' where records are private"
                ),
            )
        }
        "NOT_FOUND" | "ENTITY_IS_DELETED" | "MALFORMED_ID" | "INVALID_CROSS_REFERENCE_KEY"
            if error.fields.is_empty() =>
        {
            Fault::row(
                format!("Salesforce has no such record of {object}, or the broker may not see it ({code})"),
                format!(
                    "HTTP {status} {code}: no such record of {object}, or sharing keeps it from the integration user"
                ),
            )
        }
        _ => Fault::row(
            refused(error, why(code)),
            format!("HTTP {status} {code}: the org refuses what was to be written, of {}", about(error, target)),
        ),
    };
    Verdict::Final(fault)
}

/// Returns what an error means that is about one object, whatever its status: code that runs on its records has failed,
/// or a query of it is slow.
fn of_object(status: u16, error: &ApiError<'_>, target: &Target<'_>) -> Option<Verdict> {
    let (code, object) = (error.code, target.object);
    let fault = |hint: String| {
        Fault::object_unavailable(
            format!("Salesforce fails on records of {object} just now; try again in a moment ({code})"),
            format!("HTTP {status} {code}: {hint}"),
        )
    };
    match code {
        "UNKNOWN_EXCEPTION" | "APEX_ERROR" => Some(Verdict::Final(fault(format!(
            "a trigger or flow on {object} failed inside Salesforce. Setup > Environments > Logs > Debug Logs, for the \
             integration user, shows which"
        )))),
        "QUERY_TIMEOUT" => Some(Verdict::Again(fault(format!(
            "the search for a record of {object} is slow: make its call_field an External ID (indexed)"
        )))),
        _ => None,
    }
}

/// The text for the agent. It contains no message of the org, which may quote a value.
fn refused(error: &ApiError<'_>, why: &str) -> String {
    let fields = if error.fields.is_empty() { String::new() } else { format!(": {}", error.fields.join(", ")) };
    format!("Salesforce refuses the write: {why} ({}{fields})", error.code)
}

fn why(code: &str) -> &'static str {
    match code {
        "REQUIRED_FIELD_MISSING" => "a field that is required is missing",
        "STRING_TOO_LONG" => "a value is too long for its field",
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST" => "a value is not on its field's list",
        "FIELD_CUSTOM_VALIDATION_EXCEPTION" => "a validation rule says no",
        "FIELD_FILTER_VALIDATION_EXCEPTION" | "FIELD_INTEGRITY_EXCEPTION" => "a value does not go with the others",
        "JSON_PARSER_ERROR" | "INVALID_TYPE_ON_FIELD_IN_RECORD" | "NUMBER_OUTSIDE_VALID_RANGE" => {
            "a value does not fit its field"
        }
        "DUPLICATE_VALUE" | "DUPLICATES_DETECTED" => "there is such a record already",
        "ENTITY_IS_LOCKED" => "the record is locked, by an approval",
        _ => "the org says no",
    }
}

/// The fields that an error concerns: those it names, or those its message mentions.
fn about(error: &ApiError<'_>, target: &Target<'_>) -> String {
    if !error.fields.is_empty() {
        return error.fields.join(", ");
    }
    let mentioned: Vec<&str> = target.fields.iter().copied().filter(|name| error.message.contains(name)).collect();
    if mentioned.is_empty() { target.named_fields() } else { mentioned.join(" or ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kind of verdict, whether it is particular, the agent's words and the operator's.
    fn told(status: u16, body: &str) -> String {
        let target = Target { object: "Task", fields: vec!["Subject", "Status"] };
        let verdict = of_write(status, body.as_bytes(), &target);
        let kind = match &verdict {
            Verdict::Again(_) => "again",
            Verdict::Login(_) => "login",
            Verdict::Final(_) => "final",
        };
        let particular = if verdict.is_particular() { "" } else { " breaker" };
        let fault = verdict.fault();
        format!("{kind}{particular} {} | {}", fault.refusal(), fault.operator())
    }

    #[test]
    fn each_refusal_says_what_is_in_the_way() {
        let error = |code: &str, message: &str, fields: &str| {
            format!(r#"[{{"errorCode":"{code}","message":"{message}","fields":{fields}}}]"#)
        };
        for (status, body, agent, operator) in [
            (400, error("UNABLE_TO_LOCK_ROW", "x", "[]"), "again UPSTREAM_UNAVAILABLE: somebody else", "stayed locked"),
            (
                400,
                error("STRING_TOO_LONG", "Subject: data value too large: SECRET", r#"["Subject"]"#),
                "final UPSTREAM_REJECTED: Salesforce refuses the write: a value is too long for its field (STRING_TOO_LONG: Subject)",
                "of Subject",
            ),
            (
                400,
                error("INVALID_FIELD", "No such column 'Status' on sobject of type Task", "[]"),
                "final UPSTREAM_REJECTED: Salesforce refuses the write: it does not let",
                "Status does not exist",
            ),
            (
                404,
                error("NOT_FOUND", "x", "[]"),
                "final UPSTREAM_REJECTED: Salesforce has no such record of Task",
                "sharing",
            ),
            (
                400,
                error("INVALID_CROSS_REFERENCE_KEY", "x", r#"["WhoId"]"#),
                "final UPSTREAM_REJECTED: Salesforce refuses the write: the org says no (INVALID_CROSS_REFERENCE_KEY: WhoId)",
                "WhoId",
            ),
            (
                403,
                error("INSUFFICIENT_ACCESS", "x", "[]"),
                "final UPSTREAM_REJECTED: Salesforce refuses",
                "'Modify All'",
            ),
            (
                400,
                error("SOMETHING_NEW", "SECRET", "3"),
                "final UPSTREAM_REJECTED: Salesforce refuses",
                "Subject, Status",
            ),
            (401, error("INVALID_SESSION_ID", "expired", "[]"), "login breaker", "has just given"),
            (403, error("REQUEST_LIMIT_EXCEEDED", "x", "[]"), "final breaker UPSTREAM_UNAVAILABLE", "24 hours"),
            (403, "<html>".to_owned(), "final breaker UPSTREAM_REJECTED", "API Access Control"),
            (503, error("SERVER_UNAVAILABLE", "x", "[]"), "again breaker UPSTREAM_UNAVAILABLE", "overloaded"),
            (500, "<html>".to_owned(), "again breaker", "HTTP 500"),
            (
                500,
                error("UNKNOWN_EXCEPTION", "An unexpected error: SECRET", "[]"),
                "final UPSTREAM_UNAVAILABLE: Salesforce fails on records of Task",
                "Debug Logs",
            ),
            (400, error("UNKNOWN_EXCEPTION", "x", "[]"), "final UPSTREAM_UNAVAILABLE", "HTTP 400"),
            (400, error("QUERY_TIMEOUT", "x", "[]"), "again UPSTREAM_UNAVAILABLE", "call_field"),
        ] {
            let told = told(status, &body);
            assert!(told.starts_with(agent) && told.contains(operator), "{status} {body}: {told}");
            assert!(!told.contains("SECRET"), "{told}");
        }
    }
}
