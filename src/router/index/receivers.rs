//! [`Entries`]: the subscriptions of one key, and [`Receivers`]: a snapshot of them, walked without a lock.
//!
//! A publisher takes a snapshot (one counter) and walks it after the shard's lock is released. Each change touches one
//! chunk. If a publisher still holds a snapshot, that chunk and the list of chunks are copied, never the list of
//! receivers: ten thousand sessions may leave at once.

use std::slice;
use std::sync::Arc;

use crate::router::index::Subscription;
use crate::telemetry::recorder::Mark;

/// Copying 64 entries costs about as much as one push to an outbox.
const CHUNK: usize = 64;

/// Subscriptions with their orders, oldest first.
type Chunk = Arc<Vec<Entry>>;

#[derive(Clone)]
struct Entry {
    order: u64,
    subscription: Arc<Subscription>,
}

/// The subscriptions of one key.
#[derive(Default)]
pub(super) struct Entries {
    list: List,
    /// The number of subscriptions with a group or another user.
    special: usize,
    /// The mark of the triple that the key names, unless it has a wildcard.
    pub(super) mark: Option<Mark>,
    /// The order of the next entry. The list draws it itself, because the caller that adds a subscription has locked the list.
    next: u64,
}

#[derive(Default)]
enum List {
    #[default]
    Empty,
    /// On a user-scoped channel this is the usual number.
    One(Entry),
    Many(Arc<Vec<Chunk>>),
}

fn is_special(subscription: &Subscription) -> bool {
    subscription.group.is_some() || subscription.observes.is_some()
}

impl Entries {
    /// Appends a subscription. Returns its order, which [`Entries::remove`] takes.
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

    /// Removes the subscription with this order. Returns whether there was one.
    pub(super) fn remove(&mut self, order: u64) -> bool {
        let removed = match &mut self.list {
            List::One(entry) if entry.order == order => match std::mem::take(&mut self.list) {
                List::One(entry) => Some(entry),
                List::Empty | List::Many(_) => None,
            },
            List::Empty | List::One(_) => None,
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

    /// Returns whether there are no subscriptions.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.list, List::Empty)
    }

    /// Returns the number of subscriptions.
    pub(super) fn len(&self) -> usize {
        match &self.list {
            List::Empty => 0,
            List::One(_) => 1,
            List::Many(chunks) => chunks.iter().map(|chunk| chunk.len()).sum(),
        }
    }

    /// Returns a snapshot of the subscriptions.
    pub(super) fn snapshot(&self) -> Receivers {
        let list = match &self.list {
            List::Empty => Snapshot::Many(Arc::default()),
            List::One(entry) => Snapshot::One(Arc::clone(&entry.subscription)),
            List::Many(chunks) => Snapshot::Many(Arc::clone(chunks)),
        };
        Receivers { list, has_special: self.special > 0 }
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

/// The subscriptions that one key had at a moment.
pub(in crate::router) struct Receivers {
    list: Snapshot,
    has_special: bool,
}

enum Snapshot {
    One(Arc<Subscription>),
    Many(Arc<Vec<Chunk>>),
}

impl Receivers {
    /// Returns whether one session can have several subscriptions here with patterns that differ in more than letter
    /// case. That is possible only if one of them has a group or observes another user.
    pub(in crate::router) fn has_special(&self) -> bool {
        self.has_special
    }

    /// Returns the subscriptions, oldest first.
    pub(in crate::router) fn iter(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        let (one, many) = match &self.list {
            Snapshot::One(subscription) => (slice::from_ref(subscription), &[][..]),
            Snapshot::Many(chunks) => (&[][..], &chunks[..]),
        };
        one.iter().chain(many.iter().flat_map(|chunk| chunk.iter()).map(|entry| &entry.subscription))
    }
}
