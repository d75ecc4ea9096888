//! [`Topics`]: which node reads a topic of Salesforce, and how far it has been published (docs/cluster.md).
//!
//! Every topic has a lease in the bucket of leases, as exclusive sources have. The node that holds it has its turn; the others
//! look twice a second whether it is free. `seat` seeks the lease, renews it and lets it go. `position` is the second key of a
//! topic, without a TTL: who has the turn puts it again before anything is published, so that a message of an earlier holder,
//! still on its way, comes too late to change it.

mod position;
mod seat;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::jetstream::JetStream;
use super::leases::bucket::{Bucket, Value};
use super::plane::Plane;
use crate::cluster::LeaseTimes;
use crate::salesforce::{TopicKeeper, TopicReader, TopicSeat};
use seat::Seat;

/// The topics of this node.
pub(super) struct Topics {
    bucket: Arc<Bucket>,
    /// What the leases of this node have as their value. There is one seat for a topic at a time, so claims need no number.
    me: Value,
    /// By topic: the last one that was given.
    seats: Mutex<HashMap<String, Arc<Seat>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A seat that was given. It is closed when it is dropped.
struct Guard(Arc<Seat>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Topics {
    pub(super) fn new(storage: Arc<JetStream>, plane: Arc<Plane>, times: LeaseTimes) -> Self {
        let (_, _, incarnation) = plane.subjects();
        let (node, incarnation) = (plane.node().to_string(), *incarnation.as_bytes());
        Self {
            bucket: Arc::new(Bucket { storage, plane, times }),
            me: Value { node, incarnation, claim: 0, session: [0; 16], since_ms: 0 },
            seats: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Ends all turns: the node ends.
    pub(super) fn release_all(&self) {
        self.stop.cancel();
    }

    /// Whether no seat is left whose position or lease is still to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }
}

impl TopicKeeper for Topics {
    fn seat(&self, topic: &str) -> Arc<dyn TopicSeat> {
        let seat = Arc::new(Seat::new(topic, &self.bucket, self.me.clone(), self.stop.child_token()));
        let earlier = {
            let mut seats = self.seats.lock();
            // Those of topics that a reload has removed.
            seats.retain(|_, seat| !seat.has_ended());
            seats.insert(topic.to_owned(), Arc::clone(&seat))
        };
        let guard = Arc::new(Guard(Arc::clone(&seat)));
        let run = async move {
            if let Some(earlier) = earlier {
                earlier.ended().await;
            }
            seat.run().await;
        };
        drop(self.tasks.spawn_on(run, self.bucket.storage.handle()));
        guard
    }
}

impl TopicSeat for Guard {
    fn turn(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.turn(true))
    }

    fn turn_over(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.turn(false))
    }

    fn is_turn(&self) -> bool {
        self.0.is_turn()
    }

    fn reader(&self) -> TopicReader {
        self.0.reader()
    }

    fn find(&self, org: &str) -> Option<Vec<u8>> {
        self.0.position.find(org)
    }

    fn advance(&self, org: &str, replay_id: &[u8]) {
        self.0.position.advance(org, replay_id);
    }

    fn forget(&self, org: &str) {
        self.0.position.forget(org);
    }

    fn give_way(&self, time: Duration) {
        self.0.give_way(time);
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        self.0.close();
        Box::pin(self.0.ended())
    }
}
