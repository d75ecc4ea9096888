//! `GET /v1/tap`: what the router decides, as Server-Sent Events.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use wire::ErrorCode;

use super::Shared;
use super::access::Caller;
use super::acts::{self, Act};
use super::problem::Problem;
use super::request::Query;
use super::stream::{self, COMMENT_EVERY, Events, ReaderLeft};
use crate::config::May;
use crate::router::{TAP_RATE_MAX, Tap, TapFilter, TapOptions};

/// Lines a second, if the call does not say.
const RATE: u32 = 200;

/// How often the reader is told how many lines were left out.
const SKIPPED_EVERY: Duration = Duration::from_secs(1);

/// Which decisions, and how.
#[derive(Clone, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// The channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    /// The topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// The subtopic.
    #[serde(skip_serializing_if = "Option::is_none")]
    subtopic: Option<String>,
    /// The source of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// The user of the sender, or for whom a service sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The code of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The id of the message, or of the request that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// How many lines a second at most: 200, unless this says otherwise. Refusals come before events.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    /// Shows payloads, if the token may see them and `admin.payloads` is on. Those of protected triples are never shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    payloads: Option<bool>,
}

/// Watch what the router decides
///
/// An event `decision` for each message; once a second, `skipped` with the `count` of those that were left out, if any were.
#[utoipa::path(
    get,
    path = "/v1/tap",
    params(Wanted),
    responses((status = 200, description = "Server-Sent Events.", content_type = "text/event-stream", body = String))
)]
pub(super) async fn tap(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let answered = begin(&shared, &caller, &wanted);
    let response = answered.unwrap_or_else(Problem::into_response);
    if wanted.payloads.unwrap_or_default() {
        let act = Act::default();
        act.note(&wanted);
        acts::record(&shared.broker.adapters.audit(), &caller, "GET /v1/tap", &act, &response);
    }
    response
}

fn begin(shared: &Shared, caller: &Caller, wanted: &Wanted) -> Result<Response, Problem> {
    let rate = wanted.rate.unwrap_or(RATE);
    if !(1..=TAP_RATE_MAX).contains(&rate) {
        return Err(Problem::invalid(format!("rate must be 1 to {TAP_RATE_MAX}")));
    }
    let payloads = wanted.payloads.unwrap_or_default();
    if payloads {
        check_payloads(shared, caller)?;
    }
    let Wanted { channel, topic, subtopic, source, user, code, id, .. } = wanted.clone();
    let filter = TapFilter { channel, topic, subtopic, source, user, code, id };
    let tap = shared.broker.router.tap(TapOptions { filter, rate, payloads });
    let tap = tap.map_err(|why| Problem::new(ErrorCode::TooManyRequests, why.to_string()))?;
    let (events, response) = stream::open();
    let (own, caller) = (Shared::clone(shared), caller.clone());
    drop(shared.tasks.spawn(async move {
        tokio::select! {
            () = own.stop.cancelled() => {}
            () = own.revoked(&caller, payloads) => {}
            _ = send(tap, events) => {}
        }
    }));
    Ok(response)
}

/// Whether a caller may see payloads.
fn check_payloads(shared: &Shared, caller: &Caller) -> Result<(), Problem> {
    if caller.may < May::Payloads {
        let why = format!("the token '{}' may not see payloads; that needs may = \"payloads\"", caller.name);
        return Err(Problem::new(ErrorCode::Forbidden, why));
    }
    match shared.broker.in_force.get().admin.payloads {
        true => Ok(()),
        false => Err(Problem::new(ErrorCode::Forbidden, "no tap shows payloads unless the key admin.payloads is true")),
    }
}

/// Sends decisions until the reader leaves.
async fn send(mut tap: Tap, mut events: Events) -> Result<(), ReaderLeft> {
    let mut lines = Vec::new();
    let (mut comment_at, mut skipped_at) = (Instant::now() + COMMENT_EVERY, Instant::now() + SKIPPED_EVERY);
    // So that the answer begins at once.
    events.add_comment();
    loop {
        let now = Instant::now();
        let again = tap.take(now.into_std(), &mut lines);
        for line in lines.drain(..) {
            events.add("decision", &line);
        }
        if now >= skipped_at {
            let count = tap.take_skipped();
            if count > 0 {
                events.add("skipped", &json!({ "count": count }).to_string());
            }
            skipped_at = now + SKIPPED_EVERY;
        }
        if now >= comment_at {
            events.add_comment();
            comment_at = now + COMMENT_EVERY;
        }
        events.send().await?;
        let at = again.map_or(skipped_at, |again| skipped_at.min(again.into()));
        tokio::select! {
            () = events.left() => return Err(ReaderLeft),
            // While lines wait for their time, further ones change nothing.
            () = tap.arrived().notified(), if again.is_none() => {}
            () = sleep_until(at) => {}
        }
    }
}
