//! [`Signal`]: something that happens once, and that every connection waits for.
//!
//! A session's task is polled for each message, and what it waits for with it. tokio's notifiers take a lock in each of
//! these polls, the same one for all tasks; here a task takes it once, and from then on reads a flag.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use tokio::sync::Notify;

/// Raised once, for all.
pub(super) struct Signal {
    raised: AtomicBool,
    notify: Notify,
}

impl Signal {
    pub(super) fn new() -> Self {
        Self { raised: AtomicBool::new(false), notify: Notify::new() }
    }

    /// From now on, and for all who wait already.
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    /// Waits until it is raised.
    pub(super) async fn raised(&self) {
        let mut notified = pin!(self.notify.notified());
        // Who is woken by the notifier. As long as it is the same task, there is nothing to be told anew.
        let mut registered: Option<Waker> = None;
        poll_fn(|cx| {
            let known = registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if !known {
                registered = Some(cx.waker().clone());
                if notified.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            if self.raised.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_waits_and_who_comes_later_hear_of_it() {
        let signal = Arc::new(Signal::new());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let signal = Arc::clone(&signal);
                tokio_util::task::TaskTracker::new().spawn(async move { signal.raised().await })
            })
            .collect();
        tokio::task::yield_now().await;
        signal.raise();
        for task in waiting {
            task.await.unwrap();
        }
        signal.raised().await;
    }

    #[tokio::test]
    async fn another_task_may_go_on_waiting() {
        let signal = Signal::new();
        let mut raised = pin!(signal.raised());
        assert!(raised.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())).is_pending());
        let raise = async {
            tokio::task::yield_now().await;
            signal.raise();
        };
        tokio::join!(raised, raise);
    }
}
