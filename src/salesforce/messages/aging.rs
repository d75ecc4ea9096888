//! [`Aging`]: a map whose entries end when nobody has touched them for a while. No clock of its own: `now` comes in.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Values by key, each until its time is over.
pub(super) struct Aging<K, V> {
    span: Duration,
    entries: HashMap<K, (V, Place)>,
    /// The keys, the one whose time is over first in front.
    order: BTreeMap<Place, K>,
    made: u64,
}

/// When an entry ends, and a number that tells those of one moment apart.
type Place = (Instant, u64);

impl<K: Clone + Eq + Hash, V> Aging<K, V> {
    /// An empty map, whose entries live for `span`.
    pub(super) fn new(span: Duration) -> Self {
        Self { span, entries: HashMap::new(), order: BTreeMap::new(), made: 0 }
    }

    /// Takes out what is over.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(K, V)> {
        let mut over = Vec::new();
        while let Some((_, key)) = self.order.first_key_value().filter(|((until, _), _)| *until <= now) {
            let key = key.clone();
            over.extend(self.remove(&key).map(|value| (key, value)));
        }
        over
    }

    /// The value of a key, whose time begins anew; made where there is none.
    pub(super) fn touch(&mut self, now: Instant, key: &K, make: impl FnOnce() -> V) -> &mut V {
        self.made += 1;
        let place = (now + self.span, self.made);
        let (value, old) = self.entries.entry(key.clone()).or_insert_with(|| (make(), place));
        self.order.remove(old);
        *old = place;
        self.order.insert(place, key.clone());
        value
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// The value of a key, to be changed without giving it more time.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (value, place) = self.entries.remove(key)?;
        self.order.remove(&place);
        Some(value)
    }

    /// Takes out the oldest entries until no more than `most` are left.
    pub(super) fn shrink(&mut self, most: usize) {
        while self.entries.len() > most
            && let Some((_, key)) = self.order.pop_first()
        {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_when_nobody_touches_them_and_the_oldest_go_first() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut aging = Aging::new(Duration::from_secs(10));
        for (number, key) in ["a", "b", "c"].into_iter().enumerate() {
            *aging.touch(at(number as u64), &key, || 0) += 1;
        }
        *aging.touch(at(5), &"a", || 0) += 1;
        assert_eq!((aging.get(&"a"), aging.get(&"x")), (Some(&2), None));
        assert_eq!(aging.expire(at(10)), []);
        assert_eq!(aging.expire(at(11)), [("b", 1)]);
        *aging.get_mut(&"c").unwrap() = 7;
        aging.shrink(1);
        assert_eq!((aging.get(&"c"), aging.get(&"a")), (None, Some(&2)));
        assert_eq!(aging.remove(&"a"), Some(2));
        assert!(aging.expire(at(100)).is_empty() && aging.order.is_empty());
    }
}
