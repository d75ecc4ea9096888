//! [`Client`]: requests to the org's REST API.
//!
//! [`Client::call`] sends a request, [`Client::get`] is its usual form. One deadline covers breakers, turn, token and
//! exchange. The token is used until a 401 says that it may have expired; then there is one new login and one
//! repetition. A request counts as a call of its user only once it is sent. GETs are repeated after failures that may pass
//! (`Verdict::Again`). A write is repeated only if nothing can have been written: there was no connection, the token was
//! refused, or another process had locked the record.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::ExposeSecret;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::answer_fault::{of_answer, of_failure};
use super::breakers::{Breakers, Change, Ended, Passes, Purpose};
use super::call::is_wanted;
pub(super) use super::call::{Call, Reply, Want};
use super::counted::{CountedCall, refused};
use super::fault::{Fault, Verdict};
use super::login::{Login, slow_login};
use super::oauth::{SetupError, Token, connect};
use super::quota::Quota;
use super::response::error_codes;
use super::soql;
use super::stats::{Snapshot, Stats, count};
use super::transport::{REPEATS, Received, Transport};
use super::write_fault::of_write;
use crate::config;
use crate::http;
use crate::telemetry::metrics::{SalesforceCalls, SalesforceOutcome};

/// The connection to one org.
pub(super) struct Client {
    org: config::Salesforce,
    transport: Transport,
    login: Login,
    quota: Quota,
    turns: Semaphore,
    /// Permits for writes, fewer than `turns`: slow triggers and flows must leave room for credentials.
    writing: Semaphore,
    /// Permits for writes that run on after `timeout` without a turn.
    running_on: Semaphore,
}

impl Client {
    /// Reads the key, the secret and the certificates. Sends nothing.
    pub(super) fn new(org: config::Salesforce) -> Result<Self, SetupError> {
        Self::counting(org, Arc::default())
    }

    /// A client with other settings that goes on with the same counts.
    pub(super) fn with(&self, org: config::Salesforce) -> Result<Self, SetupError> {
        Self::counting(org, Arc::clone(&self.transport.stats))
    }

    fn counting(org: config::Salesforce, stats: Arc<Stats>) -> Result<Self, SetupError> {
        let login = Login::new(&org)?;
        let breakers = Breakers::new(org.breaker_failures, org.breaker_open);
        Ok(Self {
            transport: Transport::new(connect(&org, login.host())?, breakers, stats),
            login,
            quota: Quota::new(org.calls_per_user),
            turns: Semaphore::new(org.concurrency.min(Semaphore::MAX_PERMITS)),
            writing: Semaphore::new(org.concurrency.div_ceil(2).min(Semaphore::MAX_PERMITS)),
            running_on: Semaphore::new(org.concurrency.min(Semaphore::MAX_PERMITS)),
            org,
        })
    }

    /// Requests a path of the instance.
    pub(super) async fn get(&self, path: &str, want: Want) -> Result<Reply, Fault> {
        self.call(&Call::get(path, want)).await
    }

