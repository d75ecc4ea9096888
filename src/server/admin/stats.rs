//! `GET /v1/stats`: the counters now, and samples of the last minutes.
//!
//! A sample has what was counted since the one before, so a chart needs no arithmetic. One is taken every 5 s and kept for
//! 10 min, whether anybody asks or not: a page that was just opened has them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use axum::extract::State;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};
use utoipa::ToSchema;

use super::Shared;
use super::problem::Problem;
use super::request::{Answer, Query};
use crate::router::QueueSample;
use crate::server::calendar;
use crate::telemetry::metrics::Totals;

/// How often a sample is taken.
const EVERY: Duration = Duration::from_secs(5);

/// How far back samples reach.
const WINDOW_MAX: Duration = Duration::from_mins(10);

/// How many are kept.
const SAMPLES_MAX: usize = 120;

/// What is counted, now and lately.
#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    /// The broker that counts.
    node: String,
    /// The counters since its start.
    now: Counts,
    /// The samples of the window, oldest first.
    samples: Vec<Sample>,
}

/// What was counted until a time of day: since the start of the broker, or in the seconds of a sample.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Counts {
    /// The time of day.
    at: String,
    /// Registered sessions at that time.
    sessions: usize,
    /// Messages of applications.
    envelopes: u64,
    /// Messages to applications that the router delivered.
    deliveries: u64,
    /// Refused messages by code, without codes that did not occur.
    refusals: BTreeMap<&'static str, u64>,
    /// Requests that ended.
    requests: RequestStats,
    /// What waited to be sent at that time.
    queue: Queues,
}

/// What was counted in some seconds.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Sample {
    /// How many seconds it covers.
    seconds: f64,
    /// What was counted in them.
    #[serde(flatten)]
    counts: Counts,
}

/// Requests that ended, and how long they took.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestStats {
    /// How many.
    count: u64,
    /// Half of those that were answered took at most this long, in milliseconds.
    p50_ms: Option<f64>,
    /// 99 of 100 took at most this long.
    p99_ms: Option<f64>,
}

/// The messages that wait to be sent.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(super) struct Queues {
    /// To all sessions.
    sum: usize,
    /// To the session with the longest queue.
    max: usize,
}

/// How far back.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    /// A duration, such as `10m`; at most that.
    #[param(example = "10m")]
    window: Option<String>,
}

/// Show the counters, and samples of the last minutes
#[utoipa::path(
    get,
    path = "/v1/stats",
    params(Window),
    responses((status = 200, description = "Counters and samples.", body = Stats))
)]
pub(super) async fn stats(
    State(shared): State<Shared>,
    Query(wanted): Query<Window>,
) -> Result<Answer<Stats>, Problem> {
    let window = match wanted.window.as_deref() {
        None => WINDOW_MAX,
        Some(text) => read_window(text)?,
    };
    let (totals, queue) = (shared.broker.metrics.totals(), shared.broker.router.queues());
    let now = Counts::new(calendar(), &totals, queue);
    Ok(Answer(Stats { node: shared.node.to_string(), now, samples: shared.samples.last(window) }))
}

fn read_window(text: &str) -> Result<Duration, Problem> {
    let window = if text.len() <= 64 { humantime::parse_duration(text).ok() } else { None };
    window
        .filter(|window| *window <= WINDOW_MAX)
        .ok_or_else(|| Problem::invalid("window must be a duration of at most 10m, such as \"1m\""))
}

/// The samples of the last minutes.
#[derive(Default)]
pub(super) struct Samples(Mutex<VecDeque<Sample>>);

impl Samples {
    /// Returns those of a window, oldest first.
    fn last(&self, window: Duration) -> Vec<Sample> {
        let count = usize::try_from(window.as_secs().div_ceil(EVERY.as_secs())).unwrap_or(usize::MAX);
        let samples = self.0.lock();
        samples.iter().skip(samples.len().saturating_sub(count)).cloned().collect()
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock();
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// Takes samples until the admin API ends.
pub(super) async fn sample(shared: Shared) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // All counters were 0 when the broker started, and applications may have been faster than this.
    let (mut before, mut last) = (Totals::default(), Instant::now());
    // The first tick is at once.
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        let (now, elapsed) = (Instant::now(), last.elapsed());
        let queue = shared.broker.router.sample_sessions(elapsed);
        let totals = shared.broker.metrics.totals();
        let counts = Counts::new(calendar(), &totals.since(&before), queue);
        shared.samples.add(Sample { seconds: elapsed.as_secs_f64(), counts });
        (before, last) = (totals, now);
    }
}

impl Counts {
    fn new(at: SystemTime, totals: &Totals, queue: QueueSample) -> Self {
        let refusals = totals.refusals.iter().filter(|(_, count)| **count > 0);
        Self {
            at: humantime::format_rfc3339_millis(at).to_string(),
            sessions: queue.sessions,
            envelopes: totals.envelopes,
            deliveries: totals.deliveries,
            refusals: refusals.map(|(code, count)| (*code, *count)).collect(),
            requests: RequestStats::of(totals),
            queue: queue.into(),
        }
    }
}

impl RequestStats {
    fn of(totals: &Totals) -> Self {
        let ms = |part| totals.quantile(part).map(|seconds| seconds * 1e3);
        Self { count: totals.requests, p50_ms: ms(0.5), p99_ms: ms(0.99) }
    }
}

impl From<QueueSample> for Queues {
    fn from(sample: QueueSample) -> Self {
        Self { sum: sample.sum, max: sample.max }
    }
}
