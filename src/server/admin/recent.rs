//! `GET /v1/recent`: what happened last. `POST /v1/recent/dump`: writes it to a file.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

use wire::ErrorCode;

use super::Shared;
use super::access::Caller;
use super::problem::{Code, Problem};
use super::request::{Answer, Query};
use super::stream::{self, COMMENT_EVERY, Events, ReaderLeft};
use crate::telemetry::recorder::{Cursor, DumpError, Filter, Reach, Recorder, Row};

/// How many entries are answered, if the call does not say.
const LIMIT: usize = 1000;

/// The most that are answered.
const LIMIT_MAX: usize = 10_000;

/// The most calls that follow at the same time.
pub(super) const FOLLOWERS_MAX: usize = 8;

/// How often a call that follows gets new entries.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Which entries, and how.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// The source of the session, or of the handler of a request.
    source: Option<String>,
    /// Its user.
    user: Option<String>,
    /// Its id.
    session: Option<String>,
    /// The sender's id, or the broker's id of a request or a subscription.
    id: Option<String>,
    /// The channel.
    channel: Option<String>,
    /// An error code, or the status code of a Close frame.
    code: Option<String>,
    /// How many at most, the last ones: 1000, unless this says otherwise.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
    /// Goes on with what happens. Not in the OpenAPI document: programs that call by it expect an answer that ends.
    #[param(ignore)]
    follow: Option<bool>,
}

/// What happened last, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Recent {
    /// The entries.
    items: Vec<Row>,
    /// How many older ones match too.
    older: usize,
    /// How far back the rings reach.
    reach: Reach,
    /// The name of the host.
    node: String,
}

/// The file.
#[derive(Serialize, ToSchema)]
pub(super) struct Dumped {
    /// Its path.
    file: String,
}

/// Show what happened last
///
/// Registrations, subscriptions and their ends, refusals, requests with outcome and latency, changes of state, closes, and events.
/// No entry has a payload. With `follow=true`, the answer goes on as Server-Sent Events: `reach` once, `entry` for each entry, and
/// `skipped` with a `count` of those that were overwritten before they were sent.
#[utoipa::path(
    get,
    path = "/v1/recent",
    params(Wanted),
    responses((status = 200, description = "What happened last, oldest first.", body = Recent))
)]
pub(super) async fn recent(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Problem> {
    let Wanted { source, user, session, id, channel, code, limit, follow } = wanted;
    let filter = Filter { source, user, session, id, channel, code };
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit must be 1 to {LIMIT_MAX}")));
    }
    let recorder = Arc::clone(shared.broker.router.recorder());
    if !recorder.is_on() {
        return Err(Problem::new(Code::Unavailable, DumpError::Off.to_string()));
    }
    let now = Instant::now().into_std();
    if !follow.unwrap_or_default() {
        let read = spawn_blocking(move || recorder.read(now, &filter, limit)).await.map_err(|_| failed())?;
        let node = shared.node.to_string();
        let answer = Recent { items: read.items, older: read.older, reach: read.reach, node };
        return Ok(Answer(answer).into_response());
    }
    let Ok(permit) = Arc::clone(&shared.followers).try_acquire_owned() else {
        let why = format!("{FOLLOWERS_MAX} calls follow already, the limit; end one of them");
        return Err(Problem::new(ErrorCode::TooManyRequests, why));
    };
    let (first, filter) =
        spawn_blocking(move || (recorder.read_to_follow(now, &filter, limit), filter)).await.map_err(|_| failed())?;
    let (mut events, response) = stream::open();
    let (answer, cursor) = first;
    events.add("reach", &json!(answer.reach).to_string());
    add_rows(&mut events, &answer.items);
    let own = Shared::clone(&shared);
    drop(shared.tasks.spawn(async move {
        tokio::select! {
            () = own.stop.cancelled() => {}
            () = own.revoked(&caller, false) => {}
            _ = follow_on(own.broker.router.recorder(), &filter, cursor, events, permit) => {}
        }
    }));
    Ok(response)
}

/// Sends what happens until the reader leaves.
async fn follow_on(
    recorder: &Recorder,
    filter: &Filter,
    mut cursor: Cursor,
    mut events: Events,
    _permit: OwnedSemaphorePermit,
) -> Result<(), ReaderLeft> {
    let mut comment_at = Instant::now() + COMMENT_EVERY;
    loop {
        events.send().await?;
        let now = Instant::now();
        tokio::select! {
            () = events.left() => return Err(ReaderLeft),
            () = sleep_until(now + LOOK_EVERY) => {}
        }
        let now = Instant::now();
        let (rows, lost) = recorder.read_on(now.into_std(), filter, &mut cursor);
        if lost > 0 {
            events.add("skipped", &json!({ "count": lost }).to_string());
        }
        add_rows(&mut events, &rows);
        if now >= comment_at {
            events.add_comment();
            comment_at = now + COMMENT_EVERY;
        }
    }
}

fn add_rows(events: &mut Events, rows: &[Row]) {
    for row in rows {
        events.add("entry", &serde_json::to_string(row).unwrap_or_default());
    }
}

fn failed() -> Problem {
    Problem::new(ErrorCode::Internal, "the flight recorder could not be read; the log says more")
}

/// Write what happened last to a file
///
/// The file `recent-<time>.jsonl` in the data folder, which only the broker's user can read. The last five are kept.
#[utoipa::path(
    post,
    path = "/v1/recent/dump",
    responses((status = 200, description = "It was written.", body = Dumped))
)]
pub(super) async fn dump(State(shared): State<Shared>) -> Result<Answer<Dumped>, Problem> {
    let dumps = Arc::clone(&shared.broker.dumps);
    #[expect(clippy::disallowed_methods, reason = "the name of the file says the time of day")]
    let (now, wall) = (Instant::now().into_std(), std::time::SystemTime::now());
    let written = spawn_blocking(move || dumps.write(now, wall)).await.map_err(|_| failed())?;
    match written {
        Ok(path) => Ok(Answer(Dumped { file: path.display().to_string() })),
        Err(error @ DumpError::Off) => Err(Problem::new(Code::Unavailable, error.to_string())),
        Err(DumpError::File { path, source }) => {
            let why = format!("{} cannot be written: {source}", path.display());
            Err(Problem::new(ErrorCode::StorageUnavailable, why))
        }
    }
}
