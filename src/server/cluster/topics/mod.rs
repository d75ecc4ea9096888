//! [`Topics`]: which node reads a topic of Salesforce, and how far it has been published (docs/cluster.md).
//!
//! Every topic has a lease in the bucket of leases, as exclusive sources have. The node that holds it has its turn; the others
//! look twice a second whether it is free. `seat` seeks the lease, renews it and lets it go. `position` is the second key of a
//! topic, without a TTL: who has the turn puts it again before anything is published, so that a message of an earlier holder,
//! still on its way, comes too late to change it.

mod position;
mod seat;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
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
    seats: Mutex<HashMap<String, Known>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A seat that was given, and may be in use.
struct Known {
    guard: Weak<Guard>,
    seat: Arc<Seat>,
}

/// Closes a seat when nobody shares it any more.
struct Guard(Arc<Seat>);

/// A share in a seat: two tables can name the same topic.
struct Share {
    seat: Arc<Seat>,
    /// `None`: it was given up.
    guard: Mutex<Option<Arc<Guard>>>,
}

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
        let mut seats = self.seats.lock();
        // Those of topics that a reload has removed.
        seats.retain(|known, it| known == topic || !it.seat.has_ended());
        let earlier = seats.get(topic);
        if let Some(guard) = earlier.and_then(|known| known.guard.upgrade()).filter(|guard| !guard.0.is_closed()) {
            return Share::of(guard);
        }
        let earlier = earlier.map(|known| Arc::clone(&known.seat));
        let seat = Arc::new(Seat::new(topic, &self.bucket, self.me.clone(), self.stop.child_token()));
        let guard = Arc::new(Guard(Arc::clone(&seat)));
        seats.insert(topic.to_owned(), Known { guard: Arc::downgrade(&guard), seat: Arc::clone(&seat) });
        drop(seats);
        let run = async move {
            if let Some(earlier) = earlier {
                earlier.ended().await;
            }
            seat.run().await;
        };
        drop(self.tasks.spawn_on(run, self.bucket.storage.handle()));
        Share::of(guard)
    }
}

impl Share {
    fn of(guard: Arc<Guard>) -> Arc<dyn TopicSeat> {
        Arc::new(Self { seat: Arc::clone(&guard.0), guard: Mutex::new(Some(guard)) })
    }
}

impl TopicSeat for Share {
    fn turn(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.seat.turn(true))
    }

    fn turn_over(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.seat.turn(false))
    }

    fn is_turn(&self) -> bool {
        self.seat.is_turn()
    }

    fn reader(&self) -> TopicReader {
        self.seat.reader()
    }

    fn find(&self, org: &str) -> Option<Vec<u8>> {
        self.seat.position.find(org)
    }

    fn advance(&self, org: &str, replay_id: &[u8]) {
        self.seat.position.advance(org, replay_id);
    }

    fn forget(&self, org: &str) {
        self.seat.position.forget(org);
    }

    fn give_way(&self, time: Duration) {
        self.seat.give_way(time);
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        let guard = self.guard.lock().take();
        // Not under the lock: it may be the last share.
        drop(guard);
        Box::pin(async {
            if self.seat.is_closed() {
                self.seat.ended().await;
            }
        })
    }
}
