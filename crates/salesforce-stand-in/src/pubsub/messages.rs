//! The messages of `eventbus.v1` (Salesforce's `pubsub_api.proto`, github.com/forcedotcom/pub-sub-api, CC0) that the
//! org supports.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct TopicRequest {
    #[prost(string, tag = "1")]
    pub(super) topic_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TopicInfo {
    #[prost(string, tag = "1")]
    pub(super) topic_name: String,
    #[prost(string, tag = "2")]
    pub(super) tenant_guid: String,
    #[prost(bool, tag = "3")]
    pub(super) can_publish: bool,
    #[prost(bool, tag = "4")]
    pub(super) can_subscribe: bool,
    #[prost(string, tag = "5")]
    pub(super) schema_id: String,
    #[prost(string, tag = "6")]
    pub(super) rpc_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SchemaRequest {
    #[prost(string, tag = "1")]
    pub(super) schema_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SchemaInfo {
    #[prost(string, tag = "1")]
    pub(super) schema_json: String,
    #[prost(string, tag = "2")]
    pub(super) schema_id: String,
    #[prost(string, tag = "3")]
    pub(super) rpc_id: String,
}

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
pub(super) struct ConsumerEvent {
    #[prost(message, optional, tag = "1")]
    pub(super) event: Option<ProducerEvent>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) replay_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FetchRequest {
    #[prost(string, tag = "1")]
    pub(super) topic_name: String,
    /// 0 the latest, 1 the earliest, 2 after `replay_id`.
    #[prost(int32, tag = "2")]
    pub(super) replay_preset: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) replay_id: Vec<u8>,
    #[prost(int32, tag = "4")]
    pub(super) num_requested: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FetchResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) events: Vec<ConsumerEvent>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) latest_replay_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) rpc_id: String,
    #[prost(int32, tag = "4")]
    pub(super) pending_num_requested: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PublishRequest {
    #[prost(string, tag = "1")]
    pub(super) topic_name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) events: Vec<ProducerEvent>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PublishResult {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) replay_id: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) error: Option<PublishError>,
    #[prost(string, tag = "3")]
    pub(super) correlation_key: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PublishError {
    /// 1: it could not be published.
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) msg: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PublishResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) results: Vec<PublishResult>,
    #[prost(string, tag = "2")]
    pub(super) schema_id: String,
    #[prost(string, tag = "3")]
    pub(super) rpc_id: String,
}
