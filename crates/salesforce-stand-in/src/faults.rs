//! Faults on demand: what an org and the network before it do wrong when a test wants it.
//!
//! A [`Fault`] is armed and then meets the calls that it is meant for, as often as it says or until it is cleared. For
//! one call they add up to [`Effects`], which the rest of the org acts on.

use std::time::Duration;

use hyper::header::{LOCATION, RETRY_AFTER};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::Call;
use super::reply::{Refusal, Reply};
use super::token::Denial;

/// One armed fault.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    #[serde(flatten)]
    kind: Wrong,
    /// How many calls it still meets; without an end if there is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u32>,
    /// Only calls whose path contains this.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// What goes wrong.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Wrong {
    /// 401 that a new login cures.
    SessionExpired {},
    /// 401 with the same code, which no login cures.
    SessionNotValid {},
    /// 401: the user has to choose a new password.
    PasswordExpired {},
    /// 403: an edition without API.
    ApiDisabled {},
    /// 403: a user without "API Enabled", or an app that is blocked.
    ApiCurrentlyDisabled {},
    /// 403: the day's calls are used up.
    DailyLimit {},
    /// 403: too many calls that last long.
    LongRunningLimit {},
    /// 403: a permission is missing.
    InsufficientAccess {},
    /// 400 for whatever writes: someone else holds the row.
    RecordLocked {},
    /// 400: the query took too long.
    QueryTimeout {},
    /// 503, with seconds of Retry-After if given.
    Unavailable {
        /// Seconds for Retry-After.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u32>,
    },
    /// Any error of the REST API.
    Error {
        /// The HTTP status.
        status: u16,
        /// The `errorCode`.
        code: String,
        /// The message.
        message: String,
    },
    /// The answer comes late.
    Slow {
        /// How late.
        milliseconds: u64,
    },
    /// The connection ends in the middle of the answer's body.
    CutBody {},
    /// The connection ends without an answer; what was asked is done all the same.
    Reset {},
    /// A page in place of JSON.
    HtmlBody {
        /// The HTTP status.
        #[serde(default = "ok")]
        status: u16,
    },
    /// 200 with nothing.
    EmptyBody {},
    /// 200 with a JSON text of this length.
    HugeBody {
        /// The length.
        bytes: usize,
    },
    /// 302 to another address.
    Redirect {
        /// The address.
        location: String,
    },
    /// A login is told to go on somewhere else.
    InstanceUrl {
        /// Where.
        url: String,
    },
    /// A login is refused.
    LoginRefused {
        /// The `error`.
        error: String,
        /// The `error_description`.
        description: String,
    },
    /// Nobody sees an encrypted field in the clear.
    MaskedField {
        /// The object.
        object: String,
        /// The field.
        field: String,
    },
    /// Field-level security hides a field from everybody.
    HiddenField {
        /// The object.
        object: String,
        /// The field.
        field: String,
    },
    /// Every row is there twice, each with an id of its own.
    TwoRows {},
    /// A call of the Pub/Sub API fails.
    Events {
        /// How.
        error: Broken,
        /// Events that a stream gives before; other calls fail only with 0.
        #[serde(default)]
        after: usize,
    },
}

/// How a call of the Pub/Sub API fails.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// The session is not taken.
    Auth,
    /// The session that was to follow it is not.
    AuthRefresh,
    /// The replay id is not taken; meets streams that have one.
    Replay,
    /// The user may not read the topic.
    Denied,
    /// The service is not there.
    Unavailable,
    /// The stream ends in its middle.
    Cut,
    /// Nothing is answered any more.
    Silent,
}

fn ok() -> u16 {
    200
}

impl Fault {
    /// A fault that meets every call it is meant for until it is cleared.
    pub fn new(kind: Wrong) -> Self {
        Self { kind, times: None, path: None }
    }

