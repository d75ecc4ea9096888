//! [`CommitQueue`]: the events that wait for the disk, in the order in which they came.
//!
//! What waits is counted from its arrival to its end, so an event that is being written counts too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::Uncommitted;
use crate::config::History;

/// The queue of the events that wait for the disk. A clone is the same queue.
#[derive(Clone, Default)]
pub struct CommitQueue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be done.
    arrived: Condvar,
    /// The same, for a task.
    notify: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Box<Uncommitted>>,
    /// The thread that commits has to look at something else.
    is_woken: bool,
    has_ended: bool,
}

impl CommitQueue {
    /// Takes the next event. Waits for it: for the thread that writes only.
    ///
    /// # Errors
    /// None came in time, or something else is to be done, or none will come.
    pub fn receive(&self, timeout: Duration) -> Result<Uncommitted, RecvTimeoutError> {
        let mut state = self.0.state.lock();
        if !timeout.is_zero() && state.has_nothing_to_do() {
            self.0.arrived.wait_for(&mut state, timeout);
        }
        match state.waiting.pop_front() {
            Some(event) => Ok(*event),
            None if state.has_ended => Err(RecvTimeoutError::Disconnected),
            None => {
                state.is_woken = false;
                Err(RecvTimeoutError::Timeout)
            }
        }
    }

    /// Puts an event at the end.
    ///
    /// # Errors
    /// The broker ends. The event is returned.
    pub(super) fn send(&self, event: Box<Uncommitted>) -> Result<(), Box<Uncommitted>> {
        let mut state = self.0.state.lock();
        if state.has_ended {
            return Err(event);
        }
        state.waiting.push_back(event);
        drop(state);
        self.notify();
        Ok(())
    }

    /// Puts an event at the end that another queue had.
    ///
    /// # Errors
    /// No more events are taken in. The event is returned.
    pub fn pass_on(&self, event: Uncommitted) -> Result<(), Box<Uncommitted>> {
        self.send(Box::new(event))
    }

    /// Lets the thread that waits for events do something else.
    pub(super) fn wake(&self) {
        self.0.state.lock().is_woken = true;
        self.notify();
    }

    /// Takes no more events in. Returns those that wait. For the end of the thread that writes.
    pub fn close(&self) -> impl Iterator<Item = Uncommitted> + use<> {
        let mut state = self.0.state.lock();
        state.has_ended = true;
        std::mem::take(&mut state.waiting).into_iter().map(|event| *event)
    }

    /// Takes no more events in. Those that wait are still taken out.
    pub(super) fn end(&self) {
        self.0.state.lock().has_ended = true;
        self.notify();
    }

    fn notify(&self) {
        self.0.arrived.notify_one();
        self.0.notify.notify_one();
    }

    /// Told when an event has arrived, or something else is to be done: for a task that then receives without waiting.
    pub fn arrived(&self) -> &Notify {
        &self.0.notify
    }
}

impl State {
    fn has_nothing_to_do(&self) -> bool {
        self.waiting.is_empty() && !self.is_woken && !self.has_ended
    }
}

/// How much waits for the disk: events, and the bytes of their texts.
#[derive(Default)]
pub(super) struct Waiting {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

/// The place of an event among those that wait. It is free again when this is dropped.
pub(super) struct Place {
    waiting: Arc<Waiting>,
    bytes: usize,
}

impl Waiting {
    /// How many events wait.
    pub(super) fn events(&self) -> usize {
        self.events.load(Ordering::Relaxed)
    }

    /// Takes a place for an event with a text of this length. `None`: there is no room. A text that alone is too long fits if
    /// nothing else waits, because otherwise it could never be written.
    pub(super) fn place(self: &Arc<Self>, bytes: usize, limits: &History) -> Option<Place> {
        let one_more = |events| (events < limits.waiting).then_some(events + 1);
        let more_bytes = |before| (before == 0 || before + bytes <= limits.waiting_bytes).then_some(before + bytes);
        self.events.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        if self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more_bytes).is_err() {
            self.events.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place { waiting: Arc::clone(self), bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.events.fetch_sub(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn limits(waiting: usize, waiting_bytes: usize) -> History {
        History { waiting, waiting_bytes, ..History::default() }
    }

    #[test]
    fn places_are_bounded_by_events_and_by_bytes() {
        let waiting = Arc::<Waiting>::default();
        let limits = limits(3, 100);
        let alone = waiting.place(200, &limits);
        assert!(alone.is_some(), "a long text fits if nothing else waits");
        assert!(waiting.place(1, &limits).is_none());
        drop(alone);
        let mut places: Vec<_> = (0..2).map(|_| waiting.place(50, &limits).unwrap()).collect();
        assert!(waiting.place(1, &limits).is_none(), "the bytes are used up");
        places.pop();
        places.extend(waiting.place(1, &limits));
        places.extend(waiting.place(1, &limits));
        assert_eq!(places.len(), 3);
        assert!(waiting.place(1, &limits).is_none(), "the events are used up");
    }

    #[test]
    fn many_threads_take_exactly_the_places_that_there_are() {
        const THREADS: usize = 8;
        const PLACES: usize = 5000;
        let (waiting, limits) = (Arc::<Waiting>::default(), limits(PLACES, usize::MAX / 2));
        let take = || (0..PLACES).filter_map(|number| waiting.place(number % 7, &limits)).collect::<Vec<_>>();
        let taken: Vec<Place> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.len(), PLACES);
        assert_eq!(waiting.bytes.load(Ordering::Relaxed), taken.iter().map(|place| place.bytes).sum::<usize>());
        drop(taken);
        assert_eq!((waiting.events.load(Ordering::Relaxed), waiting.bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
