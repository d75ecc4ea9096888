//! [`Expiring`]: a bounded map whose entries expire. It has no clock: `now` is an argument.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Values by key, each until it expires. When the map is full, a new entry takes the place of the one that would expire
/// next.
pub(crate) struct Expiring<K, V> {
    entries_max: usize,
    entries: HashMap<K, (V, Place)>,
    /// The keys, the one that expires next first.
    order: BTreeMap<Place, K>,
    placed: u64,
}

/// When an entry expires, and a number that makes the place unique.
type Place = (Instant, u64);

impl<K: Clone + Eq + Hash, V> Expiring<K, V> {
    /// An empty map for at most `entries_max` entries.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { entries_max, entries: HashMap::new(), order: BTreeMap::new(), placed: 0 }
    }

    /// Changes how many entries there are at most. Those beyond leave when another one is added.
    pub(crate) fn set_entries_max(&mut self, entries_max: usize) {
        self.entries_max = entries_max;
    }

    /// Lets every entry expire as if it had been added with the span `after` in place of `before`.
    pub(crate) fn change_span(&mut self, now: Instant, before: Duration, after: Duration) {
        if before == after {
            return;
        }
        let order = std::mem::take(&mut self.order).into_iter();
        let moved =
            order.map(|((until, number), key)| ((until.checked_sub(before).unwrap_or(now) + after, number), key));
        self.order = moved.collect();
        for (place, key) in &self.order {
            if let Some((_, old)) = self.entries.get_mut(key) {
                *old = *place;
            }
        }
    }

    /// Removes the expired entries and returns them, the one that expired first in front.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(K, V)> {
        let mut expired = Vec::new();
        while let Some((_, key)) = self.order.first_key_value().filter(|((until, _), _)| *until <= now) {
            let key = key.clone();
            expired.extend(self.remove(&key).map(|value| (key, value)));
        }
        expired
    }

    /// When the next entry expires.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.order.first_key_value().map(|((until, _), _)| *until)
    }

    /// Adds an entry that expires after `span`, or replaces the one of this key.
    pub(crate) fn insert(&mut self, now: Instant, key: K, value: V, span: Duration) {
        self.remove(&key);
        self.make_room();
        let place = self.place(now, span);
        self.order.insert(place, key.clone());
        self.entries.insert(key, (value, place));
    }

    /// The value of a key, which now expires after `span`. A missing or expired one is made first.
    pub(crate) fn touch(&mut self, now: Instant, key: &K, span: Duration, make: impl FnOnce() -> V) -> &mut V {
        if self.get(now, key).is_none() {
            self.remove(key);
            self.make_room();
        }
        let place = self.place(now, span);
        let (value, old) = self.entries.entry(key.clone()).or_insert_with(|| (make(), place));
        self.order.remove(old);
        *old = place;
        self.order.insert(place, key.clone());
        value
    }

    /// The value of a key that has not expired.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, now: Instant, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).filter(|(_, (until, _))| now < *until).map(|(value, _)| value)
    }

    /// The value of a key, to be changed; it expires when it would have expired anyway.
    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// Removes an entry.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (value, place) = self.entries.remove(key)?;
        self.order.remove(&place);
        Some(value)
    }

    /// How many entries there are, expired ones that were not removed yet included.
    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.entries.len(), self.order.len(), "each entry has one place");
        self.entries.len()
    }

    /// Makes room for one entry.
    fn make_room(&mut self) {
        while self.entries.len() >= self.entries_max.max(1)
            && let Some((_, key)) = self.order.pop_first()
        {
            self.entries.remove(&key);
        }
    }

    fn place(&mut self, now: Instant, span: Duration) -> Place {
        self.placed += 1;
        (now + span, self.placed)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        Instant::now()
    }

    #[test]
    fn an_entry_expires_unless_it_is_touched() {
        let start = start();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut map = Expiring::new(100);
        for (number, key) in ["a", "b", "c"].into_iter().enumerate() {
            *map.touch(at(number as u64), &key, SPAN, || 0) += 1;
        }
        *map.touch(at(5), &"a", SPAN, || 0) += 1;
        assert_eq!((map.get(at(5), "a"), map.get(at(5), "x")), (Some(&2), None));
        assert_eq!((map.expire(at(10)), map.deadline()), (vec![], Some(at(11))));
        assert_eq!((map.get(at(10), "b"), map.get(at(11), "b")), (Some(&1), None), "expired, though not removed");
        assert_eq!(map.expire(at(11)), [("b", 1)]);
        *map.get_mut("c").unwrap() = 7;
        assert_eq!(map.expire(at(100)), [("c", 7), ("a", 2)]);
        assert_eq!((map.len(), map.deadline()), (0, None));
    }

    #[test]
    fn an_expired_entry_is_made_anew_and_an_inserted_one_is_replaced() {
        let start = start();
        let mut map = Expiring::new(100);
        map.insert(start, "a", 1, SPAN);
        assert_eq!(*map.touch(start + SPAN, &"a", SPAN, || 5), 5, "the old value is gone");
        map.insert(start + SPAN, "a", 2, Duration::from_secs(1));
        assert_eq!((map.get(start + SPAN, "a"), map.len()), (Some(&2), 1));
        assert_eq!(
            map.deadline(),
            Some(start + SPAN + Duration::from_secs(1)),
            "its time counts from the second insert"
        );
        assert_eq!((map.remove("a"), map.remove("a"), map.len()), (Some(2), None, 0));
    }

    #[test]
    fn a_full_map_drops_the_entry_that_expires_next() {
        let start = start();
        let mut map = Expiring::new(2);
        map.insert(start, "long", 1, 3 * SPAN);
        map.insert(start, "short", 2, SPAN);
        *map.touch(start, &"short", SPAN, || 0) += 1;
        assert_eq!(map.len(), 2, "an entry that is there takes no further place");
        map.insert(start, "new", 3, 2 * SPAN);
        assert_eq!((map.get(start, "long"), map.get(start, "short"), map.len()), (Some(&1), None, 2));
    }

    #[test]
    fn a_smaller_map_drops_entries_when_one_is_added() {
        let start = start();
        let mut map = Expiring::new(3);
        for (seconds, key) in [(3, "c"), (1, "a"), (2, "b")] {
            map.insert(start, key, seconds, Duration::from_secs(seconds));
        }
        map.set_entries_max(2);
        assert_eq!(map.len(), 3);
        map.insert(start, "d", 4, Duration::from_secs(4));
        assert_eq!((map.len(), map.get(start, "c"), map.get(start, "d")), (2, Some(&3), Some(&4)));
    }

    #[test]
    fn another_span_counts_from_when_each_entry_was_added() {
        let start = start();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut map = Expiring::new(100);
        for seconds in 0..5 {
            map.insert(at(seconds), seconds, (), SPAN);
        }
        map.change_span(at(5), SPAN, Duration::from_secs(3));
        let expired: Vec<u64> = map.expire(at(5)).into_iter().map(|(key, ())| key).collect();
        assert_eq!((expired, map.deadline()), (vec![0, 1, 2], Some(at(6))));
        map.change_span(at(5), Duration::from_secs(3), 2 * SPAN);
        assert_eq!((map.expire(at(22)).len(), map.deadline()), (0, Some(at(23))));
        map.touch(at(22), &3, 2 * SPAN, || ());
        assert_eq!((map.expire(at(30)).len(), map.len(), map.deadline()), (1, 1, Some(at(42))));
    }

    #[test]
    fn many_threads_leave_exactly_what_they_did_not_remove() {
        const THREADS: usize = 100;
        const KEYS: usize = 100;
        let start = start();
        let (all, few) = (Mutex::new(Expiring::new(THREADS * KEYS)), Mutex::new(Expiring::new(1000)));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (all, few) = (&all, &few);
                scope.spawn(move || {
                    for key in 0..KEYS {
                        let key = thread * KEYS + key;
                        all.lock().insert(start, key, key, SPAN);
                        few.lock().insert(start, key, key, SPAN);
                        *all.lock().touch(start, &usize::MAX, SPAN, || 0) += 1;
                        if key.is_multiple_of(2) {
                            assert_eq!(all.lock().remove(&key), Some(key));
                        }
                    }
                });
            }
        });
        let (mut all, mut few) = (all.into_inner(), few.into_inner());
        assert_eq!((all.len(), few.len()), (THREADS * KEYS / 2 + 1, 1000));
        assert_eq!(all.remove(&usize::MAX), Some(THREADS * KEYS));
        assert_eq!((all.expire(start + SPAN).len(), few.expire(start + SPAN).len()), (THREADS * KEYS / 2, 1000));
        assert_eq!((all.len(), few.len(), all.deadline(), few.deadline()), (0, 0, None, None));
    }
}
