//! [`Receivers`]: the subscriptions of one key, walked without a lock and left without a copy of the whole list.
//!
//! A publisher takes a snapshot (one counter) and walks it after the shard's lock is released. Each change touches one
//! chunk. If a publisher still holds the snapshot, that chunk and the list of chunks are copied, never the list of
//! receivers: ten thousand sessions may leave at once.

use std::slice;
use std::sync::Arc;

use crate::router::index::Subscription;

/// Copying 64 entries costs about as much as one push to an outbox.
const CHUNK: usize = 64;

type Chunk = Arc<Vec<Entry>>;

/// The subscriptions of one key, oldest first.
#[derive(Clone, Default)]
pub(in crate::router) struct Receivers {
    list: List,
    /// The number of subscriptions with a group or another user. A session is in one list twice only because of them, or
    /// because patterns fold.
    special: usize,
    /// The order of the next entry. The list draws it itself: whoever adds a subscription holds the list alone.
    next: u64,
}

#[derive(Clone, Default)]
enum List {
    #[default]
    Empty,
    /// On a user-scoped channel this is the usual number.
    One(Entry),
    Many(Arc<Vec<Chunk>>),
}

#[derive(Clone)]
struct Entry {
    order: u64,
    subscription: Arc<Subscription>,
}

fn is_special(subscription: &Subscription) -> bool {
    subscription.group.is_some() || subscription.observes.is_some()
}

impl Receivers {
    /// Adds a subscription behind all others, and returns its order, which [`Receivers::remove`] takes.
    pub(super) fn push(&mut self, subscription: Arc<Subscription>) -> u64 {
        let order = self.next;
        self.next += 1;
        self.special += usize::from(is_special(&subscription));
        let entry = Entry { order, subscription };
        self.list = match std::mem::take(&mut self.list) {
            List::Empty => List::One(entry),
            List::One(first) => List::Many(Arc::new(vec![Arc::new(vec![first, entry])])),
            List::Many(mut chunks) => {
                let list = Arc::make_mut(&mut chunks);
                match list.last_mut() {
                    Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push(entry),
                    _ => list.push(Arc::new(vec![entry])),
                }
                List::Many(chunks)
            }
        };
        order
    }

    /// Takes out the subscription with this order. Returns whether it was there.
    pub(super) fn remove(&mut self, order: u64) -> bool {
        let removed = match &mut self.list {
            List::Empty => None,
            List::One(entry) if entry.order != order => None,
            List::One(_) => match std::mem::take(&mut self.list) {
                List::One(entry) => Some(entry),
                List::Empty | List::Many(_) => None,
            },
            List::Many(chunks) => {
                let removed = remove_from(chunks, order);
                if chunks.is_empty() {
                    self.list = List::Empty;
                }
                removed
            }
        };
        if let Some(entry) = &removed {
            self.special -= usize::from(is_special(&entry.subscription));
        }
        removed.is_some()
    }

    /// Whether the list has no subscription.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.list, List::Empty)
    }

    /// The number of subscriptions.
    pub(super) fn len(&self) -> usize {
        self.slices().map(<[Entry]>::len).sum()
    }

    /// Whether a session may be here twice, with patterns that differ in more than letter case.
    pub(in crate::router) fn has_special(&self) -> bool {
        self.special > 0
    }

    /// The subscriptions, oldest first.
    pub(in crate::router) fn iter(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.slices().flatten().map(|entry| &entry.subscription)
    }

    fn slices(&self) -> impl Iterator<Item = &[Entry]> {
        let (one, chunks) = match &self.list {
            List::Empty => (None, &[][..]),
            List::One(entry) => (Some(slice::from_ref(entry)), &[][..]),
            List::Many(chunks) => (None, &chunks[..]),
        };
        one.into_iter().chain(chunks.iter().map(|chunk| &chunk[..]))
    }
}

/// Orders grow along the chunks, so both searches halve.
fn remove_from(chunks: &mut Arc<Vec<Chunk>>, order: u64) -> Option<Entry> {
    let is_before = |chunk: &Chunk| chunk.first().is_some_and(|first| first.order <= order);
    let place = chunks.partition_point(is_before).checked_sub(1)?;
    let at = chunks.get(place)?.binary_search_by_key(&order, |entry| entry.order).ok()?;
    let chunks = Arc::make_mut(chunks);
    let chunk = Arc::make_mut(chunks.get_mut(place)?);
    let entry = chunk.remove(at);
    if chunk.is_empty() {
        chunks.remove(place);
    }
    Some(entry)
}
