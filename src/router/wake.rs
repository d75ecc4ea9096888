//! [`WakeBatch`]: wake-ups that wait until a burst of messages is over.

use std::cell::RefCell;
use std::mem;
use std::task::Waker;

/// The tasks to wake at the end of a batch that this thread collects.
#[derive(Default)]
struct Pending {
    active: bool,
    wakers: Vec<Waker>,
}

thread_local! {
    static PENDING: RefCell<Pending> = const { RefCell::new(Pending { active: false, wakers: Vec::new() }) };
}

/// Delays the wake-ups of this thread's pushes until it is dropped, which must be before the next wait.
///
/// For a burst of messages that are routed one after the other. Without it, a second thread writes the first message while
/// this one pushes the second, and one queue takes many small writes (37 deliveries a call in place of 64).
pub struct WakeBatch(());

impl WakeBatch {
    /// Begins a batch on this thread.
    #[must_use]
    pub fn begin() -> Self {
        PENDING.with_borrow_mut(|pending| pending.active = true);
        Self(())
    }

    /// Begins a batch that also has these wake-ups.
    #[must_use]
    pub fn resume(mut held: HeldWakes) -> Self {
        PENDING.with_borrow_mut(|pending| mem::swap(&mut pending.wakers, &mut held.0));
        Self::begin()
    }

    /// Ends the batch without waking anything.
    #[must_use]
    pub fn hold(self) -> HeldWakes {
        HeldWakes(PENDING.take().wakers)
    }
}

impl Drop for WakeBatch {
    fn drop(&mut self) {
        let Pending { mut wakers, .. } = PENDING.take();
        wakers.drain(..).for_each(Waker::wake);
        // Keep the allocation for the next batch.
        PENDING.with_borrow_mut(|pending| pending.wakers = wakers);
    }
}

/// The wake-ups of a batch that goes on later, perhaps on another thread. All tasks are woken when it is dropped.
pub struct HeldWakes(Vec<Waker>);

impl Drop for HeldWakes {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

/// Wakes a task now, or at the end of the batch that this thread collects.
pub(super) fn wake(waker: Waker) {
    let now = PENDING.with_borrow_mut(|pending| {
        if pending.active {
            pending.wakers.push(waker);
            return None;
        }
        Some(waker)
    });
    now.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Counter {
        fn push(self: &Arc<Self>) {
            wake(Waker::from(Arc::clone(self)));
        }

        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_batch_that_is_held_wakes_at_its_end() {
        let counter = Arc::<Counter>::default();
        let batch = WakeBatch::begin();
        counter.push();
        let held = batch.hold();
        assert_eq!(counter.woken(), 0);
        // Meanwhile other tasks of the thread wake at once, or in batches of their own.
        let other = Arc::<Counter>::default();
        other.push();
        assert_eq!(other.woken(), 1);
        let others = WakeBatch::begin();
        other.push();
        drop(others);
        assert_eq!((other.woken(), counter.woken()), (2, 0));
        let batch = WakeBatch::resume(held);
        counter.push();
        assert_eq!(counter.woken(), 0);
        drop(batch);
        assert_eq!(counter.woken(), 2);
    }

    #[test]
    fn a_batch_that_is_dropped_wakes_whether_it_is_held_or_panics() {
        let counter = Arc::<Counter>::default();
        let batch = WakeBatch::begin();
        counter.push();
        drop(batch.hold());
        assert_eq!(counter.woken(), 1);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _batch = WakeBatch::begin();
            counter.push();
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        counter.push();
        assert_eq!(counter.woken(), 3);
    }
}
