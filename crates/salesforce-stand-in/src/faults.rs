//! Faults on demand: errors of an org and of the network in front of it.
//!
//! An armed [`Fault`] applies to matching calls, as often as it says or until it is cleared. All faults of one call add
//! up to [`Effects`], which the rest of the org follows.

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
    /// How many calls it still applies to; without a number, it never ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u32>,
    /// Only calls whose path contains this.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Only calls with this method.
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
}

/// What goes wrong.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Wrong {
    /// 401; a new login helps.
    SessionExpired {},
    /// 401 with the same code; a new login does not help.
    SessionNotValid {},
    /// 401: the user has to choose a new password.
    PasswordExpired {},
    /// 403: an edition without API.
    ApiDisabled {},
    /// 403: a user without "API Enabled", or an app that is blocked.
    ApiCurrentlyDisabled {},
    /// 403: the calls of the day are used up.
    DailyLimit {},
    /// 403: too many long calls at once.
    LongRunningLimit {},
    /// 403: a permission is missing.
    InsufficientAccess {},
    /// 400 for writes: the row is locked.
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
    /// The answer is delayed.
    Slow {
        /// The delay.
        milliseconds: u64,
    },
    /// A write takes effect only after this time, and is answered then: a slow trigger or flow.
    SlowTransaction {
        /// The time.
        milliseconds: u64,
    },
    /// The connection of a write ends at once.
    BrokenWrite {
        /// When the write takes effect anyway; never, if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        milliseconds: Option<u64>,
    },
    /// The connection ends in the middle of the answer's body.
    CutBody {},
    /// The connection ends without an answer, but the call takes effect.
    Reset {},
    /// A page instead of JSON.
    HtmlBody {
        /// The HTTP status.
        #[serde(default = "ok")]
        status: u16,
    },
    /// 200 with an empty body.
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
    /// A login is redirected.
    InstanceUrl {
        /// The target.
        url: String,
    },
    /// A login is refused.
    LoginRefused {
        /// The `error`.
        error: String,
        /// The `error_description`.
        description: String,
    },
    /// An encrypted field is masked for everybody.
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
    /// Every row exists twice, with different ids.
    TwoRows {},
    /// A call of the Pub/Sub API fails.
    Events {
        /// The failure.
        error: Broken,
        /// How many events a stream delivers before; other calls fail only with 0.
        #[serde(default)]
        after: usize,
    },
}

/// How a call of the Pub/Sub API fails.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// The session is refused.
    Auth,
    /// The session after the next login is refused, too.
    AuthRefresh,
    /// The replay id is refused; applies to streams with one.
    Replay,
    /// The user may not read the topic.
    Denied,
    /// The service is unavailable.
    Unavailable,
    /// The stream breaks off.
    Cut,
    /// Nothing is answered.
    Silent,
}

fn ok() -> u16 {
    200
}

impl Fault {
    /// A fault that applies to every matching call until it is cleared.
    pub fn new(kind: Wrong) -> Self {
        Self { kind, times: None, path: None, method: None }
    }

    /// Limits how many calls it applies to.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Limits it to calls whose path contains this, of any kind.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Limits it to calls with this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Reads a fault from JSON: `{"fault": "unavailable", "times": 3, "path": "/query", "method": "GET"}`.
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Bounds {
            times: Option<u32>,
            path: Option<String>,
            method: Option<String>,
        }
        let mut value: Value = serde_json::from_slice(body)?;
        let bounds = Bounds::deserialize(&value)?;
        if let Value::Object(object) = &mut value {
            object.remove("times");
            object.remove("path");
            object.remove("method");
        }
        Ok(Self { kind: serde_json::from_value(value)?, times: bounds.times, path: bounds.path, method: bounds.method })
    }

    fn meets(&self, call: &Call) -> bool {
        if matches!(self.kind, Wrong::Events { .. }) {
            return false;
        }
        let only_writes = matches!(self.kind, Wrong::SlowTransaction { .. } | Wrong::BrokenWrite { .. });
        if only_writes && call.method == Method::GET
            || self.method.as_ref().is_some_and(|method| *method != call.method.as_str())
        {
            return false;
        }
        if let Some(path) = &self.path {
            return call.path.contains(path.as_str());
        }
        let first = |number: usize| call.segments.get(number).map(String::as_str);
        match &self.kind {
            Wrong::InstanceUrl { .. } | Wrong::LoginRefused { .. } => call.path.starts_with("/services/oauth2/token"),
            Wrong::RecordLocked {} | Wrong::SlowTransaction { .. } | Wrong::BrokenWrite { .. } => {
                first(1) == Some("data") && call.method != Method::GET
            }
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
    /// Replaces the org's own answer.
    pub(super) reply: Option<Reply>,
    pub(super) delay: Duration,
    pub(super) cut: bool,
    pub(super) reset: bool,
    /// The call never takes effect, and its connection ends.
    pub(super) lost: bool,
    /// How long it takes until the call takes effect.
    pub(super) transaction: Option<Duration>,
    pub(super) instance_url: Option<String>,
    pub(super) masked: Vec<(String, String)>,
    pub(super) hidden: Vec<(String, String)>,
    pub(super) two_rows: bool,
    pub(super) limit_used_up: bool,
}

impl Faults {
    /// Arms a fault.
    pub(super) fn arm(&mut self, fault: Fault) {
        self.armed.push(fault);
    }

    /// Clears all faults.
    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    /// Those that are armed.
    pub(super) fn armed(&self) -> &[Fault] {
        &self.armed
    }

    /// What ends a call of the Pub/Sub API, and after how many events. `custom`: the stream begins at a replay id.
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

    /// The effects on a call. A fault that another answer hides does not count the call.
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
    /// Adds the effect of one fault; returns `false` if another one already answers.
    fn add(&mut self, kind: &Wrong) -> bool {
        match kind {
            Wrong::Slow { milliseconds } => self.delay += Duration::from_millis(*milliseconds),
            Wrong::SlowTransaction { milliseconds } => self.transaction = Some(Duration::from_millis(*milliseconds)),
            Wrong::BrokenWrite { milliseconds: Some(milliseconds) } => {
                self.reset = true;
                self.transaction = Some(Duration::from_millis(*milliseconds));
            }
            Wrong::BrokenWrite { milliseconds: None } => self.lost = true,
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

/// The answer that a fault gives instead of the org.
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
        | Wrong::SlowTransaction { .. }
        | Wrong::BrokenWrite { .. }
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

/// 403 for the daily limit and for long calls.
pub(super) fn limit_exceeded(message: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "REQUEST_LIMIT_EXCEEDED", message)
}
