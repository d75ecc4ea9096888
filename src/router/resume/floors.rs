//! [`Floors`]: which events of logs a session has that has moved, because its old node gave them to it.
//!
//! The new node may not be as far in a log as the old one was, and then it must not give them again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::router::history::{InLog, Position};
use crate::router::sync::Mutex;

/// The last event of each log that a session was given by its old node.
#[derive(Default)]
pub(in crate::router) struct Floors {
    /// Whether anything else has to be looked at.
    any: AtomicBool,
    by_log: Mutex<BTreeMap<Box<str>, Position>>,
}

impl Floors {
    /// Whether there are any.
    pub(in crate::router) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The session has the events of a log up to this one.
    pub(in crate::router) fn raise(&self, log: &str, position: &Position) {
        let mut by_log = self.by_log.lock();
        match by_log.get_mut(log) {
            Some(floor) if floor.epoch == position.epoch => floor.offset = floor.offset.max(position.offset),
            Some(floor) => *floor = position.clone(),
            None => {
                by_log.insert(Box::from(log), position.clone());
            }
        }
        self.any.store(true, Ordering::Release);
    }

    /// Whether the session has an event. If not, it gets all that follow it from this node.
    pub(in crate::router) fn has(&self, place: InLog<'_>) -> bool {
        let mut by_log = self.by_log.lock();
        let Some(floor) = by_log.get(place.log).filter(|floor| floor.epoch == place.position.epoch) else {
            return false;
        };
        let has = place.position.offset <= floor.offset;
        if !has {
            by_log.remove(place.log);
            self.any.store(!by_log.is_empty(), Ordering::Release);
        }
        has
    }

    /// Where the session is in a log of which this node has given events up to `cursor`.
    pub(in crate::router) fn beyond(&self, log: &str, cursor: Option<Position>) -> Option<Position> {
        let by_log = self.by_log.lock();
        match (by_log.get(log), cursor) {
            (Some(floor), Some(cursor)) if floor.epoch == cursor.epoch => {
                Some(Position { offset: floor.offset.max(cursor.offset), epoch: Arc::clone(&cursor.epoch) })
            }
            (_, Some(cursor)) => Some(cursor),
            (floor, None) => floor.cloned(),
        }
    }

    /// Forgets the logs in which this node is no longer behind. `cursor`: where it is in one, which is called without a lock.
    pub(in crate::router) fn forget_reached(&self, cursor: impl Fn(&str) -> Option<Position>) {
        let logs: Vec<Box<str>> = self.by_log.lock().keys().cloned().collect();
        for log in logs {
            let Some(cursor) = cursor(&log) else { continue };
            let mut by_log = self.by_log.lock();
            let is_reached = |floor: &Position| floor.epoch == cursor.epoch && floor.offset <= cursor.offset;
            if by_log.get(&log).is_some_and(is_reached) {
                by_log.remove(&log);
            }
            self.any.store(!by_log.is_empty(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: &str, offset: u64) -> Position {
        Position { offset, epoch: epoch.into() }
    }

    #[test]
    fn events_up_to_the_floor_of_their_log_are_known() {
        let floors = Floors::default();
        let has = |position: &Position| floors.has(InLog { log: "Phone/alice", position });
        assert!(!floors.any() && !has(&at("e", 1)));
        floors.raise("Phone/alice", &at("e", 7));
        floors.raise("Phone/alice", &at("e", 5));
        assert!(has(&at("e", 7)) && !has(&at("other", 7)) && floors.any());
        assert_eq!(floors.beyond("Phone/alice", Some(at("e", 3))), Some(at("e", 7)));
        assert_eq!(floors.beyond("Phone/alice", Some(at("new", 3))), Some(at("new", 3)));
        floors.forget_reached(|_| Some(at("e", 6)));
        assert!(floors.any());
        assert!(!has(&at("e", 8)) && !floors.any(), "what follows is given by this node alone");
        floors.raise("Phone/alice", &at("e", 7));
        floors.forget_reached(|_| Some(at("e", 7)));
        assert!(!floors.any());
    }
}
