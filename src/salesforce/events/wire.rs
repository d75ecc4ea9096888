//! [`PubSub`]: the calls of the Pub/Sub API that the broker uses, and their messages.
//!
//! The messages are `eventbus.v1` as Salesforce publishes it (`pubsub_api.proto` in github.com/forcedotcom/pub-sub-api,
//! CC0), written by hand with the published numbers: seven messages cost less than a code generator in every build.
//! tonic does gRPC's framing on top of our HTTP client, so proxies and certificates are those of every other request.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use prost::Message;
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::config;
use crate::http::{self, BaseUrl};
use crate::salesforce::oauth::{SetupError, Token, connect_http2};

/// Requests events. The first one of a stream names the topic and the start.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FetchRequest {
    #[prost(string, tag = "1")]
    pub(super) topic_name: String,
    #[prost(enumeration = "ReplayPreset", tag = "2")]
    pub(super) replay_preset: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) replay_id: Vec<u8>,
    #[prost(int32, tag = "4")]
    pub(super) num_requested: i32,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum ReplayPreset {
    /// With events published from now on.
    Latest = 0,
    /// With the oldest event that is kept.
    Earliest = 1,
    /// After the event of this replay id.
    Custom = 2,
}

/// Events. Without any, it only says that the stream is alive and how far it is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FetchResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) events: Vec<ConsumerEvent>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) latest_replay_id: Vec<u8>,
}

/// An event and its place in the stream.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConsumerEvent {
    #[prost(message, optional, tag = "1")]
    pub(super) event: Option<ProducerEvent>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) replay_id: Vec<u8>,
}

/// An event as it was published.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ProducerEvent {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) schema_id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct SchemaRequest {
    #[prost(string, tag = "1")]
    schema_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct SchemaInfo {
    #[prost(string, tag = "1")]
    schema_json: String,
}

#[derive(Clone, PartialEq, Message)]
struct TopicRequest {
    #[prost(string, tag = "1")]
    topic_name: String,
}

/// The API's description of a topic.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TopicInfo {
    #[prost(bool, tag = "4")]
    pub(super) can_subscribe: bool,
    #[prost(string, tag = "5")]
    pub(super) schema_id: String,
}

/// The API at one address.
pub(super) struct PubSub {
    http: Http,
    endpoint: BaseUrl,
}

impl PubSub {
    /// Prepares a client. Sends nothing.
    pub(super) fn new(org: &config::Salesforce) -> Result<Self, SetupError> {
        const KEY: &str = "salesforce.events.endpoint";
        let endpoint = BaseUrl::parse(&org.events.endpoint).map_err(|fault| SetupError::new(KEY, fault))?;
        if !(endpoint.https || org.insecure_http && endpoint.is_loopback()) {
            return Err(SetupError::new(KEY, "must begin with https://"));
        }
        Ok(Self { http: Http(connect_http2(org, &endpoint)?), endpoint })
    }

    /// Opens a stream of events. Further requests go through the queue; the stream ends when its sender is dropped.
    pub(super) async fn subscribe(
        &self,
        token: &Token,
        asks: mpsc::Receiver<FetchRequest>,
    ) -> Result<Streaming<FetchResponse>, Status> {
        let mut asks = asks;
        let asks = futures_util::stream::poll_fn(move |context| asks.poll_recv(context));
        let path = PathAndQuery::from_static("/eventbus.v1.PubSub/Subscribe");
        let request = signed(token, asks)?;
        Ok(self.grpc()?.streaming(request, path, ProstCodec::default()).await?.into_inner())
    }

    /// Returns the schema of an event's payload, in JSON.
    pub(super) async fn schema(&self, token: &Token, schema_id: &str) -> Result<String, Status> {
        let path = PathAndQuery::from_static("/eventbus.v1.PubSub/GetSchema");
        let request = signed(token, SchemaRequest { schema_id: schema_id.to_owned() })?;
        let codec = ProstCodec::<SchemaRequest, SchemaInfo>::default();
        Ok(self.grpc()?.unary(request, path, codec).await?.into_inner().schema_json)
    }

    /// Returns whether a topic exists and the session may subscribe to it.
    pub(super) async fn topic(&self, token: &Token, topic_name: &str) -> Result<TopicInfo, Status> {
        let path = PathAndQuery::from_static("/eventbus.v1.PubSub/GetTopic");
        let request = signed(token, TopicRequest { topic_name: topic_name.to_owned() })?;
        let codec = ProstCodec::<TopicRequest, TopicInfo>::default();
        Ok(self.grpc()?.unary(request, path, codec).await?.into_inner())
    }

    fn grpc(&self) -> Result<Grpc<Http>, Status> {
        let origin =
            self.endpoint.to_string().parse().map_err(|_| Status::internal("the endpoint is not an address"))?;
        Ok(Grpc::with_origin(self.http.clone(), origin))
    }
}

/// Adds the session to a call. The token is marked as sensitive, so that it is neither logged nor kept by header
/// compression.
fn signed<T>(token: &Token, message: T) -> Result<Request<T>, Status> {
    let value = |text: &str| -> Result<MetadataValue<Ascii>, Status> {
        text.parse().map_err(|_| Status::internal("the session cannot be written as a header"))
    };
    let mut secret = value(token.secret.expose_secret())?;
    secret.set_sensitive(true);
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("accesstoken", secret);
    metadata.insert("instanceurl", value(&token.base.to_string())?);
    metadata.insert("tenantid", value(token.org.as_deref().unwrap_or_default())?);
    Ok(request)
}

/// The HTTP client as a service for tonic.
#[derive(Clone)]
struct Http(http::Client);

impl Service<hyper::Request<tonic::body::Body>> for Http {
    type Response = hyper::Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<tonic::body::Body>) -> Self::Future {
        let http = self.0.clone();
        Box::pin(async move {
            let request = request.map(|body| reqwest::Body::wrap(Shared(Mutex::new(body))));
            http.execute(request.try_into()?).await.map(Into::into)
        })
    }
}

/// A body that is `Sync`, as reqwest requires. The lock is never contended.
struct Shared(Mutex<tonic::body::Body>);

impl Body for Shared {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(self.0.get_mut()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}
