//! `/services/data`: the versions of the API and the resources of one.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::call::Call;
use super::org::State;
use super::reply::{Refusal, Reply};
use super::seed::User;

/// The supported versions, and the retired ones.
const SUPPORTED: std::ops::RangeInclusive<u16> = 31..=68;
const GONE: std::ops::RangeInclusive<u16> = 21..=30;

/// The list, which does not count as a call.
pub(super) fn all() -> Reply {
    let one = |version| json!({ "label": label(version), "url": format!("/services/data/v{version}.0"), "version": format!("{version}.0") });
    Reply::ok(&Value::Array(SUPPORTED.map(one).collect()))
}

/// The number of `v68.0`.
pub(super) fn number(segment: &str) -> Result<u16, Refusal> {
    let number = segment.strip_prefix('v').and_then(|it| it.strip_suffix(".0")).and_then(|it| it.parse().ok());
    match number {
        Some(number) if SUPPORTED.contains(&number) => Ok(number),
        Some(number) if GONE.contains(&number) => {
            Err(Refusal::new(StatusCode::GONE, "GONE", "The API version that you requested is no longer available."))
        }
        _ => Err(Refusal::not_found()),
    }
}

/// The resources of a version.
pub(super) fn resources(state: &State, call: &Call, version: u16, user: &User) -> Reply {
    let at = |name: &str| format!("/services/data/v{version}.0/{name}");
    Reply::ok(&json!({
        "composite": at("composite"),
        "identity": format!("{}/id/{}/{}", call.base, state.organization.id, user.id),
        "limits": at("limits"),
        "query": at("query"),
        "queryAll": at("queryAll"),
        "sobjects": at("sobjects"),
    }))
}

/// Three releases a year; 68.0 is Winter '27.
fn label(version: u16) -> String {
    let since = version.saturating_sub(31);
    let season = ["Summer", "Winter", "Spring"].get(usize::from(since % 3)).copied().unwrap_or_default();
    // 31.0 was Summer '14, 32.0 Winter '15, 33.0 Spring '15.
    format!("{season} '{}", 14 + since / 3 + u16::from(!since.is_multiple_of(3)))
}
