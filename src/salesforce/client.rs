//! [`Client`]: requests to the org's REST API. The only file of this folder that uses the network or a clock.
//!
//! [`Client::call`] sends a request, [`Client::get`] is its usual form. One deadline covers breakers, turn, token and
//! exchange. The token is shared, requested by one caller at a time, and used until a 401 says that it may have
//! expired; then there is one new login and one repetition. After a failed login there is a wait before the next. GETs and logins are repeated after failures that may pass
//! (`Verdict::Again`). A write is repeated only if nothing can have been written: there was no connection, the token
//! was refused, or another process had locked the record.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use secrecy::ExposeSecret;
use tokio::sync::{MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use super::answer_fault::{of_answer, of_failure, too_large, too_large_description, unread_write};
use super::breakers::{Breakers, Change, Ended, Passes, Purpose};
pub(super) use super::call::{Call, Reply, Want};
use super::call::{LOGIN_BYTES_MAX, is_wanted};
use super::fault::{Fault, Verdict};
use super::login::Logins;
use super::login_fault::of_login;
use super::oauth::{Grant, Issued, SetupError, TOKEN_PATH, Token, connect, read_token};
use super::response::{api_usage, error_codes};
use super::soql;
use super::stats::{Snapshot, Stats, count};
use super::write_fault::of_write;
use crate::backoff::Backoff;
use crate::config;
use crate::http::{self, BaseUrl, Failure};

/// How often a request is repeated after a failure that may pass.
const REPEATS: u32 = 2;

/// The longest pause that Salesforce can ask for with Retry-After.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// The shortest and the longest pause after too many concurrent calls, in milliseconds.
const CROWDED_MS: (u64, u64) = (1000, 5000);

/// The wait before a repetition.
const REPEAT_AFTER: Backoff =
    Backoff { least: Duration::ZERO, first: Duration::from_millis(200), most: Duration::from_secs(10) };

/// The connection to one org.
pub(super) struct Client {
    org: config::Salesforce,
    login: BaseUrl,
    grant: Grant,
    http: http::Client,
    turns: Semaphore,
    /// Permits for writes, fewer than `turns`: slow triggers and flows must leave room for credentials.
    writing: Semaphore,
    /// Permits for writes that run on after `timeout` without a turn.
    running_on: Semaphore,
    breakers: Mutex<Breakers>,
    token: Mutex<Option<Arc<Token>>>,
    /// Held during a login.
    logins: tokio::sync::Mutex<Logins>,
    jitter: Mutex<StdRng>,
    stats: Stats,
}

impl Client {
    /// Reads the key, the secret and the certificates. Sends nothing.
    pub(super) fn new(org: config::Salesforce) -> Result<Self, SetupError> {
        let grant = Grant::read(&org)?;
        let login = BaseUrl::parse(&org.login_url).map_err(|fault| SetupError::new("salesforce.login_url", fault))?;
        if !(login.https || org.insecure_http && login.is_loopback()) {
            return Err(SetupError::new("salesforce.login_url", "must begin with https://"));
        }
        Ok(Self {
            http: connect(&org, &login)?,
            login,
            grant,
            turns: Semaphore::new(org.concurrency.min(Semaphore::MAX_PERMITS)),
            writing: Semaphore::new(org.concurrency.div_ceil(2).min(Semaphore::MAX_PERMITS)),
            running_on: Semaphore::new(org.concurrency.min(Semaphore::MAX_PERMITS)),
            breakers: Mutex::new(Breakers::new(org.breaker_failures, org.breaker_open)),
            token: Mutex::default(),
            logins: tokio::sync::Mutex::default(),
            jitter: Mutex::new(StdRng::seed_from_u64(rand::random())),
            stats: Stats::default(),
            org,
        })
    }

    /// Requests a path of the instance.
    pub(super) async fn get(&self, path: &str, want: Want) -> Result<Reply, Fault> {
        self.call(&Call { method: Method::GET, path, body: None, want, target: None }).await
    }

    /// Sends one request.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Reply, Fault> {
        let mut counted = Counted { stats: &self.stats, started: Instant::now(), answered: false };
        let outcome = self.within(self.in_turn(call)).await;
        counted.answered = outcome.is_ok();
        outcome
    }

    /// Sends one write that runs on after the time limit, for at most `limit` in all, because its outcome has to be
    /// known. Only a write that was sent runs on: waiting for a turn and logging in are limited as usual.
    pub(super) async fn call_to_its_end(&self, call: &Call<'_>, limit: Duration) -> Result<Reply, Fault> {
        let mut counted = Counted { stats: &self.stats, started: Instant::now(), answered: false };
        let Turn { mut ending, permits } = self.within(self.turn(call)).await?;
        let at_login = Arc::clone(&ending.at_login);
        let exchange = self.exchange(call, Instant::now() + self.org.timeout, &at_login);
        tokio::pin!(exchange);
        let outcome = match timeout(self.org.timeout, &mut exchange).await {
            Ok(outcome) => {
                ending.note(&outcome);
                outcome
            }
            // Nothing was written: the request was not sent, or was refused because of its token.
            Err(_) if at_login.load(Ordering::Relaxed) => Err(slow_login()),
            Err(_) => {
                drop(ending);
                // Others get the turn, unless too many writes run on already.
                let running_on = self.running_on.try_acquire();
                let _kept = running_on.is_err().then_some(permits);
                timeout(limit.saturating_sub(self.org.timeout), exchange)
                    .await
                    .unwrap_or_else(|_| Err(too_slow().in_doubt()))
            }
        };
        counted.answered = outcome.is_ok();
        outcome
    }

    /// Runs something that takes several requests under the time limit of one.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        timeout(self.org.timeout, work).await.unwrap_or_else(|_| Err(too_slow()))
    }

    /// Returns the session, after a login if there is none. For callers who only want to know whether that works.
    pub(super) async fn session(&self) -> Result<Arc<Token>, Fault> {
        self.within(self.token(None)).await
    }

    /// Logs in again, unless there has been a login since `expired` was issued. For callers whose token was refused.
    pub(super) async fn renewed(&self, expired: &Token) -> Result<Arc<Token>, Fault> {
        timeout(self.org.timeout, self.token(Some(expired.number))).await.unwrap_or_else(|_| Err(too_slow()))
    }

    /// Sends a request to the login host to find out whether the network and TLS allow it. Returns how far this
    /// computer's clock is ahead, in seconds.
    pub(super) async fn reach(&self) -> Result<Option<i64>, Fault> {
        let asked = http::send(self.http.request(Method::GET, format!("{}/services/data/", self.login)));
        match timeout(self.org.timeout, asked).await {
            Ok(Ok(answer)) => Ok(self.note(answer.headers())),
            Ok(Err(failure)) => Err(of_failure(&failure).fault()),
            Err(_) => Err(too_slow()),
        }
    }

    /// Returns whether a login contains a time limit by this computer's clock.
    pub(super) fn signs(&self) -> bool {
        matches!(self.grant, Grant::JwtBearer { .. })
    }

    /// The present counts.
    pub(super) fn snapshot(&self) -> Snapshot {
        let age = self.token.lock().as_ref().map(|token| token.since.elapsed());
        let breakers = self.breakers.lock();
        self.stats.snapshot(breakers.state(), breakers.states(), age)
    }

    async fn in_turn(&self, call: &Call<'_>) -> Result<Reply, Fault> {
        let until = Instant::now() + self.org.timeout;
        let mut turn = self.turn(call).await?;
        let outcome = self.exchange(call, until, &Arc::clone(&turn.ending.at_login)).await;
        turn.ending.note(&outcome);
        outcome
    }

    /// Waits for a turn.
    async fn turn<'a>(&'a self, call: &'a Call<'_>) -> Result<Turn<'a>, Fault> {
        let (purpose, writes) = (call.purpose(), call.writes());
        self.kept_away(self.breakers.lock().look(Instant::now().into_std(), purpose))?;
        let writing = match writes {
            true => self.writing.acquire().await.ok(),
            false => None,
        };
        let Ok(turn) = self.turns.acquire().await else { return Err(too_slow()) };
        // The requests before this one may have failed meanwhile.
        let passes = self.kept_away(self.breakers.lock().admit(Instant::now().into_std(), purpose))?;
        let ending = Ending { client: self, purpose, passes, writes, at_login: Arc::default(), outcome: None };
        Ok(Turn { ending, permits: (writing, turn) })
    }

    fn kept_away<T>(&self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        outcome.inspect_err(|_| count(&self.stats.kept_away))
    }

    async fn exchange(&self, call: &Call<'_>, until: Instant, at_login: &AtomicBool) -> Result<Reply, Fault> {
        let mut expired = None;
        let mut repeats = 0;
        loop {
            at_login.store(true, Ordering::Relaxed);
            let token = self.token(expired).await?;
            at_login.store(false, Ordering::Relaxed);
            match self.ask(&token, call).await {
                Ok(reply) => return Ok(reply),
                // Nothing was written, and nothing is sent late.
                Err(Verdict::Login(_)) if expired.is_none() && Instant::now() >= until => return Err(too_slow()),
                Err(Verdict::Login(_)) if expired.is_none() => expired = Some(token.number),
                Err(Verdict::Again(fault)) if repeats < REPEATS => {
                    self.wait(repeats, fault, until).await?;
                    repeats += 1;
                }
                Err(verdict) => return Err(verdict.fault()),
            }
        }
    }

    /// Returns the token, or a new one if it is the expired one. There is one login at a time, and everyone who waited
    /// for it gets its outcome.
    async fn token(&self, expired: Option<u64>) -> Result<Arc<Token>, Fault> {
        let usable = || self.token.lock().clone().filter(|token| expired.is_none_or(|it| it < token.number));
        if let Some(token) = usable() {
            return Ok(token);
        }
        let logins = self.logins.lock().await;
        if let Some(token) = usable() {
            return Ok(token);
        }
        if let Some(fault) = logins.refused(Instant::now().into_std()) {
            return Err(fault);
        }
        let mut attempt = Attempt { client: self, logins, begun: Instant::now(), ended: false };
        let issued = timeout(self.org.timeout, self.log_in()).await.unwrap_or_else(|_| Err(slow_login()));
        let Issued { secret, base, user, org } = issued.inspect_err(|fault| attempt.failed(fault))?;
        let number = attempt.succeeded();
        let token = Arc::new(Token { secret, base, user, org, since: Instant::now(), number });
        *self.token.lock() = Some(Arc::clone(&token));
        tracing::debug!(instance = %token.base, "logged in to Salesforce");
        Ok(token)
    }

    async fn log_in(&self) -> Result<Issued, Fault> {
        let until = Instant::now() + self.org.timeout;
        let mut repeats = 0;
        loop {
            count(&self.stats.logins);
            match self.ask_for_token().await {
                Ok(issued) => return Ok(issued),
                Err(Verdict::Again(fault)) if repeats < REPEATS => {
                    self.wait(repeats, fault, until).await?;
                    repeats += 1;
                }
                Err(verdict) => return Err(verdict.fault()),
            }
        }
    }

    async fn ask_for_token(&self) -> Result<Issued, Verdict> {
        const REFUSED: &str =
            "Salesforce refuses the broker; tell an administrator: the broker's log says what to change";
        let rejected = |operator: String| Verdict::Final(Fault::barred(REFUSED, operator));
        #[expect(clippy::disallowed_methods, reason = "an assertion says until when it holds; no rule depends on it")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let form = self.grant.form(now).map_err(|_| rejected("the assertion could not be signed".to_owned()))?;
        let request = self.http.request(Method::POST, format!("{}{TOKEN_PATH}", self.login));
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.as_bytes().to_vec());
        let Received { status, body, skew, retry_after } = self.send(request, false, LOGIN_BYTES_MAX).await?;
        match status {
            200..=299 => read_token(&body, &self.org).map_err(rejected),
            _ => Err(self.paused(of_login(status, &body, skew), status, retry_after)),
        }
    }

    async fn ask(&self, token: &Token, call: &Call<'_>) -> Result<Reply, Verdict> {
        let bearer = Zeroizing::new(format!("Bearer {}", token.secret.expose_secret()));
        let mut bearer =
            HeaderValue::from_str(&bearer).map_err(|_| transport_fault("the token cannot be written as a header"))?;
        bearer.set_sensitive(true);
        count(&self.stats.calls);
        let request = self.http.request(call.method.clone(), format!("{}{}", token.base, call.path));
        let mut request = request.header(AUTHORIZATION, bearer).header("Sforce-Call-Options", "client=switchboard");
        if let Some(body) = call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_owned());
        }
        let Received { status, body, retry_after, .. } = self.send(request, call.writes(), call.bytes_max()).await?;
        if is_wanted(status, &body, call.want) {
            return Ok(Reply { status, body });
        }
        let verdict = match (status, call.target) {
            (200..=299, _) => Verdict::Again(Fault::unavailable(
                "Salesforce does not answer as it should just now; try again in a moment",
                format!("HTTP {status} with something else than JSON: maintenance (status.salesforce.com), or a proxy"),
            )),
            (_, Some(target)) => of_write(status, &body, target),
            (_, None) => of_answer(status, &body, &soql::fields(&self.org.credentials, &[])),
        };
        let verdict = self.paused(verdict, status, retry_after);
        // Salesforce's own refusals say that nothing was written. Any other answer leaves it open.
        let is_refusal = match status {
            400..=499 => true,
            _ => error_codes(&body).first().is_some_and(|error| !error.code.is_empty()),
        };
        if call.writes() && !is_refusal {
            return Err(verdict.in_doubt());
        }
        Err(if call.writes() && !verdict.is_particular() { verdict.once() } else { verdict })
    }

    /// If Salesforce asks to be left alone, lets no request through for so long.
    fn paused(&self, verdict: Verdict, status: u16, retry_after: Option<Duration>) -> Verdict {
        let span = match status {
            _ if verdict.is_crowd() => {
                let (least, most) = CROWDED_MS;
                let drawn = || Duration::from_millis(self.jitter.lock().random_range(least..=most));
                let asked = retry_after.unwrap_or_else(drawn);
                Some(asked.clamp(Duration::from_millis(least), Duration::from_millis(most)))
            }
            429 | 503 => retry_after.map(|it| it.min(PAUSE_MAX)).filter(|it| !it.is_zero()),
            _ => None,
        };
        let Some(span) = span else { return verdict };
        let verdict = verdict.with_pause(span);
        let fault = verdict.clone().fault();
        if self.breakers.lock().pause(Instant::now().into_std(), span, &fault) {
            tracing::warn!(?span, hint = fault.operator(), "requests to Salesforce pause");
        }
        verdict
    }

    /// Sends a request and reads the whole answer. With `once`, a failure after which the request may have arrived is
    /// final and leaves its outcome in doubt.
    async fn send(&self, request: reqwest::RequestBuilder, once: bool, bytes_max: usize) -> Result<Received, Verdict> {
        let failed = |failure: Failure| match &failure {
            // The write was answered, but nobody knows how.
            Failure::TooLarge if once => unread_write(bytes_max).in_doubt(),
            Failure::TooLarge if bytes_max > LOGIN_BYTES_MAX => too_large_description(bytes_max),
            Failure::TooLarge => too_large(bytes_max),
            Failure::Broken(_) if once => of_failure(&failure).in_doubt(),
            Failure::Tls(_) | Failure::Unconnected(_) | Failure::Broken(_) => of_failure(&failure),
        };
        let answer = http::send(request.header(ACCEPT, "application/json")).await.map_err(failed)?;
        let (status, skew, retry_after) = (answer.status(), self.note(answer.headers()), answer.retry_after());
        Ok(Received { status, body: answer.body(bytes_max).await.map_err(failed)?, skew, retry_after })
    }

    fn note(&self, headers: &HeaderMap) -> Option<i64> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some((used, limit)) = text("sforce-limit-info").and_then(api_usage) {
            self.stats.usage(used, limit);
        }
        let theirs = text(DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok())?;
        #[expect(
            clippy::disallowed_methods,
            reason = "compared with Salesforce's clock, and told to the operator only"
        )]
        let ours = SystemTime::now();
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let ahead = ours.duration_since(theirs).map_or_else(|behind| -seconds(behind.duration()), seconds);
        self.stats.clock(ahead);
        Some(ahead)
    }

    /// Waits before a repetition, at least as long as Salesforce asked for. If that would take too long, returns the
    /// fault at once.
    async fn wait(&self, repeats: u32, fault: Fault, until: Instant) -> Result<(), Fault> {
        let drawn = REPEAT_AFTER.wait(repeats, &mut *self.jitter.lock());
        let end = Instant::now() + drawn.max(fault.pause().unwrap_or_default());
        if end >= until {
            return Err(fault);
        }
        count(&self.stats.repeats);
        sleep_until(end).await;
        Ok(())
    }
}

