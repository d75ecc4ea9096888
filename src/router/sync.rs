//! [`Mutex`]: the lock of sessions, their outboxes and their requests.
//!
//! It is the one of `parking_lot`. In unit tests shuttle can decide at each of these locks which thread goes on, so that
//! `races` and `connection/races.rs` try orders in which threads of the system would hardly ever take them. A thread of shuttle
//! may be stopped at such a lock while it holds others. So every lock under which one of these is taken is itself one of
//! these, except those of history and retained values, which no race takes on two threads.

#[cfg(not(test))]
pub(super) use parking_lot::Mutex;
#[cfg(test)]
pub(super) use tests::Mutex;
#[cfg(test)]
pub(crate) use tests::race;
#[cfg(test)]
pub(super) use tests::start;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Instant;

    use parking_lot::MutexGuard;
    use shuttle::scheduler::RandomScheduler;
    use shuttle::sync::atomic::{AtomicBool, Ordering};
    use shuttle::{Config, Runner};

    thread_local! {
        static IS_SCHEDULED: Cell<bool> = const { Cell::new(false) };
    }

    /// The schedules that are tried of each race.
    const SCHEDULES: usize = 500;

    /// Runs a race in many schedules, always the same ones.
    pub(crate) fn race(run: impl Fn() + Send + Sync + 'static) {
        let mut config = Config::new();
        // The frames of the router's functions are larger than shuttle expects.
        config.stack_size = 1 << 20;
        IS_SCHEDULED.set(true);
        let _reset = Reset;
        Runner::new(RandomScheduler::new_from_seed(1, SCHEDULES), config).run(run);
    }

    /// The moment at which everything in a race happens.
    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter")]
    pub(in crate::router) fn start() -> Instant {
        Instant::now()
    }

    struct Reset;

    impl Drop for Reset {
        fn drop(&mut self) {
            IS_SCHEDULED.set(false);
        }
    }

    #[derive(Default)]
    pub(in crate::router) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::router) fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        pub(in crate::router) fn lock(&self) -> MutexGuard<'_, T> {
            if !IS_SCHEDULED.get() {
                return self.0.lock();
            }
            loop {
                let_another_go_on();
                if let Some(guard) = self.0.try_lock() {
                    return guard;
                }
            }
        }
    }

    /// Any access to an atomic of shuttle's. Its `yield_now` would also wake the task of this thread, and so hide that nobody
    /// else wakes it.
    fn let_another_go_on() {
        AtomicBool::new(false).load(Ordering::SeqCst);
    }
}
