//! [`Login`]: the session of one org, which everything shares. It is requested by one caller at a time. A login is repeated
//! after failures that may pass, within its time limit. After a failed one the next is tried only after a wait, which
//! everything that needs a session shares: fetches, writes and every topic of events.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout};

use super::call::LARGEST_TO_LOGIN;
use super::counted::{CountedCall, refused};
use super::fault::{Fault, Verdict};
use super::login_fault::of_login;
use super::oauth::{Grant, Issued, SetupError, TOKEN_PATH, Token, read_token};
use super::stats::count;
use super::transport::{REPEATS, Received, Transport};
use crate::config;
use crate::http::BaseUrl;
use crate::telemetry::metrics::{SalesforceOperation, SalesforceOutcome};

/// The wait after the first failed login; it doubles with each further one.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest wait.
const AGAIN_MAX: Duration = Duration::from_mins(1);

/// How the broker logs in to one org, and its session.
pub(super) struct Login {
    org: config::Salesforce,
    host: BaseUrl,
    grant: Grant,
    token: Mutex<Option<Arc<Token>>>,
    /// Held during a login.
    logins: tokio::sync::Mutex<Logins>,
}

impl Login {
    /// Reads the key or the secret. Sends nothing.
    pub(super) fn new(org: &config::Salesforce) -> Result<Self, SetupError> {
        let grant = Grant::read(org)?;
        let host = BaseUrl::parse(&org.login_url).map_err(|fault| SetupError::new("salesforce.login_url", fault))?;
        if !(host.https || org.insecure_http && host.is_loopback()) {
            return Err(SetupError::new("salesforce.login_url", "must begin with https://"));
        }
        Ok(Self { org: org.clone(), host, grant, token: Mutex::default(), logins: tokio::sync::Mutex::default() })
    }

    /// The login host.
    pub(super) fn host(&self) -> &BaseUrl {
        &self.host
    }

    /// Returns whether a login contains a time limit by this computer's clock.
    pub(super) fn signs(&self) -> bool {
        matches!(self.grant, Grant::JwtBearer { .. })
    }

    /// How long ago the token was issued; `None` if there is none.
    pub(super) fn token_age(&self) -> Option<Duration> {
        self.token.lock().as_ref().map(|token| token.since.elapsed())
    }

    /// Returns the token, or a new one if it is the expired one. There is one login at a time, and everyone who waited
    /// for it gets its outcome.
    pub(super) async fn token(&self, transport: &Transport, expired: Option<u64>) -> Result<Arc<Token>, Fault> {
        let usable = || self.token.lock().clone().filter(|token| expired.is_none_or(|it| it < token.number));
        if let Some(token) = usable() {
            return Ok(token);
        }
        let logins = self.logins.lock().await;
        if let Some(token) = usable() {
            return Ok(token);
        }
        if let Some(fault) = logins.refused(Instant::now()) {
            return Err(fault);
        }
        let mut attempt = Attempt { login: self, transport, logins, begun: Instant::now(), ended: false };
        let issued = timeout(self.org.timeout, self.log_in(transport)).await.unwrap_or_else(|_| Err(slow_login()));
        let Issued { secret, base, user, org } = issued.inspect_err(|fault| attempt.failed(fault))?;
        let number = attempt.succeeded();
        let token = Arc::new(Token { secret, base, user, org, since: Instant::now(), number });
        *self.token.lock() = Some(Arc::clone(&token));
        tracing::debug!(instance = %token.base, "logged in to Salesforce");
        Ok(token)
    }

    async fn log_in(&self, transport: &Transport) -> Result<Issued, Fault> {
        let until = Instant::now() + self.org.timeout;
        let mut repeats = 0;
        loop {
            count(&transport.stats.logins);
            match self.ask_for_token(transport).await {
                Ok(issued) => return Ok(issued),
                Err(Verdict::Again(fault)) if repeats < REPEATS => {
                    transport.wait(repeats, fault, until).await?;
                    repeats += 1;
                }
                Err(verdict) => return Err(verdict.fault()),
            }
        }
    }

