//! `/simulator`: the control API, with which a test arms faults and reads what was called.
//!
//! It needs no token. The org is for tests and demonstrations, and everyone who can reach it may control it.

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::faults::Fault;
use super::reply::Reply;
use super::serve::Shared;

/// The control API in words; `--help` shows this text too.
pub const HELP: &str = r#"Control API, under /simulator at the same address, without a token:
  GET    /simulator/ca.pem            the certificate authority (https only)
  GET    /simulator/certificate.pem   with whose key Apex signs at /services/apexrest/switchboard/token
  GET    /simulator/seen              {"logins":N,"calls":N,"seen":[…]}: method, path, status, client
  DELETE /simulator/seen              forget them
  POST   /simulator/expire-sessions   every access token ends now
  POST   /simulator/clock             {"shift_seconds":N} puts the org's time forward, or back, from where it is
  POST   /simulator/events            {"topic":"/event/NAME__e","record":{…}} publishes an event
  GET    /simulator/events?topic=…    {"streams":N}: how many listen to a topic
  POST   /simulator/keep-alive        every stream of events sends a keep-alive
  POST   /simulator/reset             the org as its seed has it, without faults
  GET    /simulator/faults            those that are armed
  DELETE /simulator/faults            none any more
  POST   /simulator/faults            arm one: {"fault":NAME, …, "times":N, "path":"/query"}
                                      times: how many calls it meets, for ever if left out
                                      path: only paths that contain this; if left out, API calls
                                      method: only calls with this method
Faults, with their own keys:
  session_expired, session_not_valid, password_expired (401)
  api_disabled, api_currently_disabled, daily_limit, long_running_limit, insufficient_access (403)
  record_locked, query_timeout (400)  unavailable [retry_after] (503)
  error status code message
  slow milliseconds  slow_transaction milliseconds (a write takes effect, and is answered, only then)
  broken_write [milliseconds] (not answered; takes effect only then, or never)
  cut_body  reset (done, but not answered)  html_body [status]  empty_body  huge_body bytes
  redirect location  masked_field object field  hidden_field object field  two_rows
  login_refused error description  instance_url url (both meet logins)
  events error [after] (Pub/Sub API; after this number of events of a stream): auth, auth_refresh,
                        replay (streams from a replay id on), denied, unavailable, cut, silent
"#;

/// Answers a call below `/simulator`.
pub(super) fn answer(shared: &Shared, call: &Call, below: &[&str]) -> Reply {
    match (&call.method, below) {
        (&Method::GET, []) => Reply::of(StatusCode::OK, "text/plain; charset=utf-8", HELP),
        (&Method::GET, ["ca.pem"]) => match &shared.ca_pem {
            Some(pem) => Reply::of(StatusCode::OK, "application/x-pem-file", pem.clone()),
            None => refuse(StatusCode::NOT_FOUND, "this stand-in speaks http"),
        },
        (&Method::GET, ["certificate.pem"]) => {
            let pem = shared.signer.certificate_pem().to_owned();
            Reply::of(StatusCode::OK, "application/x-pem-file", pem)
        }
        (&Method::GET, ["seen"]) => {
            let (logins, calls) = shared.counts();
            Reply::ok(&json!({ "logins": logins, "calls": calls, "seen": shared.seen() }))
        }
        (&Method::DELETE, ["seen"]) => {
            shared.forget();
            Reply::nothing()
        }
        (&Method::POST, ["expire-sessions"]) => {
            shared.expire_sessions();
            Reply::nothing()
        }
        (&Method::POST, ["events"]) => publish(shared, call),
        (&Method::GET, ["events"]) => {
            Reply::ok(&json!({ "streams": shared.bus.streams(call.parameter("topic").unwrap_or_default()) }))
        }
        (&Method::POST, ["keep-alive"]) => {
            shared.bus.keep_alive();
            Reply::nothing()
        }
        (&Method::POST, ["clock"]) => shift(shared, call),
        (&Method::POST, ["reset"]) => match shared.reset() {
            Ok(()) => Reply::nothing(),
            Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        (&Method::GET, ["faults"]) => Reply::ok(&json!(shared.faults.lock().armed())),
        (&Method::DELETE, ["faults"]) => {
            shared.faults.lock().clear();
            Reply::nothing()
        }
        (&Method::POST, ["faults"]) => match Fault::read(&call.body) {
            Ok(fault) => {
                shared.faults.lock().arm(fault);
                Reply::nothing()
            }
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        _ => refuse(StatusCode::NOT_FOUND, "GET /simulator tells what there is"),
    }
}

fn publish(shared: &Shared, call: &Call) -> Reply {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Published {
        topic: String,
        record: Map<String, Value>,
    }
    let published = serde_json::from_slice::<Published>(&call.body).map_err(|error| error.to_string());
    match published.and_then(|it| shared.publish(&it.topic, &it.record)) {
        Ok(()) => Reply::nothing(),
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

fn shift(shared: &Shared, call: &Call) -> Reply {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shift {
        shift_seconds: i32,
    }
    match serde_json::from_slice::<Shift>(&call.body) {
        Ok(Shift { shift_seconds }) => {
            shared.clock.shift(shift_seconds);
            Reply::nothing()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn refuse(status: StatusCode, message: &str) -> Reply {
    Reply::json(status, &json!({ "error": message }))
}