    /// Sends one request.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Reply, Fault> {
        let mut counted = Counted { stats: &self.transport.stats, started: Instant::now(), answered: false };
        let outcome = self.within(self.in_turn(call)).await;
        counted.answered = outcome.is_ok();
        outcome
    }

    /// Sends one write that runs on after the time limit, for at most `limit` in all, because its outcome has to be
    /// known. Only a write that was sent runs on: waiting for a turn and logging in are limited as usual.
    pub(super) async fn call_to_its_end(&self, call: &Call<'_>, limit: Duration) -> Result<Reply, Fault> {
        let mut counted = Counted { stats: &self.transport.stats, started: Instant::now(), answered: false };
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
        self.within(self.login.token(&self.transport, None)).await
    }

    /// Logs in again, unless there has been a login since `expired` was issued. For callers whose token was refused.
    pub(super) async fn renewed(&self, expired: &Token) -> Result<Arc<Token>, Fault> {
        timeout(self.org.timeout, self.login.token(&self.transport, Some(expired.number)))
            .await
            .unwrap_or_else(|_| Err(too_slow()))
    }

    /// Sends a request to the login host to find out whether the network and TLS allow it. Returns how far this
    /// computer's clock is ahead, in seconds.
    pub(super) async fn reach(&self) -> Result<Option<i64>, Fault> {
        let asked = http::send(self.transport.request(Method::GET, format!("{}/services/data/", self.login.host())));
        match timeout(self.org.timeout, asked).await {
            Ok(Ok(answer)) => Ok(self.transport.note(answer.headers())),
            Ok(Err(failure)) => Err(of_failure(&failure).fault()),
            Err(_) => Err(too_slow()),
        }
    }

    /// Returns whether a login contains a time limit by this computer's clock.
    pub(super) fn signs(&self) -> bool {
        self.login.signs()
    }

    /// Counts its calls here. For a client that has just been made.
    pub(super) fn count_in(&mut self, calls: Arc<SalesforceCalls>) {
        let stats = Arc::get_mut(&mut self.transport.stats);
        debug_assert!(stats.is_some(), "a client that others use counts already");
        if let Some(stats) = stats {
            stats.by_operation = calls;
        }
    }

    /// Where its calls are counted.
    pub(super) fn calls(&self) -> &SalesforceCalls {
        &self.transport.stats.by_operation
    }

    /// The present counts.
    pub(super) fn snapshot(&self) -> Snapshot {
        let age = self.login.token_age();
        let breakers = self.transport.breakers.lock();
        self.transport.stats.snapshot(breakers.state(), breakers.states(), age)
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
        self.kept_away(call, self.transport.breakers.lock().look(Instant::now().into_std(), purpose))?;
        let writing = match writes {
            true => self.writing.acquire().await.ok(),
            false => None,
        };
        let Ok(turn) = self.turns.acquire().await else { return Err(too_slow()) };
        // The requests before this one may have failed meanwhile.
        let passes = self.kept_away(call, self.transport.breakers.lock().admit(Instant::now().into_std(), purpose))?;
        let ending = Ending { client: self, purpose, passes, writes, at_login: Arc::default(), outcome: None };
        Ok(Turn { ending, permits: (writing, turn) })
    }

    fn kept_away<T>(&self, call: &Call<'_>, outcome: Result<T, Fault>) -> Result<T, Fault> {
        outcome.inspect_err(|_| {
            count(&self.transport.stats.kept_away);
            self.calls().calls.count((call.operation(), SalesforceOutcome::Shed));
        })
    }

    async fn exchange(&self, call: &Call<'_>, until: Instant, at_login: &AtomicBool) -> Result<Reply, Fault> {
        let (mut expired, mut repeats) = (None, 0);
        let mut uncounted = call.user;
        loop {
            at_login.store(true, Ordering::Relaxed);
            let token = self.login.token(&self.transport, expired).await?;
            at_login.store(false, Ordering::Relaxed);
            if let Some(user) = uncounted.take() {
                let taken = self.quota.take(Instant::now().into_std(), user);
                taken.inspect_err(|_| self.calls().calls.count((call.operation(), SalesforceOutcome::Shed)))?;
            }
            match self.ask(&token, call).await {
                Ok(reply) => return Ok(reply),
                // Nothing was written, and nothing is sent late.
                Err(Verdict::Login(_)) if expired.is_none() && Instant::now() >= until => return Err(too_slow()),
                Err(Verdict::Login(_)) if expired.is_none() => expired = Some(token.number),
                Err(Verdict::Again(fault)) if repeats < REPEATS => {
                    self.transport.wait(repeats, fault, until).await?;
                    repeats += 1;
                }
                Err(verdict) => return Err(verdict.fault()),
            }
        }
    }

    async fn ask(&self, token: &Token, call: &Call<'_>) -> Result<Reply, Verdict> {
        let bearer = Zeroizing::new(format!("Bearer {}", token.secret.expose_secret()));
        let mut bearer =
            HeaderValue::from_str(&bearer).map_err(|_| transport_fault("the token cannot be written as a header"))?;
        bearer.set_sensitive(true);
        count(&self.transport.stats.calls);
        let request = self.transport.request(call.method.clone(), format!("{}{}", token.base, call.path));
        let mut request = request.header(AUTHORIZATION, bearer).header("Sforce-Call-Options", "client=switchboard");
        if let Some(body) = call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_owned());
        }
        let counted = CountedCall::begin(self.calls(), call.operation());
        let received = match self.transport.send(request, call.writes(), call.largest()).await {
            Ok(received) => received,
            Err(verdict) => {
                counted.end(SalesforceOutcome::Network);
                return Err(verdict);
            }
        };
        let Received { status, body, retry_after, .. } = received;
        if is_wanted(status, &body, call.want) {
            counted.end(SalesforceOutcome::Ok);
            return Ok(Reply { status, body });
        }
        counted.end(refused(status, &body));
        let verdict = match (status, call.target) {
            (200..=299, _) => Verdict::Again(Fault::unavailable(
                "Salesforce does not answer as it should just now; try again in a moment",
                format!("HTTP {status} with something else than JSON: maintenance (status.salesforce.com), or a proxy"),
            )),
            (_, Some(target)) => of_write(status, &body, target),
            (_, None) => of_answer(status, &body, &soql::fields(&self.org.credentials, &[])),
        };
        let verdict = self.transport.paused(verdict, status, retry_after);
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
        let changes = self.client.transport.breakers.lock().end(now, self.purpose, self.passes, ended);
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
