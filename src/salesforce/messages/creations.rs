//! [`Creations`]: creates each record once. Concurrent requests for the same record share one exchange, and a later one
//! gets the outcome of the first.
//!
//! The outcomes are in memory and expire. The External ID of the record in the org does not.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::expiring::Expiring;
use wire::Refusal;

/// How long an outcome is remembered.
const KEEP: Duration = Duration::from_mins(10);

/// The most outcomes that are remembered.
const KEPT_MAX: usize = 10_000;

/// The records that were created or are being created.
pub(super) struct Creations {
    made: Mutex<Expiring<String, Arc<Creation>>>,
}

/// One record.
struct Creation {
    outcome: OnceCell<Result<String, Refusal>>,
    /// An earlier attempt failed, and the org may have created the record anyway.
    doubtful: bool,
}

impl Creation {
    fn new(doubtful: bool) -> Arc<Self> {
        Arc::new(Self { outcome: OnceCell::new(), doubtful })
    }
}

/// A record that was requested.
pub(super) struct Made {
    /// Its id in Salesforce.
    pub(super) id: String,
    /// Whether this request created it, as far as this process knows.
    pub(super) now: bool,
}

impl Default for Creations {
    fn default() -> Self {
        Self { made: Mutex::new(Expiring::new(KEPT_MAX)) }
    }
}

impl Creations {
    /// Creates the record of a key with `make`, unless it was created or is being created. The argument of `make` is
    /// whether an earlier attempt may have created it.
    pub(super) async fn once<F: Future<Output = Result<String, Refusal>>>(
        &self,
        now: Instant,
        key: &str,
        make: impl FnOnce(bool) -> F,
    ) -> Result<Made, Refusal> {
        let key = key.to_owned();
        let creation = {
            let mut made = self.made.lock();
            made.expire(now);
            Arc::clone(made.touch(now, &key, KEEP, || Creation::new(false)))
        };
        let mut own = false;
        let outcome = creation
            .outcome
            .get_or_init(|| {
                own = true;
                make(creation.doubtful)
            })
            .await;
        if own && let Err(refusal) = outcome {
            let mut made = self.made.lock();
            if made.get(now, &key).is_some_and(|it| Arc::ptr_eq(it, &creation)) {
                let doubtful = creation.doubtful || refusal.code.retryable();
                made.insert(now, key, Creation::new(doubtful), KEEP);
            }
        }
        outcome.clone().map(|id| Made { id, now: own })
    }
}

/// The key that identifies a request, in 64 hex digits. It includes the call and the object because some applications
/// restart their ids with each page.
pub(super) fn key(parts: [&str; 5]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ErrorCode;

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_outcome_and_a_failure_is_tried_again() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let creations = Creations::default();
        let told = Mutex::new(Vec::new());
        let ask = async |outcome: Result<&str, ErrorCode>| {
            let make = async |doubtful| {
                told.lock().push(doubtful);
                tokio::task::yield_now().await;
                outcome.map(str::to_owned).map_err(|code| Refusal::new(code, ""))
            };
            creations.once(now, "k", make).await.map(|made| (made.id, made.now)).map_err(|refusal| refusal.code)
        };
        let down = ErrorCode::UpstreamUnavailable;
        assert_eq!(tokio::join!(ask(Err(down)), ask(Ok("b"))), (Err(down), Err(down)));
        let no = ErrorCode::UpstreamRejected;
        assert_eq!(ask(Err(no)).await, Err(no));
        let made = |now| Ok(("c".to_owned(), now));
        assert_eq!(tokio::join!(ask(Ok("c")), ask(Ok("d"))), (made(true), made(false)));
        assert_eq!(ask(Ok("e")).await, made(false));
        assert_eq!(*told.lock(), [false, true, true], "once in doubt, always looked for first");
    }

    #[test]
    fn a_key_is_of_one_request_alone() {
        let one = key(["a", "b", "c", "d", "e"]);
        assert_eq!(one.len(), 64);
        assert_ne!(one, key(["ab", "", "c", "d", "e"]));
        assert_eq!(one, key(["a", "b", "c", "d", "e"]));
    }
}
