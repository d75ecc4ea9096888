//! The admin API: HTTP calls by which an operator, a script or a monitoring system looks at a running broker and acts on it.
//!
//! [`calls`] is the table of calls, each with its [`Right`]; a call is a file or a folder. `listener` accepts connections, on a
//! thread and a runtime of their own, so that a long answer delays no session, and a broker that is stuck still answers.
//! `access` decides who may call, `tokens` knows the tokens, `acts` records what was done, `problem` is how an error is
//! answered, `openapi` how the calls are described, `page` how long lists are. `stream` is an answer that does not
//! end. `request` reads what a caller sends. `console` has the pages for a browser, and their signing in.

#![allow(unused_qualifications, reason = "the macros of utoipa write whole paths")]
#![allow(clippy::unused_async, reason = "axum calls futures")]

mod access;
mod acts;
mod close;
mod cluster;
mod config;
mod console;
mod doctor;
mod drain;
mod explain;
mod health;
mod info;
mod listener;
mod lists;
mod log;
mod metrics;
mod openapi;
mod page;
mod problem;
mod recent;
mod reload;
mod request;
mod retained;
mod stats;
mod stream;
mod tap;
mod tokens;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

pub(super) use self::listener::{Listeners, urls};
pub(super) use self::tokens::{OwnToken, Tokens};

use self::access::Right;
use self::console::SignIns;
use self::health::Pulse;
use self::problem::{Code, Problem};
use super::Broker;
use crate::connection::FailedLogins;
use crate::telemetry::metrics::StatusClass;

/// How long a call may take, until its answer begins.
const CALL_TIME: Duration = Duration::from_secs(30);

/// Every call of the admin API and who may make it.
fn calls() -> Vec<(Right, UtoipaMethodRouter<Shared>)> {
    vec![
        (Right::Anyone, routes!(health::healthz)),
        (Right::Anyone, routes!(health::readyz)),
        (Right::Anyone, routes!(openapi::document)),
        (Right::ReadOrSameUser, routes!(metrics::metrics)),
        (Right::Read, routes!(info::info)),
        (Right::Read, routes!(stats::stats)),
        (Right::Read, routes!(cluster::cluster)),
        (Right::Read, routes!(config::config)),
        (Right::Read, routes!(lists::applications)),
        (Right::Read, routes!(lists::sessions)),
        (Right::Read, routes!(lists::session)),
        (Right::Read, routes!(lists::subscriptions)),
        (Right::Read, routes!(lists::requests)),
        (Right::Read, routes!(lists::channels)),
        (Right::Read, routes!(lists::retained)),
        (Right::Read, routes!(lists::history)),
        (Right::Act, routes!(close::close)),
        (Right::Act, routes!(retained::remove)),
        (Right::Read, routes!(explain::explain)),
        (Right::Act, routes!(reload::reload)),
        (Right::Read, routes!(recent::recent)),
        (Right::Act, routes!(recent::dump)),
        (Right::Read, routes!(tap::tap)),
        (Right::Act, routes!(log::log)),
        (Right::Act, routes!(drain::drain)),
        (Right::Read, routes!(doctor::doctor)),
        (Right::Read, routes!(console::code)),
        (Right::Code, routes!(console::session)),
    ]
}

/// What all calls share.
pub(super) type Shared = Arc<Admin>;

/// What a call needs to answer.
pub(super) struct Admin {
    broker: Arc<Broker>,
    /// `node` of the answers: `cluster.node`, or the name of this host up to a dot.
    node: Box<str>,
    /// When the broker began to listen.
    started: Instant,
    /// The URLs of the listeners for applications.
    listeners: Vec<String>,
    /// The addresses of the admin listeners.
    addresses: Vec<SocketAddr>,
    /// Calls without a valid token.
    failed: FailedLogins,
    /// The codes and keys of pages of the console.
    sign_ins: SignIns,
    pulse: Pulse,
    samples: stats::Samples,
    /// The turn to look at files.
    disk: Arc<Semaphore>,
    log: Mutex<log::Return>,
    /// The calls that may follow the flight recorder.
    followers: Arc<Semaphore>,
    /// What runs beside the calls, until `stop`.
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The OpenAPI document, once the calls are registered.
    document: OnceLock<Bytes>,
}

