//! [`JetStream`]: what a cluster keeps, and what has to be decided once for all nodes.
//!
//! `streams` makes the streams and buckets at start, `secret` is the random key that all nodes share. Everything that is
//! stored is sealed. What is read comes from the leader, never by direct get, which may be stale.

mod secret;
mod streams;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageError};
use async_nats::{Client, HeaderMap};
use ring::hmac;
use tokio::runtime::Handle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::ClusterError;
use crate::cluster::{Keys, StoredAt, StoredSealer, bucket_stream, bucket_subjects, part};
use crate::config::Config;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The bucket of retained values.
pub(in crate::server) const RETAINED: &str = "retained";

/// The bucket of the leases of exclusive sources, and of what else is decided once.
pub(in crate::server) const LEASES: &str = "leases";

/// How many random bytes the name of a user has in a subject, if subjects are sealed.
const HASHED_USER_BYTES: usize = 16;

/// The storage of a cluster. Its futures need the runtime of [`JetStream::handle`].
pub(in crate::server) struct JetStream {
    context: Context,
    sealer: StoredSealer,
    secret: hmac::Key,
    /// `cluster.name`
    name: String,
    seals_subjects: bool,
    wait: Duration,
    /// Stored messages that did not open.
    unopened: AtomicU64,
    /// Reads and writes that failed.
    failed: AtomicU64,
    handle: Handle,
}

/// Something to be stored.
#[derive(Clone, Copy)]
pub(in crate::server) struct Put<'a> {
    /// Where: the subject, and the offset if it is for a user's log.
    pub(in crate::server) at: StoredAt<'a>,
    /// What is sealed.
    pub(in crate::server) text: &'a [u8],
    /// The sequence of the last message of the subject has to be this; 0: there is none.
    pub(in crate::server) expected: Option<u64>,
    /// How long it is kept.
    pub(in crate::server) ttl: Option<Duration>,
    /// What makes a repetition a duplicate.
    pub(in crate::server) id: Option<&'a str>,
    /// Headers, in the clear.
    pub(in crate::server) headers: &'a [(&'static str, String)],
}

impl<'a> Put<'a> {
    /// Stores a text at a place, whatever is there.
    pub(in crate::server) fn new(at: StoredAt<'a>, text: &'a [u8]) -> Self {
        Self { at, text, expected: None, ttl: None, id: None, headers: &[] }
    }
}

/// What is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Stored {
    /// Its sequence in the stream.
    pub(in crate::server) sequence: u64,
    /// It was there already, by its id.
    pub(in crate::server) is_duplicate: bool,
}

/// A message that was read, still sealed.
pub(in crate::server) struct Read {
    pub(in crate::server) subject: String,
    pub(in crate::server) sequence: u64,
    pub(in crate::server) headers: HeaderMap,
    pub(in crate::server) sealed: bytes::Bytes,
}

impl Read {
    /// The number in a header.
    pub(in crate::server) fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.as_str().parse().ok()
    }

    /// Whether it only says that the value of its key was removed, or has expired.
    pub(in crate::server) fn is_marker(&self) -> bool {
        ["KV-Operation", "Nats-Marker-Reason"].into_iter().any(|header| self.headers.get(header).is_some())
    }
}

/// Why JetStream did not do something.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum StorageError {
    /// The last message of the subject is another one than expected.
    #[error("another node was first")]
    Conflict,
    /// It is larger than NATS takes.
    #[error("it is larger than NATS takes")]
    TooLarge,
    /// No answer came in time, or JetStream refuses. It may have been stored nevertheless.
    #[error("{0}")]
    Unavailable(String),
}

impl StorageError {
    fn unavailable(error: &dyn fmt::Display) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<PublishError> for StorageError {
    fn from(error: PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::WrongLastSequence => Self::Conflict,
            PublishErrorKind::MaxPayloadExceeded => Self::TooLarge,
            _ => Self::unavailable(&error),
        }
    }
}

