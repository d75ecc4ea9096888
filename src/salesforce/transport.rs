//! [`Transport`]: sends requests to an org and its login host, and reads what they answer. It respects the pauses that
//! Salesforce asks for, and keeps the counts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Method;
use reqwest::header::{ACCEPT, DATE, HeaderMap};
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::answer_fault::of_failure;
use super::breakers::Breakers;
use super::fault::{Fault, Verdict};
use super::pause::pause_after;
use super::response::api_usage;
use super::stats::{Stats, count};
use crate::backoff::Backoff;
use crate::http::{self, Failure};

/// How often a request is repeated after a failure that may pass.
pub(super) const REPEATS: u32 = 2;

/// The wait before a repetition.
const REPEAT_AFTER: Backoff =
    Backoff { least: Duration::ZERO, first: Duration::from_millis(200), most: Duration::from_secs(10) };

/// The network, and everything that the requests of all callers share.
pub(super) struct Transport {
    http: http::Client,
    pub(super) breakers: Mutex<Breakers>,
    jitter: Mutex<StdRng>,
    pub(super) stats: Arc<Stats>,
}

impl Transport {
    /// Sends nothing yet.
    pub(super) fn new(http: http::Client, breakers: Breakers, stats: Arc<Stats>) -> Self {
        let jitter = Mutex::new(StdRng::seed_from_u64(rand::random()));
        Self { http, breakers: Mutex::new(breakers), jitter, stats }
    }

    /// Begins a request.
    pub(super) fn request(&self, method: Method, url: String) -> reqwest::RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends a request and reads the whole answer. With `once`, a failure after which the request may have arrived is
    /// final and leaves its outcome in doubt.
    pub(super) async fn send(
        &self,
        request: reqwest::RequestBuilder,
        once: bool,
        largest: Largest,
    ) -> Result<Received, Verdict> {
        let failed = |failure: Failure| match &failure {
            Failure::TooLarge => (largest.fault)(largest.bytes),
            Failure::Broken(_) if once => of_failure(&failure).in_doubt(),
            Failure::Tls(_) | Failure::Unconnected(_) | Failure::Broken(_) => of_failure(&failure),
        };
        let answer = http::send(request.header(ACCEPT, "application/json")).await.map_err(failed)?;
        let (status, skew, retry_after) = (answer.status(), self.note(answer.headers()), answer.retry_after());
        Ok(Received { status, body: answer.body(largest.bytes).await.map_err(failed)?, skew, retry_after })
    }

    /// If Salesforce asks to be left alone, lets no request through for so long.
    pub(super) fn paused(&self, verdict: Verdict, status: u16, retry_after: Option<Duration>) -> Verdict {
        let span = pause_after(status, verdict.is_crowd(), retry_after, &mut *self.jitter.lock());
        let Some(span) = span else { return verdict };
        let verdict = verdict.with_pause(span);
        let fault = verdict.clone().fault();
        if self.breakers.lock().pause(Instant::now().into_std(), span, &fault) {
            tracing::warn!(?span, hint = fault.operator(), "requests to Salesforce pause");
        }
        verdict
    }

    /// Records the counts of an answer's headers. Returns how far this computer's clock is ahead, in seconds.
    pub(super) fn note(&self, headers: &HeaderMap) -> Option<i64> {
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
    pub(super) async fn wait(&self, repeats: u32, fault: Fault, until: Instant) -> Result<(), Fault> {
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

/// How large an answer can be.
#[derive(Clone, Copy)]
pub(super) struct Largest {
    /// The bytes that are read.
    pub(super) bytes: usize,
    /// Returns what an answer of more bytes means.
    pub(super) fault: fn(usize) -> Verdict,
}

/// An answer that was read.
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// How far this computer's clock is ahead, in seconds.
    pub(super) skew: Option<i64>,
    /// How long Salesforce asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}
