//! `PUT /v1/log`: changes what is logged.

use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::Shared;
use super::acts::Act;
use super::problem::Problem;
use super::request::{Answer, Body};
use crate::telemetry;

/// The longest time after which the filter before can return.
const FOR_MAX: Duration = Duration::from_hours(24);

/// The longest filter.
const FILTER_BYTES_MAX: usize = 1000;

/// What to log.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogFilter {
    /// A level, or levels for parts of the program, as `--log` takes them.
    #[schema(max_length = 1000, example = "switchboard::router=debug,info")]
    filter: String,
    /// A duration, after which the filter before returns; at most `24h`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    #[schema(example = "1h")]
    time: Option<String>,
}

/// What is logged now.
#[derive(Serialize, ToSchema)]
pub(super) struct Logged {
    /// The filter that is in force now.
    filter: String,
    /// The filter that was in force before.
    before: String,
}

/// The filter that returns after the time of a call.
#[derive(Default)]
pub(super) struct Return {
    /// The filter, while another one is in force for a time.
    filter: Option<String>,
    /// Ends the wait for the return.
    wait: CancellationToken,
}

/// Change what is logged
///
/// With `for`, the filter before returns after that time. Another call ends the wait.
#[utoipa::path(
    put,
    path = "/v1/log",
    request_body = LogFilter,
    responses((status = 200, description = "It is in force.", body = Logged))
)]
pub(super) async fn log(
    State(shared): State<Shared>,
    act: Act,
    Body(wanted): Body<LogFilter>,
) -> Result<Answer<Logged>, Problem> {
    act.note(&wanted);
    let LogFilter { filter, time } = wanted;
    if filter.len() > FILTER_BYTES_MAX {
        return Err(Problem::invalid(format!("filter must have at most {FILTER_BYTES_MAX} bytes")));
    }
    let time = time.as_deref().map(read_time).transpose()?;
    let mut returning = shared.log.lock();
    let before = telemetry::set_filter(&filter).map_err(|error| Problem::invalid(format!("filter: {error}")))?;
    returning.wait.cancel();
    let Some(time) = time else {
        *returning = Return::default();
        return Ok(Answer(Logged { filter, before }));
    };
    // If a filter is in force for a time already, the one before it returns.
    let first = returning.filter.take().unwrap_or_else(|| before.clone());
    let wait = CancellationToken::new();
    *returning = Return { filter: Some(first), wait: wait.clone() };
    drop(returning);
    let own = Shared::clone(&shared);
    drop(shared.tasks.spawn(async move {
        tokio::select! {
            () = own.stop.cancelled() => {}
            ended = timeout(time, wait.cancelled()) => if ended.is_err() { own.let_filter_return(&wait) },
        }
    }));
    Ok(Answer(Logged { filter, before }))
}

fn read_time(text: &str) -> Result<Duration, Problem> {
    let expected = || Problem::invalid("for must be a duration such as \"10m\" or \"1h\", at most 24h");
    let time = if text.len() <= 64 { humantime::parse_duration(text).ok() } else { None };
    time.filter(|time| *time <= FOR_MAX && !time.is_zero()).ok_or_else(expected)
}

impl super::Admin {
    fn let_filter_return(&self, wait: &CancellationToken) {
        let mut returning = self.log.lock();
        // Another call may have changed the filter meanwhile.
        if wait.is_cancelled() {
            return;
        }
        if let Some(filter) = returning.filter.take() {
            match telemetry::set_filter(&filter) {
                Ok(_) => tracing::info!(filter, "the log filter has returned to what it was"),
                Err(error) => tracing::error!(filter, %error, "the log filter cannot return to what it was"),
            }
        }
    }
}