/// An answer that was read.
struct Received {
    status: u16,
    body: Zeroizing<Vec<u8>>,
    /// How far this computer's clock is ahead, in seconds.
    skew: Option<i64>,
    /// How long Salesforce asks to be left alone.
    retry_after: Option<Duration>,
}

/// Counts a request when it ends, even if its caller gives up.
struct Counted<'a> {
    stats: &'a Stats,
    started: Instant,
    answered: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.stats.took(self.started.elapsed());
        count(if self.answered { &self.stats.answered } else { &self.stats.failed });
    }
}

/// A login in progress. The wait after a failed one begins even if the login's caller gave up.
struct Attempt<'a> {
    client: &'a Client,
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
        self.logins.failed(Instant::now().into_std(), fault);
        count(&self.client.stats.logins_failed);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // Cut short by a deadline, or by an application that went away, which says nothing about the login host.
        if !self.ended && self.begun.elapsed() >= self.client.org.timeout / 2 {
            self.failed(&slow_login());
        }
    }
}

/// A request that may be sent.
struct Turn<'a> {
    ending: Ending<'a>,
    permits: (Option<SemaphorePermit<'a>>, SemaphorePermit<'a>),
}

/// Reports the outcome of a request to the breakers, even if its deadline cut it short.
struct Ending<'a> {
    client: &'a Client,
    purpose: Purpose<'a>,
    passes: Passes,
    writes: bool,
    /// Whether it waits for a login.
    at_login: Arc<AtomicBool>,
    /// `None`: the deadline cut it short.
    outcome: Option<Result<(), Fault>>,
}

