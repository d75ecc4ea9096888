//! [`Fault`]: why a request failed. It has a code and a short text for the agent, and a line for the operator that says
//! what to change, by menu path. `answer_fault`, `login_fault` and `write_fault` make it from the status and body of an
//! answer.
//!
//! No text of an answer reaches the agent. Only codes and the known texts of logins reach the log, because a message
//! may quote a row.

use std::borrow::Cow;
use std::time::Duration;

use wire::{ErrorCode, Refusal};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    code: ErrorCode,
    agent: Cow<'static, str>,
    operator: Cow<'static, str>,
    what: What,
    /// How long Salesforce asks to be left alone, or the user's calls are used up.
    pause: Option<Duration>,
    /// Salesforce was not asked, because of an earlier failure that the log has already.
    again: bool,
    /// A write may have been done anyway.
    in_doubt: bool,
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
    /// One user's calls, which are used up.
    Quota,
    /// One object's settings and permissions.
    Object,
}

impl Fault {
    /// Salesforce fails on requests for one purpose, and may succeed later.
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

    /// Salesforce refuses requests for one purpose until somebody changes something.
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
            What::Quota,
        )
        .with_pause(left)
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
        Self { code, agent: agent.into(), operator: operator.into(), what, pause: None, again: false, in_doubt: false }
    }

    /// The form for a write that may have been done anyway.
    pub(super) fn in_doubt(mut self) -> Self {
        self.in_doubt = true;
        self
    }

    /// Returns whether a write may have been done anyway.
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

    /// The same, after which Salesforce asks to be left alone for a while.
    pub(super) fn with_pause(mut self, span: Duration) -> Self {
        self.pause = Some(span);
        self
    }

    /// How long Salesforce asks to be left alone, or the user's calls are used up.
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
            What::Crowd | What::Row | What::Object | What::Quota => Extent::Nothing,
        }
    }

    /// Returns whether requests for every purpose fail at present: Salesforce as a whole does not work, or asks to be left
    /// alone. It may be an earlier request that found this out.
    pub(super) fn concerns_all(&self) -> bool {
        match self.what {
            What::Salesforce | What::Limit | What::Crowd => true,
            What::Request | What::Object => self.pause.is_some(),
            What::Row | What::Quota => false,
        }
    }

    /// Returns whether Salesforce was not asked, because of an earlier failure or because the user's calls are used up.
    pub(super) fn is_unasked(&self) -> bool {
        self.again || self.what == What::Quota
    }

    /// Returns whether too many calls ran at once.
    pub(super) fn is_crowd(&self) -> bool {
        self.what == What::Crowd
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
            (_, What::Row | What::Quota) => tracing::info!(code, hint, "could not fetch credentials from Salesforce"),
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

    /// The same for a write that may have been done anyway, so it is not to be repeated.
    pub(super) fn in_doubt(self) -> Self {
        Self::Final(self.fault().in_doubt())
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
        fault.is_crowd()
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

/// The text for the agent while Salesforce fails.
pub(super) const BUSY: &str = "Salesforce does not answer as it should just now; try again in a moment";

/// The text for the agent if Salesforce refuses the broker.
pub(super) const NO_ACCESS: &str =
    "Salesforce refuses the broker; tell an administrator: the broker's log says what to change";

/// The app's place in Setup.
pub(super) const APP: &str = "Setup > Apps > External Client Apps > External Client App Manager > the broker's app";

#[cfg(test)]
impl Verdict {
    /// Its kind, its code and its text for the operator.
    pub(super) fn told(self) -> (&'static str, ErrorCode, String) {
        let kind = match &self {
            Self::Again(_) => "again",
            Self::Login(_) => "login",
            Self::Final(_) => "final",
        };
        let fault = self.fault();
        (kind, fault.code, fault.operator.into_owned())
    }
}
