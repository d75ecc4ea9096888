//! [`TopicSeat`]: the right to read a topic, and how far it has been published.
//!
//! A broker by itself always has its turn, and keeps positions in a file ([`OwnSeat`]). The nodes of a cluster take turns, and
//! keep positions where each of them finds them; a [`TopicKeeper`] gives the seats of a node.

use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::replay::Positions;

/// Who reads a topic now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicReader {
    /// This broker.
    Here,
    /// Another node of the cluster, by its name.
    Node(Arc<str>),
    /// Nobody, as far as this node knows.
    Nobody,
}

/// What gives seats to the topics of a node.
pub trait TopicKeeper: Send + Sync {
    /// A seat for a topic, given by its name in Salesforce. This node wants its turn until the seat is dropped. If it
    /// has an earlier seat for the topic, the new one has no turn before that one has ended.
    fn seat(&self, topic: &str) -> Arc<dyn TopicSeat>;
}

/// A seat for a topic. What is published of the topic is published during a turn. Positions are never ahead of that.
pub trait TopicSeat: Send + Sync {
    /// Ready when it is this broker's turn.
    fn turn(&self) -> BoxFuture<'_, ()>;

    /// Ready when it is no longer, or not yet, this broker's turn.
    fn turn_over(&self) -> BoxFuture<'_, ()>;

    /// Whether it is this broker's turn at this moment.
    fn is_turn(&self) -> bool;

    /// Who reads the topic.
    fn reader(&self) -> TopicReader;

    /// The replay id to continue after. A replay id is valid for one org only.
    fn find(&self, org: &str) -> Option<Vec<u8>>;

    /// Records that the topic has been published up to this replay id. It is written soon.
    fn advance(&self, org: &str, replay_id: &[u8]);

    /// Forgets the replay id of an org, because Salesforce refused it.
    fn forget(&self, org: &str);

    /// Lets others have a turn, because this broker cannot read the topic for this time.
    fn give_way(&self, time: Duration);

    /// Ends the turn. Ready when the position is written and others can have theirs.
    fn leave(&self) -> BoxFuture<'_, ()>;
}

/// The seat of a broker that is not in a cluster.
pub(super) struct OwnSeat {
    pub(super) topic: String,
    pub(super) positions: Arc<Positions>,
}

impl TopicSeat for OwnSeat {
    fn turn(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn turn_over(&self) -> BoxFuture<'_, ()> {
        Box::pin(pending())
    }

    fn is_turn(&self) -> bool {
        true
    }

    fn reader(&self) -> TopicReader {
        TopicReader::Here
    }

    fn find(&self, org: &str) -> Option<Vec<u8>> {
        self.positions.find(org, &self.topic)
    }

    fn advance(&self, org: &str, replay_id: &[u8]) {
        self.positions.advance(org, &self.topic, replay_id);
    }

    fn forget(&self, org: &str) {
        self.positions.forget(org, &self.topic);
    }

    fn give_way(&self, _time: Duration) {}

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}
