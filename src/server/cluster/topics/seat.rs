//! [`Seat`]: this node's wish to read a topic, and its turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::position::Position;
use crate::cluster::{Lease, LeaseStep, part};
use crate::salesforce::TopicReader;
use crate::server::cluster::jetstream::{LEASES, StorageError};
use crate::server::cluster::leases::bucket::{AGAIN, Bucket, Last, Renewed, Value};
use crate::server::cluster::leases::pause;

/// How often a node that waits looks whether the lease is free, and one that has it looks whether it is lost.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long the position may take to be written at the end of a turn.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// What a node knows of the turn.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Turn {
    /// It is this node's, until this time on the clock of the links, unless the lease is renewed.
    Own(Instant),
    /// It is another node's; nobody's, as far as is known, without a name.
    Other(Option<Arc<str>>),
}

/// Why a turn has ended.
enum Ended {
    /// Nobody here wants it any more.
    Closed,
    /// This node cannot read the topic for this time.
    GaveWay(Duration),
    /// Another node has it, or may have it.
    Lost,
}

/// This node's wish to read a topic.
pub(super) struct Seat {
    topic: String,
    /// The key of the lease.
    subject: String,
    pub(super) position: Position,
    bucket: Arc<Bucket>,
    me: Value,
    turn: watch::Sender<Turn>,
    /// For how long this node lets others read.
    way: Mutex<Option<Duration>>,
    way_given: Notify,
    closed: CancellationToken,
    ended: CancellationToken,
}

impl Seat {
    /// A seat whose turn is wanted, once it runs, until it is closed.
    pub(super) fn new(topic: &str, bucket: &Arc<Bucket>, me: Value, closed: CancellationToken) -> Self {
        let (_, keys) = bucket.storage.bucket(LEASES);
        let name = part(topic);
        Self {
            topic: topic.to_owned(),
            subject: format!("{keys}.t.{name}"),
            position: Position::new(format!("{keys}.p.{name}"), me.incarnation),
            bucket: Arc::clone(bucket),
            me,
            turn: watch::Sender::new(Turn::Other(None)),
            way: Mutex::default(),
            way_given: Notify::new(),
            closed,
            ended: CancellationToken::new(),
        }
    }

    /// Ready when it is this node's turn, or when it is not.
    pub(super) async fn turn(&self, is_own: bool) {
        let mut turn = self.turn.subscribe();
        // The sender is here, so it does not end.
        turn.wait_for(|turn| self.is_own(turn) == is_own).await.ok();
    }

    pub(super) fn is_turn(&self) -> bool {
        self.is_own(&self.turn.borrow())
    }

    fn is_own(&self, turn: &Turn) -> bool {
        matches!(turn, Turn::Own(until) if self.bucket.plane.now() < *until)
    }

    pub(super) fn reader(&self) -> TopicReader {
        match &*self.turn.borrow() {
            Turn::Own(_) => TopicReader::Here,
            Turn::Other(Some(node)) => TopicReader::Node(Arc::clone(node)),
            Turn::Other(None) => TopicReader::Nobody,
        }
    }

