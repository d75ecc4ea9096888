//! [`Client`]: requests to the org's REST API. The only file of this folder that uses the network or a clock.
//!
//! [`Client::call`] sends a request, [`Client::get`] is its usual form. One deadline covers breaker, turn, token and
//! exchange. The token is shared, requested by one caller at a time, and used until a 401 says that it may have
//! expired; then there is one new login and one repetition. GETs and logins are repeated after failures that may pass
//! (`Verdict::Again`). A write is repeated only if nothing can have been written: there was no connection, the token
//! was refused, or another process had locked the record.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use secrecy::ExposeSecret;
use serde::de::IgnoredAny;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use super::fault::{Fault, Verdict, of_answer, of_failure, of_login};
use super::oauth::{Grant, Issued, SetupError, TOKEN_PATH, Token, connect, read_token};
use super::response::{api_usage, error_codes};
use super::soql;
use super::stats::{Snapshot, Stats, count};
use super::write_fault::{Target, of_write};
use crate::backoff::Backoff;
use crate::config;
use crate::http::{self, BaseUrl, Breaker, BreakerState, Failure, Outcome, Pass};

/// How often a request is repeated after a failure that may pass.
const REPEATS: u32 = 2;

/// The largest answer that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The wait before a repetition.
const REPEAT_AFTER: Backoff =
    Backoff { least: Duration::ZERO, first: Duration::from_millis(200), most: Duration::from_secs(10) };

/// Which answers besides JSON the caller understands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// None.
    Json,
    /// One row by its key: 300 means several rows, 404 none.
    Row,
    /// The answer of an Apex resource: 404 or an empty body means no row.
    Apex,
    /// The id of a new record: 400 with `DUPLICATE_VALUE` means that it exists already.
    Created,
    /// The answer to a change, which is usually empty.
    Changed,
}

/// One request to the instance.
pub(super) struct Call<'a> {
    /// Every method except GET writes.
    pub(super) method: Method,
    /// The path with its query.
    pub(super) path: &'a str,
    /// The body, in JSON.
    pub(super) body: Option<&'a str>,
    /// Which answers are understood.
    pub(super) want: Want,
    /// The object that is read or written; `None`: the one with the credentials.
    pub(super) target: Option<&'a Target<'a>>,
}

impl Call<'_> {
    fn writes(&self) -> bool {
        self.method != Method::GET
    }
}

