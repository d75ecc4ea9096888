//! [`Exchanges`]: fetches of one user that are in flight at the same time share one exchange with the source, unless what the
//! source holds has changed since it began.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use parking_lot::Mutex;

use super::source::{Credentials, Source};
use wire::Refusal;

type Found = Result<Arc<Credentials>, Refusal>;
type Exchange = Pin<Box<dyn Future<Output = Found> + Send>>;

/// The exchanges that are in flight.
pub(super) struct Exchanges {
    source: Arc<dyn Source>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By user: the last one that began.
    by_user: HashMap<String, InFlight>,
    begun: u64,
}

/// An exchange that is in flight.
struct InFlight {
    number: u64,
    /// That of the source when it began.
    age: u64,
    exchange: WeakShared<Exchange>,
}

impl Exchanges {
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        Self { source, state: Mutex::default() }
    }

    /// The credentials of a user, from the exchange that is in flight or from a new one.
    pub(super) fn find(self: &Arc<Self>, user: &str) -> Shared<Exchange> {
        let mut state = self.state.lock();
        // Before the source is asked: after a change in between, the next fetch asks again.
        let age = self.source.age();
        let in_flight = state.by_user.get(user).filter(|it| it.age == age);
        if let Some(exchange) = in_flight.and_then(|it| it.exchange.upgrade()) {
            return exchange;
        }
        state.begun += 1;
        let ended = Ended { of: Arc::downgrade(self), user: user.to_owned(), number: state.begun };
        let found = Arc::clone(&self.source).find(user.to_owned());
        let exchange: Exchange = Box::pin(async move {
            let found = found.await.map(Arc::new);
            drop(ended);
            found
        });
        let exchange = exchange.shared();
        if let Some(weak) = exchange.downgrade() {
            let in_flight = InFlight { number: state.begun, age, exchange: weak };
            state.by_user.insert(user.to_owned(), in_flight);
        }
        exchange
    }
}

/// Forgets an exchange that has its answer, so that the next fetch begins another, or that nobody waits for any more.
struct Ended {
    of: Weak<Exchanges>,
    user: String,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let Some(exchanges) = self.of.upgrade() else { return };
        let by_user = &mut exchanges.state.lock().by_user;
        if by_user.get(&self.user).is_some_and(|it| it.number == self.number) {
            by_user.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use secrecy::SecretString;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::credentials::source;

    /// Counts what it is asked, and answers when it may.
    struct Counting {
        asked: AtomicUsize,
        changes: AtomicU64,
        may_answer: Semaphore,
    }

    impl Counting {
        fn new() -> Self {
            Self { asked: AtomicUsize::new(0), changes: AtomicU64::new(0), may_answer: Semaphore::new(0) }
        }
    }

    impl Source for Counting {
        fn find(self: Arc<Self>, user: String) -> source::Found {
            self.asked.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                self.may_answer.acquire().await.unwrap().forget();
                let (password, extension) = (SecretString::from("acq@123"), String::new());
                Ok(Credentials { username: user, password, extension, adfs_username: None })
            })
        }

        fn age(&self) -> u64 {
            self.changes.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn fetches_of_one_user_that_overlap_share_an_exchange() {
        let counting = Arc::new(Counting::new());
        let exchanges = Arc::new(Exchanges::new(Arc::clone(&counting) as _));
        let (first, second, other) = (exchanges.find("alice"), exchanges.find("alice"), exchanges.find("bob"));
        assert_eq!(counting.asked.load(Ordering::SeqCst), 2);
        counting.may_answer.add_permits(2);
        let (first, second, other) = tokio::join!(first, second, other);
        assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
        assert_eq!(other.unwrap().username, "bob");
        // The next one asks anew.
        counting.may_answer.add_permits(1);
        assert!(exchanges.find("alice").await.is_ok());
        assert_eq!(counting.asked.load(Ordering::SeqCst), 3);
        // One that nobody waits for is forgotten.
        drop(exchanges.find("alice"));
        assert!(exchanges.state.lock().by_user.is_empty());
    }

    #[tokio::test]
    async fn a_fetch_after_a_change_does_not_share_an_exchange_that_began_before_it() {
        let counting = Arc::new(Counting::new());
        let exchanges = Arc::new(Exchanges::new(Arc::clone(&counting) as _));
        let before = exchanges.find("alice");
        counting.changes.fetch_add(1, Ordering::SeqCst);
        let (first, second) = (exchanges.find("alice"), exchanges.find("alice"));
        assert_eq!(counting.asked.load(Ordering::SeqCst), 2);
        counting.may_answer.add_permits(1);
        let before = before.await.unwrap();
        // The end of the old exchange is not the end of the new one.
        let third = exchanges.find("alice");
        assert_eq!(counting.asked.load(Ordering::SeqCst), 2);
        counting.may_answer.add_permits(1);
        let (first, second, third) = tokio::join!(first, second, third);
        let (first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
        assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first, &third) && !Arc::ptr_eq(&first, &before));
        assert!(exchanges.state.lock().by_user.is_empty());
    }
}
