//! Retained values of a cluster. A bucket that all nodes see gives each value a revision, and each node keeps the value with
//! the greatest one: whatever arrives late, by a link or from the bucket, changes nothing.
//!
//! Everything here is called with the triple's order lock held, so of two changes of one place one follows the other.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use parking_lot::Mutex;

use super::{Bucket, Place, Retained, Value};
use crate::router::Position;
use crate::router::policy::Policy;
use crate::router::replay::{marked, parts};
use crate::router::retained::account::Owner;
use crate::store::history as stored;

/// How many places are remembered whose values were cleared. A value that is as old as the first one that was forgotten, and
/// arrives only then, is taken for cleared.
const CLEARED_MAX: usize = 1 << 16;

/// The revisions with which values were cleared.
#[derive(Default)]
pub(super) struct Cleared(Mutex<State>);

#[derive(Default)]
struct State {
    by_place: HashMap<(Bucket, Place), u64, foldhash::fast::RandomState>,
    by_revision: BTreeMap<u64, (Bucket, Place)>,
    /// The greatest revision that was forgotten.
    forgotten: u64,
}

impl Cleared {
    /// Notes a revision, unless a later one is known.
    fn note(&self, bucket: &Bucket, place: &Place, revision: u64) {
        let mut state = self.0.lock();
        let key = (bucket.clone(), place.clone());
        if state.by_place.get(&key).is_some_and(|noted| *noted >= revision) {
            return;
        }
        if let Some(before) = state.by_place.insert(key.clone(), revision) {
            state.by_revision.remove(&before);
        }
        state.by_revision.insert(revision, key);
        while state.by_revision.len() > CLEARED_MAX
            && let Some((revision, key)) = state.by_revision.pop_first()
        {
            state.by_place.remove(&key);
            state.forgotten = state.forgotten.max(revision);
        }
    }

    /// The revision with which the value of a place was cleared, or before which it may have been.
    fn revision(&self, bucket: &Bucket, place: &Place) -> u64 {
        let state = self.0.lock();
        state.by_place.get(&(bucket.clone(), place.clone())).copied().unwrap_or(state.forgotten)
    }

    /// There is a later value.
    fn forget(&self, bucket: &Bucket, place: &Place) {
        let mut state = self.0.lock();
        if let Some(revision) = state.by_place.remove(&(bucket.clone(), place.clone())) {
            state.by_revision.remove(&revision);
        }
    }
}

impl Retained {
    /// Keeps a value with its revision, or clears the one that is there if there is none. Nothing happens if what is known of
    /// its place has a greater revision. Returns what `look_up` finds while the value can be neither replayed nor replaced. A
    /// value of a channel that has another scope now is not kept.
    pub(in crate::router) fn revise<T>(
        &self,
        now: Instant,
        policy: &Policy,
        place: &stored::Place,
        (value, revision): (Option<&stored::Retained>, u64),
        look_up: impl FnOnce() -> T,
    ) -> T {
        let bucket = Bucket::of(place.user.as_deref());
        let own: Place = (place.triple.clone(), place.target.clone());
        let _gate = self.gate.read();
        let [channel, ..] = parts(&place.triple);
        if policy.is_shared(channel) == place.user.is_none() && self.is_newer(&bucket, &own, revision) {
            let kept = value.and_then(|value| self.value(now, policy, place, value, revision));
            match kept {
                Some(value) => {
                    self.cleared.forget(&bucket, &own);
                    // It was within the limits when it was accepted.
                    self.insert(&policy.limits().without_retained_bounds(), &bucket, own, value).ok();
                }
                None => {
                    self.clear(&bucket, &own);
                    self.cleared.note(&bucket, &own, revision);
                }
            }
        }
        look_up()
    }

    /// Whether a revision is later than what is known of a place.
    fn is_newer(&self, bucket: &Bucket, place: &Place, revision: u64) -> bool {
        let buckets = self.buckets.read();
        let kept = buckets.get(bucket).and_then(|values| values.lock().get(place).map(|value| value.revision));
        kept.unwrap_or_else(|| self.cleared.revision(bucket, place)) < revision
    }

    /// A value as it is kept. `None` if it belongs to nobody.
    fn value(
        &self,
        now: Instant,
        policy: &Policy,
        place: &stored::Place,
        value: &stored::Retained,
        revision: u64,
    ) -> Option<Value> {
        debug_assert!(policy.retains_durably(parts(&place.triple)[0]), "there is a bucket");
        let stored::Retained { user, service, position, text } = value;
        let position = position.as_ref().map(|(epoch, offset)| Position { offset: *offset, epoch: (**epoch).into() });
        let owner = Owner::of_stored(place, user.as_deref(), service.as_deref())?;
        let frame = marked(text, position.as_ref(), "retained");
        let stamp = self.next_stamp();
        let (user, position) = (user.clone(), position.map(Box::new));
        Some(Value { frame, stamp, owner, user, position, revision, since: now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> (Bucket, Place) {
        (Bucket::Shared, (format!("Queue/Agent/{number}").into(), None))
    }

    #[test]
    fn the_places_that_were_cleared_last_are_remembered() {
        let cleared = Cleared::default();
        let count = CLEARED_MAX + 10;
        for number in 0..count {
            let (bucket, place) = key(number);
            cleared.note(&bucket, &place, number as u64 + 1);
        }
        let revision = |number: usize| {
            let (bucket, place) = key(number);
            cleared.revision(&bucket, &place)
        };
        assert_eq!(revision(count - 1), count as u64);
        assert_eq!(revision(0), 10, "what was forgotten has the greatest revision that was");
        assert_eq!(cleared.0.lock().by_place.len(), CLEARED_MAX);
    }

    #[test]
    fn the_latest_revision_of_a_place_counts_until_there_is_a_value() {
        let cleared = Cleared::default();
        let (bucket, place) = key(1);
        for revision in [5, 9, 7] {
            cleared.note(&bucket, &place, revision);
        }
        assert_eq!(cleared.revision(&bucket, &place), 9);
        assert_eq!(cleared.0.lock().by_revision.len(), 1);
        cleared.forget(&bucket, &place);
        assert_eq!(cleared.revision(&bucket, &place), 0);
    }
}
