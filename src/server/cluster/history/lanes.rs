//! [`Lanes`]: which events may be stored at once. The events of one log are stored one after the other, and so are those of
//! one sender; all others at the same time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Items that each have lanes. An item may go on when it is the first in all of them.
pub(super) struct Lanes<K, T> {
    next: u64,
    queues: HashMap<K, VecDeque<u64>>,
    waiting: HashMap<u64, Waiting<T>>,
}

struct Waiting<T> {
    /// The lanes in which another one is first.
    behind: usize,
    item: T,
}

/// An item that may go on, and its number.
pub(super) type Ready<T> = (u64, T);

impl<K, T> Default for Lanes<K, T> {
    fn default() -> Self {
        Self { next: 0, queues: HashMap::new(), waiting: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone, T> Lanes<K, T> {
    /// Puts an item at the end of its lanes, each of which is named once. Returns it if it may go on.
    pub(super) fn push(&mut self, keys: &[K], item: T) -> Option<Ready<T>> {
        let number = self.next;
        self.next += 1;
        let mut behind = 0;
        for key in keys {
            let lane = self.queues.entry(key.clone()).or_default();
            behind += usize::from(!lane.is_empty());
            lane.push_back(number);
        }
        if behind == 0 {
            return Some((number, item));
        }
        self.waiting.insert(number, Waiting { behind, item });
        None
    }

    /// An item that went on leaves one of its lanes. Returns the next one, if it may go on.
    pub(super) fn leave(&mut self, number: u64, key: &K) -> Option<Ready<T>> {
        let lane = self.queues.get_mut(key)?;
        if lane.front() != Some(&number) {
            return None;
        }
        lane.pop_front();
        let Some(next) = lane.front().copied() else {
            self.queues.remove(key);
            return None;
        };
        let waiting = self.waiting.get_mut(&next)?;
        waiting.behind -= 1;
        if waiting.behind > 0 {
            return None;
        }
        self.waiting.remove(&next).map(|waiting| (next, waiting.item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_goes_on_when_it_is_the_first_in_all_of_its_lanes() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.push(&["alice", "log 1"], 'a'), Some((0, 'a')));
        assert_eq!(lanes.push(&["bob", "log 2"], 'b'), Some((1, 'b')));
        assert_eq!(lanes.push(&["alice", "log 2"], 'c'), None);
        assert_eq!(lanes.push(&["carol", "log 2", "log 3"], 'd'), None);
        assert_eq!(lanes.push(&["bob"], 'e'), None);
        assert_eq!(lanes.leave(0, &"log 1"), None);
        assert_eq!(lanes.leave(1, &"log 2"), None, "alice's first event is not delivered");
        assert_eq!(lanes.leave(0, &"alice"), Some((2, 'c')));
        assert_eq!(lanes.leave(1, &"bob"), Some((4, 'e')));
        assert_eq!(lanes.leave(2, &"log 2"), Some((3, 'd')));
        assert_eq!(lanes.leave(7, &"log 2"), None, "only the first one can leave");
        for (number, key) in [(3, "log 2"), (3, "log 3"), (3, "carol"), (2, "alice"), (4, "bob")] {
            assert_eq!(lanes.leave(number, &key), None);
        }
        assert!(lanes.queues.is_empty() && lanes.waiting.is_empty(), "nothing is left");
    }
}