    /// Meets so many calls.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Meets only calls whose path contains this, and of those also others than its own kind's.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Reads a fault from JSON: `{"fault": "unavailable", "times": 3, "path": "/query"}`.
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Bounds {
            times: Option<u32>,
            path: Option<String>,
        }
        let mut value: Value = serde_json::from_slice(body)?;
        let bounds = Bounds::deserialize(&value)?;
        if let Value::Object(object) = &mut value {
            object.remove("times");
            object.remove("path");
        }
        Ok(Self { kind: serde_json::from_value(value)?, times: bounds.times, path: bounds.path })
    }

    fn meets(&self, call: &Call) -> bool {
        if matches!(self.kind, Wrong::Events { .. }) {
            return false;
        }
        if let Some(path) = &self.path {
            return call.path.contains(path.as_str());
        }
        let first = |number: usize| call.segments.get(number).map(String::as_str);
        match &self.kind {
            Wrong::InstanceUrl { .. } | Wrong::LoginRefused { .. } => call.path.starts_with("/services/oauth2/token"),
            Wrong::RecordLocked {} => first(1) == Some("data") && call.method != Method::GET,
            _ => matches!(first(1), Some("data" | "apexrest")),
        }
    }
}

/// The faults that are armed.
#[derive(Default)]
pub(super) struct Faults {
    armed: Vec<Fault>,
}

/// What the faults do to one call.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own; any of them may be there together")]
pub(super) struct Effects {
    /// Given in place of the org's own answer.
    pub(super) reply: Option<Reply>,
    pub(super) delay: Duration,
    pub(super) cut: bool,
    pub(super) reset: bool,
    pub(super) instance_url: Option<String>,
    pub(super) masked: Vec<(String, String)>,
    pub(super) hidden: Vec<(String, String)>,
    pub(super) two_rows: bool,
    pub(super) limit_used_up: bool,
}

impl Faults {
    /// Arms one more.
    pub(super) fn arm(&mut self, fault: Fault) {
        self.armed.push(fault);
    }

    /// Disarms them all.
    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    /// Those that are armed.
    pub(super) fn armed(&self) -> &[Fault] {
        &self.armed
    }

    /// What ends a call of the Pub/Sub API, and after how many events. `custom`: it is a stream from a replay id on.
    pub(super) fn meet_events(&mut self, stream: bool, custom: bool) -> Option<(Broken, usize)> {
        let ends = |fault: &Fault| match fault.kind {
            Wrong::Events { error: Broken::Replay, after } if custom => Some((Broken::Replay, after)),
            Wrong::Events { error: Broken::Replay, .. } => None,
            Wrong::Events { error: Broken::Cut, .. } if !stream => None,
            Wrong::Events { error, after } if stream || after == 0 => Some((error, after)),
            _ => None,
        };
        let (fault, met) = self.armed.iter_mut().find_map(|fault| ends(fault).map(|met| (fault, met)))?;
        if let Some(times) = &mut fault.times {
            *times = times.saturating_sub(1);
        }
        self.armed.retain(|it| it.times != Some(0));
        Some(met)
    }

    /// What they do to this call. A fault that waits for its turn behind another answer does not count it.
    pub(super) fn meet(&mut self, call: &Call) -> Effects {
        let mut effects = Effects::default();
        for fault in &mut self.armed {
            if !fault.meets(call) {
                continue;
            }
            let acted = effects.add(&fault.kind);
            if acted && let Some(times) = &mut fault.times {
                *times = times.saturating_sub(1);
            }
        }
        self.armed.retain(|it| it.times != Some(0));
        effects
    }
}

