//! `GET /metrics`: what the broker counts, and what it is doing now, for Prometheus.

use axum::extract::State;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VARY,
};
use axum::response::{IntoResponse, Response};
use wire::ErrorCode;

use super::problem::Problem;
use super::{Admin, Shared};
use crate::telemetry::metrics::{Check, Format, Gauges, accepts_gzip, compress, encode};

/// Both depend on what the client accepts.
const VARIES: HeaderValue = HeaderValue::from_static("accept, accept-encoding");

/// Read the metrics
///
/// In `OpenMetrics` 1.0.0 or in the text format of Prometheus 0.0.4, by `Accept`; compressed with gzip if the client accepts it.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((
        status = 200,
        description = "Every metric with its present value.",
        content(
            (String = "text/plain; version=0.0.4; charset=utf-8"),
            (String = "application/openmetrics-text; version=1.0.0; charset=utf-8")
        )
    ))
)]
pub(super) async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let format = Format::accepted(texts(&headers, &ACCEPT));
    let gzip = accepts_gzip(texts(&headers, &ACCEPT_ENCODING));
    let wrong: Vec<_> = shared.checks().await.iter().filter(|check| !check.is_well).map(|check| check.name).collect();
    // It walks all sessions and asks the disk, while the other calls go on.
    let answer = shared.tasks.spawn_blocking({
        let shared = shared.clone();
        move || shared.scrape(&wrong, format, gzip)
    });
    let failed = || Problem::new(ErrorCode::Internal, "the metrics could not be written; the log says more");
    let Ok(Some(body)) = answer.await else { return failed().into_response() };
    let kind = HeaderValue::from_static(format.content_type());
    let mut response = ([(CONTENT_TYPE, kind), (VARY, VARIES)], body).into_response();
    if gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The values of a header that are text.
fn texts<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

impl Admin {
    /// Returns all metrics; `None` if they cannot be written. `wrong`: the checks of readiness that are not well.
    fn scrape(&self, wrong: &[&str], format: Format, gzip: bool) -> Option<Vec<u8>> {
        let not_ready = Check::ALL.iter().copied().filter(|check| wrong.contains(&check.as_str())).collect();
        let gauges = Gauges { not_ready, ..self.broker.gauges() };
        let text = encode(&self.broker.metrics, &gauges, format).ok()?;
        match gzip {
            true => compress(&text).ok(),
            false => Some(text.into_bytes()),
        }
    }
}
