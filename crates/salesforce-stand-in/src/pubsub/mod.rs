//! The Pub/Sub API for subscribers and publishers (topics, schemas, Subscribe, Publish), by gRPC on the org's own
//! address.
//!
//! `bus` keeps the events, `shapes` makes them of records and changes, `avro` encodes them, `grpc` does the framing,
//! and `stream` is one Subscribe. Nothing is shared with the broker, whose mistakes would go unnoticed otherwise.

mod avro;
mod bus;
mod grpc;
mod messages;
mod shapes;
mod stream;

pub(super) use bus::Bus;
pub(super) use shapes::{Change, ChangeKind};

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream as streams;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use prost::Message;

use super::faults::Broken;
use super::id;
use super::seed::User;
use super::serve::Shared;
use grpc::{Messages, Status};
use messages::{
    PublishError, PublishRequest, PublishResponse, PublishResult, SchemaInfo, SchemaRequest, TopicInfo, TopicRequest,
};
use stream::Stream;

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

const AUTH_ERROR: &str = "sfdc.platform.eventbus.grpc.service.auth.error";
const REFRESH_INVALID: &str = "sfdc.platform.eventbus.grpc.service.auth.refresh.invalid";
const REPLAY_CORRUPTED: &str = "sfdc.platform.eventbus.grpc.subscription.fetch.replayid.corrupted";
const REPLAY_INVALID: &str = "sfdc.platform.eventbus.grpc.subscription.fetch.replayid.validation.failed";

/// Whether a call is gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    kind.is_some_and(|it| it.starts_with("application/grpc"))
}

/// Answers a call.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let rpc_id = made_id();
    shared.note_grpc(parts.uri.path());
    let messages = Messages::new(body);
    let frames = match called(&shared, &parts.headers, parts.uri.path(), messages, &rpc_id).await {
        Ok(body) => body,
        Err(status) => whole(vec![Status::trailers(Some(&status), &rpc_id)]),
    };
    let mut response = Response::new(frames);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

async fn called(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    path: &str,
    mut messages: Messages,
    rpc_id: &str,
) -> Result<Body, Status> {
    let user = admitted(shared, headers)?;
    let rpc_id = rpc_id.to_owned();
    match path.strip_prefix("/eventbus.v1.PubSub/").unwrap_or_default() {
        "Subscribe" => Stream::open(Arc::clone(shared), messages, rpc_id).await.map(Stream::into_body),
        "GetTopic" => {
            met(shared).await?;
            let TopicRequest { topic_name } = messages.only().await?;
            let known = known(shared, &topic_name)?;
            Ok(one(
                &TopicInfo {
                    can_publish: topic_name.starts_with("/event/"),
                    topic_name,
                    tenant_guid: String::new(),
                    can_subscribe: true,
                    schema_id: known.schema_id,
                    rpc_id: rpc_id.clone(),
                },
                &rpc_id,
            ))
        }
        "GetSchema" => {
            met(shared).await?;
            let SchemaRequest { schema_id } = messages.only().await?;
            let schema_json = shared.bus.schema(&schema_id);
            let schema_json = schema_json.ok_or_else(|| Status::new(Status::NOT_FOUND, "there is no such schema"))?;
            Ok(one(&SchemaInfo { schema_json, schema_id, rpc_id: rpc_id.clone() }, &rpc_id))
        }
        "Publish" => {
            met(shared).await?;
            let request = messages.only().await?;
            publish(shared, &user, request, &rpc_id).map(|response| one(&response, &rpc_id))
        }
        _ => Err(Status::new(Status::UNIMPLEMENTED, "the stand-in does not serve this method")),
    }
}

/// The user of a call.
fn admitted(shared: &Shared, headers: &HeaderMap) -> Result<Arc<User>, Status> {
    let refused = |message: &str| Status::known(Status::UNAUTHENTICATED, AUTH_ERROR, message);
    let header = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let now = shared.clock.now();
    let mut state = shared.state.lock();
    let lifetime = state.lifetime();
    let session = state.sessions.find(now, lifetime, header("accesstoken"));
    let session = session.ok_or_else(|| refused("An authentication exception occurred. The session is invalid."))?;
    if id::complete(header("tenantid")).as_deref() != Some(state.organization.id.as_str()) {
        return Err(refused("The tenant id is not the session's."));
    }
    if !header("instanceurl").starts_with("http") {
        return Err(refused("The instance url is missing."));
    }
    Ok(session.user)
}

/// The fault for a call that is not a stream.
async fn met(shared: &Shared) -> Result<(), Status> {
    let met = shared.faults.lock().meet_events(false, false);
    match met {
        Some((broken, _)) => match status(broken) {
            Some(status) => Err(status),
            None => std::future::pending().await,
        },
        None => Ok(()),
    }
}

/// A unique id.
fn made_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// The status with which a fault ends a call; `None`: without one.
fn status(broken: Broken) -> Option<Status> {
    match broken {
        Broken::Auth => {
            Some(Status::known(Status::UNAUTHENTICATED, AUTH_ERROR, "An authentication exception occurred."))
        }
        Broken::AuthRefresh => {
            Some(Status::known(Status::UNAUTHENTICATED, REFRESH_INVALID, "The refreshed session is invalid."))
        }
        Broken::Replay => {
            Some(Status::known(Status::INVALID_ARGUMENT, REPLAY_CORRUPTED, "The replay id is corrupted."))
        }
        Broken::Denied => Some(Status::new(Status::PERMISSION_DENIED, "The user may not read this topic.")),
        Broken::Unavailable => Some(Status::new(Status::UNAVAILABLE, "The service is unavailable.")),
        Broken::Cut | Broken::Silent => None,
    }
}

fn known(shared: &Shared, topic: &str) -> Result<bus::Known, Status> {
    let schema = Arc::clone(&shared.state.lock().schema);
    let known = shared.bus.topic(&schema, topic);
    known.ok_or_else(|| Status::new(Status::NOT_FOUND, format!("The topic {topic} does not exist.")))
}

fn publish(shared: &Shared, user: &User, request: PublishRequest, rpc_id: &str) -> Result<PublishResponse, Status> {
    let PublishRequest { topic_name, events } = request;
    let known = known(shared, &topic_name)?;
    if !topic_name.starts_with("/event/") {
        let message = format!("{} may not publish on {topic_name}.", user.username);
        return Err(Status::new(Status::PERMISSION_DENIED, message));
    }
    let results = events.into_iter().map(|event| {
        let correlation_key = event.id.clone();
        let number = match event.schema_id == known.schema_id {
            true => shared.bus.add(&topic_name, event.id, event.schema_id, event.payload),
            false => None,
        };
        let error = PublishError { code: 1, msg: "The schema is not the topic's.".to_owned() };
        PublishResult {
            error: number.is_none().then_some(error),
            replay_id: number.map(|it| it.to_be_bytes().to_vec()).unwrap_or_default(),
            correlation_key,
        }
    });
    Ok(PublishResponse { results: results.collect(), schema_id: known.schema_id, rpc_id: rpc_id.to_owned() })
}

/// A body of one message.
fn one(message: &impl Message, rpc_id: &str) -> Body {
    whole(vec![grpc::data(message), Status::trailers(None, rpc_id)])
}

fn whole(frames: Vec<Frame<Bytes>>) -> Body {
    let frames = streams::iter(frames.into_iter().map(Ok::<_, Infallible>));
    StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync()
}