impl JetStream {
    /// Makes the streams and buckets that are missing, and reads the secret.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub(super) async fn open(client: Client, keys: &Keys, config: &Config) -> Result<Self, ClusterError> {
        Self::open_as(client, keys, config, false).await
    }

    /// Makes the streams and buckets that are missing, and reads the secret, for a program that is not a node: it leaves what is
    /// there as it is.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub(super) async fn open_beside(client: Client, keys: &Keys, config: &Config) -> Result<Self, ClusterError> {
        Self::open_as(client, keys, config, true).await
    }

    async fn open_as(client: Client, keys: &Keys, config: &Config, is_left: bool) -> Result<Self, ClusterError> {
        check_largest(client.max_payload(), config)?;
        let settings = &config.cluster;
        let context = ContextBuilder::new().timeout(ATTEMPT).ack_timeout(ATTEMPT).build(client);
        streams::make(&context, config, is_left).await?;
        let unkeyed = Self {
            context,
            sealer: StoredSealer::new(keys),
            secret: hmac::Key::new(hmac::HMAC_SHA256, &[]),
            name: settings.name.clone(),
            seals_subjects: settings.seal_subjects,
            wait: settings.storage_wait,
            unopened: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            handle: Handle::current(),
        };
        let secret = secret::read_or_make(&unkeyed, is_left).await?;
        Ok(Self { secret: hmac::Key::new(hmac::HMAC_SHA256, &*secret), ..unkeyed })
    }

    /// The runtime on which its futures run.
    pub(in crate::server) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// `cluster.storage_wait`
    pub(in crate::server) fn wait(&self) -> Duration {
        self.wait
    }

    /// `cluster.name`
    pub(in crate::server) fn name(&self) -> &str {
        &self.name
    }

    /// The library's context, for consumers.
    pub(in crate::server) fn context(&self) -> &Context {
        &self.context
    }

    /// Stores something, in one attempt of 2 s.
    ///
    /// # Errors
    /// [`StorageError`]
    pub(in crate::server) async fn put(&self, put: Put<'_>) -> Result<Stored, StorageError> {
        let sealed = self.sealer.seal(put.at, put.text);
        let sealed = sealed.ok_or_else(|| StorageError::unavailable(&"the system gives no random numbers"))?;
        let mut message = PublishMessage::build().payload(sealed.into());
        if let Some(sequence) = put.expected {
            message = message.expected_last_subject_sequence(sequence);
        }
        if let Some(ttl) = put.ttl {
            message = message.ttl(ttl);
        }
        if let Some(id) = put.id {
            message = message.message_id(id);
        }
        for (name, value) in put.headers {
            message = message.header(*name, value.as_str());
        }
        self.publish(put.at.subject, message).await
    }

    /// Removes the value of a key in a bucket, if its revision is this one. `ttl`: how long the marker stays.
    ///
    /// # Errors
    /// [`StorageError`]
    pub(in crate::server) async fn remove(
        &self,
        subject: &str,
        revision: u64,
        ttl: Duration,
    ) -> Result<Stored, StorageError> {
        let message = PublishMessage::build().expected_last_subject_sequence(revision).ttl(ttl);
        self.publish(subject, message.header("KV-Operation", "DEL")).await
    }

    async fn publish(&self, subject: &str, message: PublishMessage) -> Result<Stored, StorageError> {
        let attempt = async { self.context.send_publish(subject.to_owned(), message).await?.await };
        self.counted(match timeout(ATTEMPT, attempt).await {
            Ok(Ok(ack)) => Ok(Stored { sequence: ack.sequence, is_duplicate: ack.duplicate }),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(StorageError::unavailable(&"no answer")),
        })
    }

    /// Counts an outcome if it is a failure of the storage. A conflict, or a message that is too large, is none.
    pub(in crate::server) fn counted<T>(&self, outcome: Result<T, StorageError>) -> Result<T, StorageError> {
        if matches!(outcome, Err(StorageError::Unavailable(_))) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Reads the last message of a subject from the leader.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]
    pub(in crate::server) async fn last(&self, stream: &str, subject: &str) -> Result<Option<Read>, StorageError> {
        let stream =
            self.context.get_stream_no_info(stream).await.map_err(|error| StorageError::unavailable(&error))?;
        let read = stream.raw_message_builder().last_by_subject(subject).send();
        self.counted(Self::answer(timeout(ATTEMPT, read).await))
    }

    /// Reads the first message of a subject whose sequence is at least this, from the leader.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]
    pub(in crate::server) async fn first_from(
        &self,
        stream: &str,
        subject: &str,
        sequence: u64,
    ) -> Result<Option<Read>, StorageError> {
        let stream =
            self.context.get_stream_no_info(stream).await.map_err(|error| StorageError::unavailable(&error))?;
        let read = stream.raw_message_builder().sequence(sequence).next_by_subject(subject).send();
        self.counted(Self::answer(timeout(ATTEMPT, read).await))
    }

    fn answer(
        answer: Result<
            Result<async_nats::jetstream::message::StreamMessage, RawMessageError>,
            tokio::time::error::Elapsed,
        >,
    ) -> Result<Option<Read>, StorageError> {
        match answer {
            Ok(Ok(message)) => Ok(Some(Read {
                subject: message.subject.to_string(),
                sequence: message.sequence,
                headers: message.headers,
                sealed: message.payload,
            })),
            Ok(Err(error)) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Ok(Err(error)) => Err(StorageError::unavailable(&error)),
            Err(_) => Err(StorageError::unavailable(&"no answer")),
        }
    }

    /// Decrypts what was stored at a place. `None` if it does not open, which is counted and logged.
    pub(in crate::server) fn open_stored(&self, at: StoredAt<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self.sealer.open(at, sealed) {
            Ok(text) => Some(text),
            Err(error) => {
                if self.unopened.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(%error, "a message in JetStream does not open, and is skipped; others are only counted");
                }
                None
            }
        }
    }

    /// Whether something was sealed with the key that seals now.
    fn is_current(&self, sealed: &[u8]) -> bool {
        self.sealer.is_current(sealed)
    }

    /// How many stored messages did not open.
    pub(in crate::server) fn unopened(&self) -> u64 {
        self.unopened.load(Ordering::Relaxed)
    }

    /// How many reads and writes failed, each attempt by itself.
    pub(in crate::server) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// A keyed hash, the same on every node: for ids of messages. `parts` are kept apart.
    pub(in crate::server) fn hash(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.secret);
        for text in [purpose].iter().chain(parts) {
            context.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(text.as_bytes());
        }
        let mut hash = [0; 32];
        hash.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        hash
    }

    /// The part of a subject that names whose something is: `u.<user>`, or `s` for what is shared or a service's.
    pub(in crate::server) fn owner(&self, user: Option<&str>) -> String {
        match user {
            None => "s".to_owned(),
            Some(user) if self.seals_subjects => {
                let hash = self.hash("user", &[user]);
                format!("u.{}", hex::encode(hash.get(..HASHED_USER_BYTES).unwrap_or(&hash)))
            }
            Some(user) => format!("u.{}", part(user)),
        }
    }

    /// The stream of a bucket, and what the subjects of its keys begin with, without the last dot.
    pub(in crate::server) fn bucket(&self, bucket: &str) -> (String, String) {
        (bucket_stream(&self.name, bucket), bucket_subjects(&self.name, bucket))
    }
}

/// What a stored envelope has beside its text at most: headers, seal, names.
const MORE_BYTES: usize = 16 << 10;

/// The `max_payload` of NATS with which every envelope can be stored.
pub(super) fn largest_stored(config: &Config) -> usize {
    config.limits.message_bytes.saturating_add(MORE_BYTES)
}

/// Whether a channel keeps what it is sent.
pub(super) fn keeps_durably(config: &Config) -> bool {
    config.channels.values().any(|channel| channel.history.is_some() || channel.retain_durable)
}

/// Checks that NATS takes an envelope of `limits.message_bytes`, if a channel keeps any.
fn check_largest(max_payload: usize, config: &Config) -> Result<(), ClusterError> {
    let needed = largest_stored(config);
    if !keeps_durably(config) || max_payload >= needed {
        return Ok(());
    }
    Err(ClusterError::Refused(format!(
        "max_payload of the NATS servers is {max_payload}; channels with history or retain need limits.message_bytes and \
         16 KiB, {needed}"
    )))
}