    pub(super) fn give_way(&self, time: Duration) {
        *self.way.lock() = Some(time);
        self.way_given.notify_one();
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Ready when nothing of it is left to be written.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Takes turns until it is closed.
    pub(super) async fn run(&self) {
        let _ended = self.ended.clone().drop_guard();
        while let Some(mut lease) = self.seek().await {
            self.turn.send_replace(Turn::Own(lease.lost_at()));
            tracing::info!(topic = self.topic, "this node reads the topic of Salesforce");
            let ended = tokio::select! {
                () = self.renew(&mut lease) => Ended::Lost,
                _overtaken = self.position.keep(&self.bucket.storage) => Ended::Lost,
                () = self.closed.cancelled() => Ended::Closed,
                time = self.way() => Ended::GaveWay(time),
            };
            self.turn.send_replace(Turn::Other(None));
            match ended {
                Ended::Lost => {
                    tracing::warn!(
                        topic = self.topic,
                        "the lease of a topic of Salesforce is lost: this node reads it no longer"
                    );
                }
                Ended::Closed => self.let_go(&lease).await,
                Ended::GaveWay(time) => {
                    tracing::info!(
                        topic = self.topic,
                        ?time,
                        "this node cannot read the topic of Salesforce: others may"
                    );
                    self.let_go(&lease).await;
                    self.closed.run_until_cancelled(pause(time)).await;
                }
            }
        }
    }

    /// Ready when this node lets others read.
    async fn way(&self) -> Duration {
        loop {
            if let Some(time) = self.way.lock().take() {
                return time;
            }
            self.way_given.notified().await;
        }
    }

    /// Takes the lease, and the position after that. `None`: it is closed.
    async fn seek(&self) -> Option<Lease> {
        // Not dropped in the middle: a lease that was just taken would have to run out.
        while !self.is_closed() {
            let Some(lease) = self.claim().await else {
                self.closed.run_until_cancelled(pause(LOOK_EVERY)).await;
                continue;
            };
            // What was asked for before does not concern this turn.
            self.way.lock().take();
            if self.take_position().await {
                return Some(lease);
            }
            self.remove(&lease).await;
        }
        None
    }

    /// Takes the lease if it is free.
    async fn claim(&self) -> Option<Lease> {
        let (other, expected) = match self.bucket.last(&self.subject).await {
            Ok(Last::Free(revision)) => (None, Some(revision)),
            // Of an earlier turn that was lost, or of a message that was not acknowledged.
            Ok(Last::Value(revision, value)) if value.is_of_node_of(&self.me) => (None, Some(revision)),
            // Of this node before it was started again: it has to run out.
            Ok(Last::Value(_, value)) if value.node == self.me.node => (None, None),
            Ok(Last::Value(_, value)) => (Some(Arc::from(value.node)), None),
            Ok(Last::Unreadable) | Err(_) => (None, None),
        };
        self.note_reader(other);
        let expected = expected?;
        let sent = self.bucket.plane.now();
        match self.bucket.put(&self.subject, &self.me, expected).await {
            Ok(revision) => Some(Lease::new(self.bucket.times, sent, revision)),
            Err(error) => {
                tracing::debug!(%error, topic = self.topic, "the lease of a topic cannot be taken now");
                None
            }
        }
    }

    fn note_reader(&self, other: Option<Arc<str>>) {
        let is_new = self.turn.send_if_modified(|turn| {
            let new = Turn::Other(other.clone());
            let is_new = *turn != new;
            *turn = new;
            is_new
        });
        if let Some(node) = other.filter(|_| is_new) {
            tracing::info!(topic = self.topic, node = &*node, "another node reads the topic of Salesforce");
        }
    }

    /// Takes the position over. Returns whether it did so in time.
    async fn take_position(&self) -> bool {
        // Well before the lease has to be renewed for the last time.
        let until = self.bucket.plane.now() + self.bucket.times.renew;
        while self.bucket.plane.now() < until && !self.is_closed() {
            match self.position.take_over(&self.bucket.storage).await {
                Ok(()) => return true,
                Err(StorageError::Conflict) => {}
                Err(error) => {
                    tracing::debug!(%error, topic = self.topic, "the position of a topic cannot be taken over now");
                    pause(AGAIN).await;
                }
            }
        }
        false
    }

    /// Renews the lease until it is lost.
    async fn renew(&self, lease: &mut Lease) {
        let plane = &self.bucket.plane;
        loop {
            let now = plane.now();
            match lease.step(now) {
                LeaseStep::Wait(until) => pause(until.saturating_duration_since(now).min(LOOK_EVERY)).await,
                LeaseStep::Lost => return,
                LeaseStep::Renew(revision) => {
                    let left = lease.lost_at().saturating_duration_since(now);
                    let renewed = timeout(left, self.bucket.renew(&self.subject, &self.me, revision)).await;
                    match renewed.unwrap_or(Renewed::Failed) {
                        Renewed::Done(revision) => {
                            lease.renewed(revision);
                            self.turn.send_replace(Turn::Own(lease.lost_at()));
                        }
                        Renewed::Found(revision) => lease.found(plane.now(), revision),
                        Renewed::Taken => lease.taken(),
                        Renewed::Failed => lease.failed(plane.now()),
                    }
                }
            }
        }
    }

    /// Ends the turn: writes the position, and removes the lease.
    async fn let_go(&self, lease: &Lease) {
        let plane = &self.bucket.plane;
        let until = lease.lost_at().min(plane.now() + LAST_WRITE);
        while plane.now() < until {
            match self.position.write(&self.bucket.storage).await {
                Ok(Ok(())) => break,
                // The lease is not this node's either.
                Ok(Err(_overtaken)) => return,
                Err(StorageError::Conflict) => {}
                Err(_) => pause(AGAIN).await,
            }
        }
        self.remove(lease).await;
    }

    async fn remove(&self, lease: &Lease) {
        self.bucket.remove(&self.subject, &self.me, lease.revision()).await;
    }
}