    async fn ask_for_token(&self, transport: &Transport) -> Result<Issued, Verdict> {
        const REFUSED: &str =
            "Salesforce refuses the broker; tell an administrator: the broker's log says what to change";
        let rejected = |operator: String| Verdict::Final(Fault::barred(REFUSED, operator));
        #[expect(clippy::disallowed_methods, reason = "an assertion says until when it holds; no rule depends on it")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let form = self.grant.form(now).map_err(|_| rejected("the assertion could not be signed".to_owned()))?;
        let request = transport.request(Method::POST, format!("{}{TOKEN_PATH}", self.host));
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.as_bytes().to_vec());
        let counted = CountedCall::begin(&transport.stats.by_operation, SalesforceOperation::Token);
        let received = match transport.send(request, false, LARGEST_TO_LOGIN).await {
            Ok(received) => received,
            Err(verdict) => {
                counted.end(SalesforceOutcome::Network);
                return Err(verdict);
            }
        };
        let Received { status, body, skew, retry_after } = received;
        match status {
            200..=299 => {
                counted.end(SalesforceOutcome::Ok);
                read_token(&body, &self.org).map_err(rejected)
            }
            _ => {
                counted.end(refused(status, &body));
                Err(transport.paused(of_login(status, &body, skew), status, retry_after))
            }
        }
    }
}

/// A login in progress. The wait after a failed one begins even if the login's caller gave up.
struct Attempt<'a> {
    login: &'a Login,
    transport: &'a Transport,
    logins: MutexGuard<'a, Logins>,
    begun: Instant,
    ended: bool,
}

impl Attempt<'_> {
    /// Records that it succeeded, and returns its number.
    fn succeeded(&mut self) -> u64 {
        self.ended = true;
        self.logins.succeeded()
    }

    /// Records that it failed.
    fn failed(&mut self, fault: &Fault) {
        self.ended = true;
        self.logins.failed(Instant::now(), fault);
        count(&self.transport.stats.logins_failed);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // Cut short by a deadline, or by an application that went away, which says nothing about the login host.
        if !self.ended && self.begun.elapsed() >= self.login.org.timeout / 2 {
            self.failed(&slow_login());
        }
    }
}

/// The logins so far.
#[derive(Default)]
struct Logins {
    ended: u64,
    /// Failed ones since the last that succeeded.
    failures: u32,
    /// Until when the last failure stands, and its cause.
    refused: Option<(Instant, Fault)>,
}

impl Logins {
    /// Returns why no login is tried now.
    fn refused(&self, now: Instant) -> Option<Fault> {
        self.refused.as_ref().filter(|(until, _)| now < *until).map(|(_, fault)| fault.clone().while_open())
    }

    /// Records a login that succeeded, and returns its number, which grows with each login.
    fn succeeded(&mut self) -> u64 {
        self.ended += 1;
        (self.failures, self.refused) = (0, None);
        self.ended
    }

    /// Records a login that failed.
    fn failed(&mut self, now: Instant, fault: &Fault) {
        self.ended += 1;
        let doubled = AGAIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let wait = doubled.max(fault.pause().unwrap_or_default()).min(AGAIN_MAX);
        self.failures = self.failures.saturating_add(1);
        self.refused = Some((now + wait, fault.clone()));
    }
}

/// The fault of a login that was not answered in time.
pub(super) fn slow_login() -> Fault {
    Fault::gone(
        "Salesforce takes too long just now; try again in a moment",
        "the login was not answered within salesforce.timeout: status.salesforce.com, or a proxy or firewall on the way",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_after_failed_logins_doubles_up_to_a_minute() {
        let mut now = Instant::now();
        let mut logins = Logins::default();
        let fault = Fault::barred("a", "o");
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            logins.failed(now, &fault);
            now += Duration::from_secs(seconds);
            assert!(logins.refused(now.checked_sub(Duration::from_millis(1)).unwrap()).is_some(), "{seconds}");
            assert_eq!(logins.refused(now), None, "{seconds}");
        }
        assert_eq!(logins.succeeded(), 9);
        logins.failed(now, &fault.with_pause(Duration::from_secs(5)));
        assert!(logins.refused(now + Duration::from_secs(4)).is_some(), "Salesforce asked for more");
        assert_eq!(logins.refused(now + Duration::from_secs(5)), None);
    }
}