/// An answer.
pub(super) struct Reply {
    /// A success status, or one that [`Want`] allows.
    pub(super) status: u16,
    /// The body; zeroised when dropped.
    pub(super) body: Zeroizing<Vec<u8>>,
}

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
    breaker: Mutex<Breaker<Fault>>,
    token: Mutex<Option<Arc<Token>>>,
    /// Held during a login; contains the failure of the last one.
    logging_in: tokio::sync::Mutex<Option<Fault>>,
    /// The number of logins that ended, successful or not.
    attempts: AtomicU64,
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
            breaker: Mutex::new(Breaker::new(org.breaker_failures, org.breaker_open)),
            token: Mutex::default(),
            logging_in: tokio::sync::Mutex::default(),
            attempts: AtomicU64::new(0),
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
    /// known. Waiting for a turn is limited as usual, so nothing is begun late.
    pub(super) async fn call_to_its_end(&self, call: &Call<'_>, limit: Duration) -> Result<Reply, Fault> {
        let mut counted = Counted { stats: &self.stats, started: Instant::now(), answered: false };
        let Turn { mut ending, permits } = self.within(self.turn(call.writes())).await?;
        let exchange = self.exchange(call);
        tokio::pin!(exchange);
        let outcome = match timeout(self.org.timeout, &mut exchange).await {
            Ok(outcome) => {
                ending.note(&outcome);
                outcome
            }
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
        let breaker = self.breaker.lock().state();
        self.stats.snapshot(breaker, age)
    }

    async fn in_turn(&self, call: &Call<'_>) -> Result<Reply, Fault> {
        let mut turn = self.turn(call.writes()).await?;
        let outcome = self.exchange(call).await;
        turn.ending.note(&outcome);
        outcome
    }

    /// Waits for a turn.
    async fn turn(&self, writes: bool) -> Result<Turn<'_>, Fault> {
        self.kept_away(self.breaker.lock().look(Instant::now().into_std()))?;
        let writing = match writes {
            true => self.writing.acquire().await.ok(),
            false => None,
        };
        let Ok(turn) = self.turns.acquire().await else { return Err(too_slow()) };
        // The requests before this one may have failed meanwhile.
        let pass = self.kept_away(self.breaker.lock().admit(Instant::now().into_std()))?;
        Ok(Turn { ending: Ending { client: self, pass, writes, outcome: None }, permits: (writing, turn) })
    }

    fn kept_away<T>(&self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        outcome.inspect_err(|_| count(&self.stats.kept_away))
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Reply, Fault> {
        let mut expired = None;
        let mut repeats = 0;
        loop {
            let token = self.token(expired).await?;
            match self.ask(&token, call).await {
                Ok(reply) => return Ok(reply),
                Err(Verdict::Login(_)) if expired.is_none() => expired = Some(token.number),
                Err(Verdict::Again(_)) if repeats < REPEATS => {
                    self.pause(repeats).await;
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
        let before = self.attempts.load(Ordering::Acquire);
        let mut last = self.logging_in.lock().await;
        if let Some(token) = usable() {
            return Ok(token);
        }
        if let Some(fault) = last.as_ref().filter(|_| self.attempts.load(Ordering::Acquire) != before) {
            return Err(fault.clone());
        }
        let outcome = self.log_in().await;
        let number = self.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        *last = outcome.as_ref().err().cloned();
        let Issued { secret, base, user, org } = outcome.inspect_err(|_| count(&self.stats.logins_failed))?;
        let token = Arc::new(Token { secret, base, user, org, since: Instant::now(), number });
        *self.token.lock() = Some(Arc::clone(&token));
        tracing::debug!(instance = %token.base, "logged in to Salesforce");
        Ok(token)
    }

    async fn log_in(&self) -> Result<Issued, Fault> {
        let mut repeats = 0;
        loop {
            count(&self.stats.logins);
            match self.ask_for_token().await {
                Ok(issued) => return Ok(issued),
                Err(Verdict::Again(_)) if repeats < REPEATS => {
                    self.pause(repeats).await;
                    repeats += 1;
                }
                Err(verdict) => return Err(verdict.fault()),
            }
        }
    }

    async fn ask_for_token(&self) -> Result<Issued, Verdict> {
        const REFUSED: &str =
            "Salesforce refuses the broker; tell an administrator: the broker's log says what to change";
        let rejected = |operator: String| Verdict::Final(Fault::rejected(REFUSED, operator));
        #[expect(clippy::disallowed_methods, reason = "an assertion says until when it holds; no rule depends on it")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let form = self.grant.form(now).map_err(|_| rejected("the assertion could not be signed".to_owned()))?;
        let request = self.http.request(Method::POST, format!("{}{TOKEN_PATH}", self.login));
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.as_bytes().to_vec());
        let (status, reply, skew) = self.send(request, false).await?;
        match status {
            200..=299 => read_token(&reply, &self.org).map_err(rejected),
            _ => Err(of_login(status, &reply, skew)),
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
        let (status, body, _) = self.send(request, call.writes()).await?;
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

    /// Sends a request and reads the whole answer: status, body, and how far this computer's clock is ahead. With
    /// `once`, a failure after which the request may have arrived is final and leaves its outcome in doubt.
    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        once: bool,
    ) -> Result<(u16, Zeroizing<Vec<u8>>, Option<i64>), Verdict> {
        let failed = |failure: Failure| match &failure {
            Failure::Broken(_) | Failure::TooLarge if once => of_failure(&failure).in_doubt(),
            Failure::TooLarge | Failure::Tls(_) | Failure::Unconnected(_) | Failure::Broken(_) => of_failure(&failure),
        };
        let answer = http::send(request.header(ACCEPT, "application/json")).await.map_err(failed)?;
        let (status, skew) = (answer.status(), self.note(answer.headers()));
        Ok((status, answer.body(BODY_BYTES_MAX).await.map_err(failed)?, skew))
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

    async fn pause(&self, repeats: u32) {
        count(&self.stats.repeats);
        let span = REPEAT_AFTER.wait(repeats, &mut *self.jitter.lock());
        sleep_until(Instant::now() + span).await;
    }
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

/// A request that may be sent.
struct Turn<'a> {
    ending: Ending<'a>,
    permits: (Option<SemaphorePermit<'a>>, SemaphorePermit<'a>),
}

/// Reports the outcome of a request to the breaker, even if its deadline cut it short.
struct Ending<'a> {
    client: &'a Client,
    pass: Pass,
    writes: bool,
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
        let failed = match &self.outcome {
            // A slow trigger or flow is a matter of one object, and says nothing about Salesforce.
            None if self.writes && self.pass == Pass::Normal => return,
            None => Some(too_slow()),
            Some(Err(fault)) if !fault.is_particular() => Some(fault.clone()),
            Some(_) => None,
        };
        let outcome = match &failed {
            None => Outcome::Answered,
            Some(fault) if fault.is_limit() => Outcome::Exhausted(fault.clone().while_open()),
            Some(fault) => Outcome::Failed(fault.clone().while_open()),
        };
        let mut breaker = self.client.breaker.lock();
        let before = breaker.state();
        let opened = breaker.end(Instant::now().into_std(), self.pass, outcome);
        let after = breaker.state();
        drop(breaker);
        if let (Some(span), Some(fault)) = (opened, &failed) {
            tracing::warn!(?span, hint = fault.operator(), "the circuit breaker is open: requests to Salesforce fail");
        }
        if before != BreakerState::Closed && after == BreakerState::Closed {
            tracing::info!("Salesforce answers again");
        }
    }
}

/// Returns whether the caller understands an answer.
fn is_wanted(status: u16, body: &[u8], want: Want) -> bool {
    let says = |code: &str| error_codes(body).iter().any(|error| error.code == code);
    match status {
        200..=299 if body.trim_ascii().is_empty() => matches!(want, Want::Apex | Want::Changed),
        200..=299 => serde_json::from_slice::<IgnoredAny>(body).is_ok(),
        300 => want == Want::Row,
        400 => want == Want::Created && says("DUPLICATE_VALUE"),
        404 if want == Want::Apex => true,
        404 => want == Want::Row && says("NOT_FOUND"),
        _ => false,
    }
}

fn too_slow() -> Fault {
    Fault::unavailable(
        "Salesforce takes too long just now; try again in a moment",
        "no answer within salesforce.timeout: status.salesforce.com, a proxy or firewall on the way, a slow query (make \
         salesforce.credentials.key_field an External ID), or a slow trigger or flow on a record that is written",
    )
}

fn transport_fault(operator: &'static str) -> Verdict {
    Verdict::Final(Fault::unavailable("Salesforce cannot be reached; try again in a moment", operator))
}
