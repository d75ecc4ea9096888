//! The streams and buckets of a cluster, made at start if they are missing.

use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{Config as Stream, DiscardPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use tokio::time::{Instant, sleep_until, timeout};

use super::{LEASES, RETAINED};
use crate::cluster::{bucket_stream, bucket_subjects, history_stream, history_subjects};
use crate::config::{self, Config, LogBounds};
use crate::server::cluster::{ClusterError, NATS_WAIT};

/// Copies of what is stored, unless NATS is a single server.
const REPLICAS: usize = 3;

/// How long the markers of a bucket stay whose values have expired.
const MARKER_TTL: Duration = Duration::from_mins(1);

/// The least time between two attempts.
const AGAIN: Duration = Duration::from_millis(250);

/// Makes what is missing. What is otherwise than the configuration says is changed, unless it `is_left`. Tries for 10 s.
pub(super) async fn make(context: &Context, config: &Config, is_left: bool) -> Result<(), ClusterError> {
    let until = Instant::now() + NATS_WAIT;
    for stream in all(config) {
        loop {
            let error = match timeout(NATS_WAIT, make_one(context, &stream, is_left)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() >= until {
                return Err(ClusterError::Unreachable {
                    servers: config.cluster.servers.join(", "),
                    error: format!("JetStream does not make the stream {}: {error}", stream.name),
                });
            }
            sleep_until(Instant::now() + AGAIN).await;
        }
    }
    Ok(())
}

async fn make_one(context: &Context, stream: &Stream, is_left: bool) -> Result<(), CreateStreamError> {
    if let Ok(there) = context.get_stream(&stream.name).await {
        let there = &there.cached_info().config;
        let is_same = there.max_messages_per_subject == stream.max_messages_per_subject
            && there.max_age == stream.max_age
            && there.duplicate_window == stream.duplicate_window
            && there.subjects == stream.subjects;
        if is_same || is_left {
            return Ok(());
        }
        // As many copies as it has: an operator may have changed that. The metadata can have the epoch of the log.
        let (num_replicas, metadata) = (there.num_replicas, there.metadata.clone());
        let changed = Stream { num_replicas, metadata, ..stream.clone() };
        return context.create_or_update_stream(changed).await.map(drop);
    }
    match context.create_stream(stream).await {
        Err(error) if is_single(&error) => {
            let alone = Stream { num_replicas: 1, ..stream.clone() };
            context.create_stream(alone).await.map(drop)
        }
        made => made.map(drop),
    }
}

/// Whether NATS is a single server, which keeps one copy.
fn is_single(error: &CreateStreamError) -> bool {
    match error.kind() {
        CreateStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED,
        _ => false,
    }
}

/// Everything that the configuration needs.
fn all(config: &Config) -> Vec<Stream> {
    let name = &config.cluster.name;
    let mut streams = vec![bucket(name, RETAINED), bucket(name, LEASES)];
    let mut channels: Vec<_> = config.channels.iter().collect();
    channels.sort_unstable_by_key(|(name, _)| *name);
    for (channel, settings) in channels {
        if let Some(bounds) = settings.history {
            streams.push(history(config, channel, &bounds));
        }
    }
    streams
}

fn bucket(name: &str, bucket: &str) -> Stream {
    Stream {
        name: bucket_stream(name, bucket),
        subjects: vec![format!("{}.>", bucket_subjects(name, bucket))],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(MARKER_TTL),
        ..stored()
    }
}

fn history(config: &Config, channel: &str, bounds: &LogBounds) -> Stream {
    let name = &config.cluster.name;
    Stream {
        name: history_stream(name, channel),
        subjects: vec![format!("{}.>", history_subjects(name, channel))],
        max_messages_per_subject: i64::try_from(bounds.size).unwrap_or(i64::MAX),
        max_age: config::kept_for(bounds.ttl),
        duplicate_window: config.history.retry,
        discard: DiscardPolicy::Old,
        ..stored()
    }
}

/// What all streams have in common.
fn stored() -> Stream {
    Stream {
        storage: StorageType::File,
        num_replicas: REPLICAS,
        max_messages: -1,
        max_bytes: -1,
        max_consumers: -1,
        ..Stream::default()
    }
}
