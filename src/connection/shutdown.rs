//! [`Shutdown`]: the two signals of a drain that every connection waits for.
//!
//! A connection's task is polled for each message, and what it waits for with it. tokio's notifiers take a lock in each
//! of these polls, the same one for all tasks; here a task takes it once, and from then on reads a number.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use crate::router::{SPREAD_MAX, step};

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The broker serves.
    Serving,
    /// The broker drains: sessions are told, and still served.
    Draining,
    /// Sessions are closed.
    Closing,
}

/// Tells all connections of a broker how far its drain is.
pub struct Shutdown {
    stage: AtomicU8,
    /// Microseconds between the returns of two sessions.
    step_us: AtomicU64,
    /// How many sessions have been told when to return.
    told: AtomicU64,
    /// Sessions are closed one after the other, because other nodes take them over.
    one_by_one: AtomicBool,
    notify: Notify,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            stage: AtomicU8::new(Stage::Serving as u8),
            step_us: AtomicU64::new(0),
            told: AtomicU64::new(0),
            one_by_one: AtomicBool::new(false),
            notify: Notify::new(),
        }
    }
}

impl Shutdown {
    /// Begins the drain of this many sessions.
    pub fn drain(&self, sessions: usize) {
        let step = step(sessions);
        self.step_us.store(u64::try_from(step.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.enter(Stage::Draining);
    }

    /// Begins the drain of this many sessions, which other nodes take over: each is closed at its time, and returns at once.
    pub fn drain_one_by_one(&self, sessions: usize) {
        self.one_by_one.store(true, Ordering::SeqCst);
        self.drain(sessions);
    }

    /// Whether each session is closed when it should return, not all of them together.
    pub fn is_one_by_one(&self) -> bool {
        self.one_by_one.load(Ordering::SeqCst)
    }

    /// Closes all sessions.
    pub fn close(&self) {
        self.enter(Stage::Closing);
    }

    fn enter(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    /// How far the drain is.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            serving if serving == Stage::Serving as u8 => Stage::Serving,
            draining if draining == Stage::Draining as u8 => Stage::Draining,
            _ => Stage::Closing,
        }
    }

    /// When the next session that asks should return. The times are spread evenly over all sessions.
    pub fn reconnect_after(&self) -> Duration {
        let place = self.told.fetch_add(1, Ordering::SeqCst);
        Duration::from_micros(self.step_us.load(Ordering::SeqCst).saturating_mul(place)).min(SPREAD_MAX)
    }

    /// Waits until the drain has reached this phase.
    pub async fn reached(&self, stage: Stage) {
        let mut notified = pin!(self.notify.notified());
        // The task that the notifier wakes, and the stage at that time. As long as both are the same, there is no need to
        // register again.
        let mut registered: Option<(Waker, u8)> = None;
        poll_fn(|cx| {
            let mut now = self.stage.load(Ordering::SeqCst);
            let is_registered =
                registered.as_ref().is_some_and(|(waker, then)| *then == now && waker.will_wake(cx.waker()));
            if is_registered {
                return Poll::Pending;
            }
            while now < stage as u8 {
                if notified.as_mut().poll(cx).is_pending() {
                    registered = Some((cx.waker().clone(), now));
                    now = self.stage.load(Ordering::SeqCst);
                    if now == registered.as_ref().map_or(now, |(_, then)| *then) {
                        return Poll::Pending;
                    }
                } else {
                    // An earlier stage was entered.
                    notified.set(self.notify.notified());
                    now = self.stage.load(Ordering::SeqCst);
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::router::spread;

    /// One session more changes the times by less.
    const SPREAD_STEP_MAX: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn waiting_tasks_and_later_ones_learn_of_a_stage() {
        let shutdown = Arc::new(Shutdown::default());
        let waiting: Vec<_> = [Stage::Draining, Stage::Closing, Stage::Closing]
            .into_iter()
            .map(|stage| {
                let shutdown = Arc::clone(&shutdown);
                tokio_util::task::TaskTracker::new().spawn(async move { shutdown.reached(stage).await })
            })
            .collect();
        tokio::task::yield_now().await;
        shutdown.drain(3);
        shutdown.reached(Stage::Draining).await;
        tokio::task::yield_now().await;
        assert!(!waiting[1].is_finished());
        shutdown.close();
        for task in waiting {
            task.await.unwrap();
        }
        shutdown.reached(Stage::Closing).await;
    }

    #[tokio::test]
    async fn another_task_may_go_on_waiting() {
        let shutdown = Shutdown::default();
        let mut reached = pin!(shutdown.reached(Stage::Draining));
        assert!(reached.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())).is_pending());
        let drain = async {
            tokio::task::yield_now().await;
            shutdown.drain(1);
        };
        tokio::join!(reached, drain);
    }

    #[test]
    fn the_returns_are_spread_evenly() {
        for (sessions, last) in [(1, 0), (2, 100), (100, 198), (1_000, 999), (100_000, 29_999)] {
            let shutdown = Shutdown::default();
            shutdown.drain(sessions);
            let times: Vec<Duration> = (0..sessions).map(|_| shutdown.reconnect_after()).collect();
            assert!(times.is_sorted() && times[0].is_zero(), "{sessions} sessions");
            assert_eq!(times[sessions - 1].as_millis(), last, "{sessions} sessions");
            let alike = spread(sessions).iter().zip(&times).all(|(one, other)| one.abs_diff(*other) < SPREAD_STEP_MAX);
            assert!(alike, "{sessions} sessions");
        }
    }
}
