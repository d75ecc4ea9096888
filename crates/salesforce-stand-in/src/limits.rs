//! `/limits`, and the header with the same numbers in every answer.

use hyper::header::HeaderName;
use serde_json::json;

use super::org::State;
use super::reply::Reply;

const HEADER: HeaderName = HeaderName::from_static("sforce-limit-info");

/// `/limits`
pub(super) fn answer(state: &State) -> Reply {
    let (used, limit) = (state.calls_used, state.organization.daily_api_requests);
    Reply::ok(&json!({
        "DailyApiRequests": { "Max": limit, "Remaining": limit.saturating_sub(used) },
        "DailyStandardVolumePlatformEvents": { "Max": 25_000, "Remaining": 25_000 },
        "DailyStreamingApiEvents": { "Max": 10_000, "Remaining": 10_000 },
        "DataStorageMB": { "Max": 1_024, "Remaining": 1_000 },
    }))
}

/// Adds the usage of the daily limit to an answer.
pub(super) fn marked(state: &State, used_up: bool, reply: Reply) -> Reply {
    let limit = state.organization.daily_api_requests;
    let used = if used_up { limit } else { state.calls_used };
    reply.with(HEADER, &format!("api-usage={used}/{limit}"))
}
