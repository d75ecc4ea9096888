//! [`Receivers`]: the subscriptions of one key, walked without a lock and left without a copy of the whole list.
//!
//! A publisher takes a snapshot (one counter) and walks it after the shard's lock is released. Who joins or leaves
//! changes one chunk; where a publisher still holds the snapshot, that chunk and the list of chunks are copied, never
//! the list of receivers: ten thousand sessions may leave at once.

use std::sync::Arc;

use crate::router::ids::Serial;
use crate::router::index::Subscription;

/// Copying 64 pointers costs about as much as one push to an outbox.
const CHUNK: usize = 64;

type Chunk = Arc<Vec<Arc<Subscription>>>;

/// The subscriptions of one key, oldest first.
#[derive(Clone, Default)]
pub(in crate::router) struct Receivers {
    chunks: Arc<Vec<Chunk>>,
    /// How many are in a group or watch another user: only then, and where patterns fold, can a session stand here twice.
    special: usize,
}

fn is_special(subscription: &Subscription) -> bool {
    subscription.group.is_some() || subscription.observes.is_some()
}

impl Receivers {
    /// Adds a subscription, the newest of all.
    pub(in crate::router) fn push(&mut self, subscription: Arc<Subscription>) {
        self.special += usize::from(is_special(&subscription));
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push(subscription),
            _ => chunks.push(Arc::new(vec![subscription])),
        }
    }

    /// Takes a subscription out.
    pub(in crate::router) fn remove(&mut self, serial: Serial) {
        // Serials grow, so both searches halve.
        let first_serial = |chunk: &Chunk| chunk.first().map(|first| first.serial);
        let after = self.chunks.partition_point(|chunk| first_serial(chunk) <= Some(serial));
        let Some(place) = after.checked_sub(1) else { return };
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(place) else { return };
        let Ok(at) = chunk.binary_search_by_key(&serial, |subscription| subscription.serial) else { return };
        let chunk = Arc::make_mut(chunk);
        self.special -= usize::from(is_special(&chunk.remove(at)));
        if chunk.is_empty() {
            chunks.remove(place);
        }
    }

    /// Whether nobody is left.
    pub(in crate::router) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether a session may stand here twice, with patterns that differ in more than letter case.
    pub(in crate::router) fn has_special(&self) -> bool {
        self.special > 0
    }

    /// The subscriptions, oldest first.
    pub(in crate::router) fn iter(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}
