//! [`Cache`]: answers that were found, for a bounded time. What has run out is zeroised even if nobody asks again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::credentials::Credentials;

/// Answers that are kept; beyond, none is added until some have run out.
const ENTRIES_MAX: usize = 10_000;

/// Answers and until when they hold.
pub(super) struct Cache {
    span: Duration,
    entries: Arc<Mutex<Entries>>,
    /// The task that forgets what has run out; it ends when nothing is left.
    tasks: TaskTracker,
    stop: CancellationToken,
    _guard: DropGuard,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<String, (Instant, Credentials)>,
    swept: bool,
}

impl Cache {
    /// An empty one; with no time it stays so.
    pub(super) fn new(span: Duration) -> Self {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        Self { span, entries: Arc::default(), tasks: TaskTracker::new(), stop, _guard: guard }
    }

    /// What was found for a key not too long ago.
    pub(super) fn find(&self, now: Instant, key: &str) -> Option<Credentials> {
        let entries = self.entries.lock();
        entries.by_key.get(key).filter(|(until, _)| now < *until).map(|(_, credentials)| credentials.clone())
    }

    /// Keeps what was found. To be called within a tokio runtime.
    pub(super) fn keep(&self, now: Instant, key: String, credentials: &Credentials) {
        if self.span.is_zero() {
            return;
        }
        let mut entries = self.entries.lock();
        if entries.by_key.len() < ENTRIES_MAX {
            entries.by_key.insert(key, (now + self.span, credentials.clone()));
            if !std::mem::replace(&mut entries.swept, true) {
                self.tasks.spawn(sweep(Arc::clone(&self.entries), self.stop.clone()));
            }
        }
    }
}

async fn sweep(entries: Arc<Mutex<Entries>>, stop: CancellationToken) {
    loop {
        let next = {
            let mut entries = entries.lock();
            let now = Instant::now();
            entries.by_key.retain(|_, (until, _)| now < *until);
            let next = entries.by_key.values().map(|(until, _)| *until).min();
            entries.swept = next.is_some();
            next
        };
        let Some(next) = next else { return };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(next) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_has_run_out_is_forgotten_though_nobody_asks() {
        let password = SecretString::from("pw");
        let found = Credentials { username: "1".to_owned(), password, extension: "2".to_owned(), adfs_username: None };
        let cache = Cache::new(Duration::from_mins(1));
        for round in 0..2 {
            cache.keep(Instant::now(), "a".to_owned(), &found);
            sleep_until(Instant::now() + Duration::from_secs(59)).await;
            assert!(cache.find(Instant::now(), "a").is_some(), "{round}");
            assert!(cache.find(Instant::now(), "A").is_none());
            sleep_until(Instant::now() + Duration::from_secs(2)).await;
            assert!(cache.entries.lock().by_key.is_empty(), "{round}");
        }
        let none = Cache::new(Duration::ZERO);
        none.keep(Instant::now(), "a".to_owned(), &found);
        assert!(none.entries.lock().by_key.is_empty());
    }
}
