//! [`Lanes`]: which events may be stored at once. The events of one log are stored one after the other, and so are those of
//! one sender; all others at the same time.
//!
//! Items that keep their order among themselves share a lane: they go on at once, but not with what precedes or follows them.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Items that each have lanes. An item may go on when it is the first in all of them, or has only items before it with which
/// it shares them.
pub(super) struct Lanes<K, T> {
    next: u64,
    queues: HashMap<K, VecDeque<Entry>>,
    waiting: HashMap<u64, Waiting<T>>,
}

#[derive(Clone, Copy)]
struct Entry {
    number: u64,
    shares: bool,
}

struct Waiting<T> {
    /// The lanes in which it may not go on yet.
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
    /// Puts an item at the end of its lanes, each of which is named once. `shares`: it goes on together with others that do.
    /// Returns it if it may go on.
    pub(super) fn push(&mut self, keys: &[K], shares: bool, item: T) -> Option<Ready<T>> {
        let number = self.next;
        self.next += 1;
        let mut behind = 0;
        for key in keys {
            let lane = self.queues.entry(key.clone()).or_default();
            behind += usize::from(lane.iter().any(|before| !(shares && before.shares)));
            lane.push_back(Entry { number, shares });
        }
        if behind == 0 {
            return Some((number, item));
        }
        self.waiting.insert(number, Waiting { behind, item });
        None
    }

    /// An item that went on leaves one of its lanes. Returns those that may go on now, in their order.
    pub(super) fn leave(&mut self, number: u64, key: &K) -> Vec<Ready<T>> {
        let Some(lane) = self.queues.get_mut(key) else { return Vec::new() };
        let Some(at) = lane.iter().position(|entry| entry.number == number) else { return Vec::new() };
        if at >= going(lane) {
            return Vec::new();
        }
        let shared = lane.remove(at).is_some_and(|entry| entry.shares);
        let next: Vec<_> = match lane.front() {
            None => {
                self.queues.remove(key);
                return Vec::new();
            }
            // Those that share the lane went on together.
            Some(first) if shared && first.shares => Vec::new(),
            Some(_) => lane.iter().take(going(lane)).map(|entry| entry.number).collect(),
        };
        next.into_iter().filter_map(|number| self.go_on(number)).collect()
    }

    /// An item may go on in one more of its lanes. Returns it if that was the last one.
    fn go_on(&mut self, number: u64) -> Option<Ready<T>> {
        let waiting = self.waiting.get_mut(&number)?;
        waiting.behind -= 1;
        if waiting.behind > 0 {
            return None;
        }
        self.waiting.remove(&number).map(|waiting| (number, waiting.item))
    }
}

/// The number of items at the front of a lane that go on at once.
fn going(lane: &VecDeque<Entry>) -> usize {
    lane.iter().take_while(|entry| entry.shares).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_goes_on_when_it_is_the_first_in_all_of_its_lanes() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.push(&["alice", "log 1"], false, 'a'), Some((0, 'a')));
        assert_eq!(lanes.push(&["bob", "log 2"], false, 'b'), Some((1, 'b')));
        assert_eq!(lanes.push(&["alice", "log 2"], false, 'c'), None);
        assert_eq!(lanes.push(&["carol", "log 2", "log 3"], false, 'd'), None);
        assert_eq!(lanes.push(&["bob"], false, 'e'), None);
        assert_eq!(lanes.leave(0, &"log 1"), []);
        assert_eq!(lanes.leave(1, &"log 2"), [], "alice's first event is not delivered");
        assert_eq!(lanes.leave(0, &"alice"), [(2, 'c')]);
        assert_eq!(lanes.leave(1, &"bob"), [(4, 'e')]);
        assert_eq!(lanes.leave(2, &"log 2"), [(3, 'd')]);
        assert_eq!(lanes.leave(7, &"log 2"), [], "only what went on can leave");
        for (number, key) in [(3, "log 2"), (3, "log 3"), (3, "carol"), (2, "alice"), (4, "bob")] {
            assert_eq!(lanes.leave(number, &key), []);
        }
        assert!(lanes.queues.is_empty() && lanes.waiting.is_empty(), "nothing is left");
    }

    #[test]
    fn items_that_share_a_lane_go_on_together_and_nothing_overtakes_them() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.push(&["alice"], true, 'a'), Some((0, 'a')));
        assert_eq!(lanes.push(&["alice"], true, 'b'), Some((1, 'b')));
        assert_eq!(lanes.push(&["alice", "log"], false, 'c'), None);
        assert_eq!(lanes.push(&["alice"], true, 'd'), None, "it does not overtake what waits");
        assert_eq!(lanes.push(&["alice"], true, 'e'), None);
        assert_eq!(lanes.push(&["alice", "log"], false, 'f'), None);
        assert_eq!(lanes.leave(3, &"alice"), [], "it has not gone on");
        assert_eq!(lanes.leave(1, &"alice"), []);
        assert_eq!(lanes.leave(0, &"alice"), [(2, 'c')]);
        assert_eq!(lanes.leave(2, &"log"), []);
        assert_eq!(lanes.leave(2, &"alice"), [(3, 'd'), (4, 'e')]);
        assert_eq!(lanes.leave(3, &"alice"), []);
        assert_eq!(lanes.leave(4, &"alice"), [(5, 'f')]);
        assert_eq!((lanes.leave(5, &"alice"), lanes.leave(5, &"log")), (vec![], vec![]));
        assert!(lanes.queues.is_empty() && lanes.waiting.is_empty(), "nothing is left");
    }
}
