//! [`Cache`]: credentials that were found, for a limited time. Expired ones are erased even if nobody asks for them again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::credentials::Credentials;
use crate::expiring::Expiring;

/// The most credentials that are kept.
const ENTRIES_MAX: usize = 10_000;

/// Grows when the rows in the org have changed. Credentials that were read before must not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Age(u64);

/// Credentials by key.
pub(super) struct Cache {
    span: Duration,
    entries: Arc<Mutex<Entries>>,
    /// The task that erases expired entries. It ends when there are none left.
    tasks: TaskTracker,
    stop: CancellationToken,
    _guard: DropGuard,
}

struct Entries {
    by_key: Expiring<String, Credentials>,
    /// How often they were all forgotten.
    age: Age,
    /// Whether the task runs.
    swept: bool,
}

impl Cache {
    /// An empty cache whose entries expire after `span`. If that is zero, it stays empty.
    pub(super) fn new(span: Duration) -> Self {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let entries =
            Arc::new(Mutex::new(Entries { by_key: Expiring::new(ENTRIES_MAX), age: Age::default(), swept: false }));
        Self { span, entries, tasks: TaskTracker::new(), stop, _guard: guard }
    }

    /// The credentials of a key, unless they have expired.
    pub(super) fn find(&self, now: Instant, key: &str) -> Option<Credentials> {
        self.entries.lock().by_key.get(now.into_std(), key).cloned()
    }

    /// The present age, for [`Self::keep`].
    pub(super) fn age(&self) -> Age {
        self.entries.lock().age
    }

    /// Forgets everything, because rows have changed in the org.
    pub(super) fn clear(&self) {
        let old = {
            let mut entries = self.entries.lock();
            entries.age.0 += 1;
            std::mem::replace(&mut entries.by_key, Expiring::new(ENTRIES_MAX))
        };
        // Without the lock: it takes a while to erase many.
        drop(old);
    }

    /// Keeps credentials, unless rows have changed since `read_at`, when they were asked for. Must be called within a
    /// tokio runtime.
    pub(super) fn keep(&self, now: Instant, read_at: Age, key: String, credentials: &Credentials) {
        if self.span.is_zero() {
            return;
        }
        let mut entries = self.entries.lock();
        if entries.age != read_at {
            return;
        }
        entries.by_key.insert(now.into_std(), key, credentials.clone(), self.span);
        if !std::mem::replace(&mut entries.swept, true) {
            self.tasks.spawn(sweep(Arc::clone(&self.entries), self.stop.clone()));
        }
    }
}

async fn sweep(entries: Arc<Mutex<Entries>>, stop: CancellationToken) {
    loop {
        let next = {
            let mut entries = entries.lock();
            entries.by_key.expire(Instant::now().into_std());
            let next = entries.by_key.deadline();
            entries.swept = next.is_some();
            next
        };
        let Some(next) = next else { return };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(next.into()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use secrecy::SecretString;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_has_run_out_is_forgotten_though_nobody_asks() {
        let password = SecretString::from("pw");
        let found = Credentials { username: "1".to_owned(), password, extension: "2".to_owned(), adfs_username: None };
        let cache = Cache::new(Duration::from_mins(1));
        for round in 0..2 {
            cache.keep(Instant::now(), cache.age(), "a".to_owned(), &found);
            sleep_until(Instant::now() + Duration::from_secs(59)).await;
            assert!(cache.find(Instant::now(), "a").is_some(), "{round}");
            assert!(cache.find(Instant::now(), "A").is_none());
            sleep_until(Instant::now() + Duration::from_secs(2)).await;
            assert_eq!(cache.entries.lock().by_key.len(), 0, "{round}");
        }
        let none = Cache::new(Duration::ZERO);
        none.keep(Instant::now(), none.age(), "a".to_owned(), &found);
        assert_eq!(none.entries.lock().by_key.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_before_a_change_is_forgotten_and_not_kept_afterwards() {
        let password = SecretString::from("pw");
        let found = Credentials { username: "1".to_owned(), password, extension: "2".to_owned(), adfs_username: None };
        let cache = Cache::new(Duration::from_mins(1));
        let before = cache.age();
        cache.keep(Instant::now(), before, "a".to_owned(), &found);
        cache.clear();
        assert!(cache.find(Instant::now(), "a").is_none());
        // A fetch that began before the change ends after it.
        cache.keep(Instant::now(), before, "a".to_owned(), &found);
        assert!(cache.find(Instant::now(), "a").is_none());
        cache.keep(Instant::now(), cache.age(), "a".to_owned(), &found);
        assert!(cache.find(Instant::now(), "a").is_some());
    }

    /// Each thread reads an org that others change. What was read before a change is not found after it.
    #[tokio::test]
    async fn many_threads_never_find_what_was_read_before_a_change_that_is_over() {
        const THREADS: u64 = 4;
        const CHANGES: u64 = 500;
        let (cache, record, known) = (Cache::new(Duration::from_mins(1)), AtomicU64::new(0), AtomicU64::new(0));
        let (cache_ref, record_ref, known_ref) = (&cache, &record, &known);
        let runtime = tokio::runtime::Handle::current();
        let read = |credentials: &Credentials| credentials.username.parse::<u64>().unwrap();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                let runtime = runtime.clone();
                scope.spawn(move || {
                    let _entered = runtime.enter();
                    for _ in 0..CHANGES {
                        let read_at = cache_ref.age();
                        let username = record_ref.load(Ordering::SeqCst).to_string();
                        let (password, extension) = (SecretString::from("pw"), String::new());
                        let found = Credentials { username, password, extension, adfs_username: None };
                        thread::yield_now();
                        cache_ref.keep(Instant::now(), read_at, "a".to_owned(), &found);
                        let before = known_ref.load(Ordering::SeqCst);
                        let kept = cache_ref.find(Instant::now(), "a");
                        assert!(kept.is_none_or(|kept| read(&kept) >= before), "it is older than {before}");
                    }
                });
                scope.spawn(move || {
                    for _ in 0..CHANGES {
                        let changed = record_ref.fetch_add(1, Ordering::SeqCst) + 1;
                        cache_ref.clear();
                        known_ref.fetch_max(changed, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(cache.age(), Age(THREADS * CHANGES));
        assert!(cache.find(Instant::now(), "a").is_none_or(|kept| read(&kept) == THREADS * CHANGES));
    }
}