impl Effects {
    /// Adds what one fault does. `false`: another one answers already.
    fn add(&mut self, kind: &Wrong) -> bool {
        match kind {
            Wrong::Slow { milliseconds } => self.delay += Duration::from_millis(*milliseconds),
            Wrong::CutBody {} => self.cut = true,
            Wrong::Reset {} => self.reset = true,
            Wrong::InstanceUrl { url } => self.instance_url = Some(url.clone()),
            Wrong::MaskedField { object, field } => self.masked.push((object.clone(), field.clone())),
            Wrong::HiddenField { object, field } => self.hidden.push((object.clone(), field.clone())),
            Wrong::TwoRows {} => self.two_rows = true,
            _ if self.reply.is_some() => return false,
            _ => {
                self.limit_used_up = matches!(kind, Wrong::DailyLimit {});
                self.reply = Some(reply(kind));
            }
        }
        true
    }
}

/// The answer that a fault gives in place of the org's.
fn reply(kind: &Wrong) -> Reply {
    let session = |message| Refusal::new(StatusCode::UNAUTHORIZED, "INVALID_SESSION_ID", message);
    let forbidden = |code, message| Refusal::new(StatusCode::FORBIDDEN, code, message);
    let refusal = match kind {
        Wrong::SessionExpired {} => session("Session expired or invalid"),
        Wrong::SessionNotValid {} => session("This session is not valid for use with the REST API"),
        Wrong::PasswordExpired {} => Refusal::new(
            StatusCode::UNAUTHORIZED,
            "INVALID_OPERATION_WITH_EXPIRED_PASSWORD",
            "The users password has expired, you must call SetPassword before attempting any other API operations",
        ),
        Wrong::ApiDisabled {} => {
            forbidden("API_DISABLED_FOR_ORG", "API is not enabled for this Organization or Partner")
        }
        Wrong::ApiCurrentlyDisabled {} => forbidden("API_CURRENTLY_DISABLED", "API is disabled for this User"),
        Wrong::DailyLimit {} => limit_exceeded("TotalRequests Limit exceeded."),
        Wrong::LongRunningLimit {} => limit_exceeded("ConcurrentPerOrgLongTxn Limit exceeded."),
        Wrong::InsufficientAccess {} => {
            forbidden("INSUFFICIENT_ACCESS", "insufficient access rights on cross-reference id")
        }
        Wrong::RecordLocked {} => {
            Refusal::bad("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records")
        }
        Wrong::QueryTimeout {} => Refusal::bad("QUERY_TIMEOUT", "Your query request was running for too long."),
        Wrong::Unavailable { .. } => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "SERVER_UNAVAILABLE",
            "Server is busy. Please try again later.",
        ),
        Wrong::Error { status, code, message } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Refusal::new(status, code, message)
        }
        Wrong::LoginRefused { error, description } => return Denial::new(error, description).into(),
        Wrong::HtmlBody { status } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::OK);
            let page = "<!DOCTYPE html><html><head><title>Down for maintenance</title></head>\
                        <body>We are down for maintenance.</body></html>";
            return Reply::of(status, "text/html;charset=UTF-8", page);
        }
        Wrong::HugeBody { bytes } => return Reply::ok(&Value::String("x".repeat(bytes.saturating_sub(2)))),
        Wrong::Redirect { location } => {
            return Reply::of(StatusCode::FOUND, "text/html;charset=UTF-8", "").with(LOCATION, location);
        }
        Wrong::EmptyBody {}
        | Wrong::Slow { .. }
        | Wrong::CutBody {}
        | Wrong::Reset {}
        | Wrong::InstanceUrl { .. }
        | Wrong::MaskedField { .. }
        | Wrong::HiddenField { .. }
        | Wrong::Events { .. }
        | Wrong::TwoRows {} => return Reply::of(StatusCode::OK, "application/json;charset=UTF-8", ""),
    };
    let reply = Reply::from(refusal);
    match kind {
        Wrong::Unavailable { retry_after: Some(seconds) } => reply.with(RETRY_AFTER, &seconds.to_string()),
        _ => reply,
    }
}

/// 403, for the day's calls and for long ones alike.
pub(super) fn limit_exceeded(message: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "REQUEST_LIMIT_EXCEEDED", message)
}