impl Ending<'_> {
    fn note(&mut self, outcome: &Result<Reply, Fault>) {
        self.outcome = Some(outcome.as_ref().map(drop).map_err(Fault::clone));
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let ended = match self.outcome.take() {
            None if self.at_login.load(Ordering::Relaxed) => Ended::Failed(slow_login()),
            None => Ended::Silent { fault: too_slow(), writes: self.writes },
            Some(Ok(())) => Ended::Answered,
            Some(Err(fault)) => Ended::Failed(fault),
        };
        let now = Instant::now().into_std();
        let changes = self.client.breakers.lock().end(now, self.purpose, self.passes, ended);
        for change in changes {
            match change {
                Change::Opened { name, span, cause } => {
                    let hint = cause.operator();
                    tracing::warn!(of = name, ?span, hint, "the circuit breaker is open: requests to Salesforce fail");
                }
                Change::Closed { name } => tracing::info!(of = name, "Salesforce answers again"),
            }
        }
    }
}

fn slow_login() -> Fault {
    Fault::gone(
        "Salesforce takes too long just now; try again in a moment",
        "the login was not answered within salesforce.timeout: status.salesforce.com, or a proxy or firewall on the way",
    )
}

fn too_slow() -> Fault {
    Fault::unavailable(
        "Salesforce takes too long just now; try again in a moment",
        "no answer within salesforce.timeout: status.salesforce.com, a proxy or firewall on the way, a slow query (make \
         salesforce.credentials.key_field an External ID), or a slow trigger or flow on a record that is written",
    )
}

fn transport_fault(operator: &'static str) -> Verdict {
    Verdict::Final(Fault::gone("Salesforce cannot be reached; try again in a moment", operator))
}