impl Admin {
    /// `listeners` are the URLs of the listeners for applications, `addresses` are those of the admin
    /// API.
    fn new(
        now: Instant,
        broker: Arc<Broker>,
        listeners: Vec<String>,
        addresses: Vec<SocketAddr>,
        stop: CancellationToken,
    ) -> Self {
        let failed = FailedLogins::new(broker.settings.limits().failed_registrations);
        let node = broker.cluster.as_ref().map_or_else(node_name, |cluster| cluster.node().into());
        let pulse = Pulse::new(broker.tasks.clone(), broker.runtime.clone());
        Self {
            broker,
            node,
            started: now,
            listeners,
            addresses,
            failed,
            sign_ins: SignIns::default(),
            pulse,
            samples: stats::Samples::default(),
            disk: Arc::new(Semaphore::new(1)),
            log: Mutex::default(),
            followers: Arc::new(Semaphore::new(recent::FOLLOWERS_MAX)),
            tasks: TaskTracker::new(),
            stop,
            document: OnceLock::new(),
        }
    }
}

/// Returns the name of this host, up to a dot.
fn node_name() -> Box<str> {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    let name = name.split('.').next().unwrap_or_default();
    if name.is_empty() { "localhost".into() } else { name.into() }
}

/// Registers the calls, with the checks that come before each.
fn router(shared: &Shared) -> Router {
    let mut router = OpenApiRouter::with_openapi(openapi::head());
    for (right, call) in calls() {
        let check = from_fn_with_state((Arc::clone(shared), right), access::check_caller);
        router = router.routes(openapi::describe(right, call).map(|call| call.route_layer(check)));
    }
    let (router, document) = router.split_for_parts();
    let document = serde_json::to_vec(&document).unwrap_or_default();
    shared.document.set(document.into()).ok();
    router
        .merge(console::files())
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(Arc::clone(shared), access::check_request))
        .layer(from_fn_with_state(Arc::clone(shared), bound))
        .with_state(Arc::clone(shared))
}

/// Answers a call that takes too long, and ends it unless it is an act. Counts all answers, and marks them as not to be kept.
async fn bound(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = timeout(CALL_TIME, next.run(request)).await.unwrap_or_else(|_| {
        let why = format!("the call took longer than {} s", CALL_TIME.as_secs());
        Problem::new(Code::Unavailable, why).into_response()
    });
    shared.broker.metrics.admin_requests.count(match response.status().as_u16() {
        ..400 => StatusClass::Success,
        400..500 => StatusClass::ClientError,
        500.. => StatusClass::ServerError,
    });
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn nothing_here(State(_): State<Shared>) -> Problem {
    Problem::new(Code::NotFound, "there is no such call; GET /v1/openapi.json lists them")
}

async fn no_such_method(State(_): State<Shared>) -> Problem {
    Problem::new(
        Code::MethodNotAllowed,
        "this path does not take this method; the header Allow has those that it takes",
    )
}

/// Why the admin listener could not be opened.
pub(super) struct NotOpened {
    pub(super) address: SocketAddr,
    pub(super) error: io::Error,
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// In the OpenAPI document, one would take the place of the other.
    #[test]
    fn no_two_types_of_calls_have_one_name() {
        let mut known = BTreeMap::new();
        for (name, schema) in calls().into_iter().flat_map(|(_, (schemas, ..))| schemas) {
            let text = serde_json::to_string(&schema).unwrap();
            let before = known.insert(name.clone(), text.clone());
            assert!(before.is_none_or(|before| before == text), "two types are called {name}");
        }
    }

    #[test]
    fn no_call_is_registered_twice() {
        let mut known = BTreeSet::new();
        for (path, call) in calls().into_iter().flat_map(|(_, (_, paths, _))| paths.paths) {
            let call = serde_json::to_value(&call).unwrap();
            for method in call.as_object().unwrap().keys() {
                assert!(known.insert(format!("{method} {path}")), "{method} {path}");
            }
        }
        assert!(known.len() >= 8, "{known:?}");
    }
}
