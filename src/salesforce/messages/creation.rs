//! [`Creation`]: the creation of one record, its outcome, and the requesters that wait for it. Does no I/O.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::values::Values;
use crate::salesforce::write::Field;
use wire::Refusal;

/// A record that is in the org.
#[derive(Clone, Debug)]
pub(super) struct Created {
    /// Its id, of 18 characters.
    pub(super) id: String,
    /// The values with which it was found. `None`: this process created it with the requested values.
    pub(super) found: Option<Arc<[Field]>>,
}

impl Created {
    /// The bytes of the values with which it was found.
    pub(super) fn found_bytes(&self) -> usize {
        let fields = self.found.as_deref().unwrap_or_default();
        fields.iter().map(|(field, value)| field.len() + value.get().len()).sum()
    }
}

/// Why there is no record, as far as the broker knows.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// The refusal for the requester.
    pub(super) refusal: Refusal,
    /// Whether the org may have the record when it is requested again.
    pub(super) before_next: Before,
}

/// How a creation ended.
pub(super) type Outcome = Result<Created, Failed>;

/// Whether the org may have the record before it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// No.
    Absent,
    /// A broker may have created it, with values that are not known.
    Unknown,
    /// This process may have created it, with the requested values.
    AsAsked,
}

/// The creation of one record, which ends even if nobody waits for it.
pub(super) struct Creation {
    /// The hash that identifies the request.
    pub(super) key: String,
    /// The user for whom it is.
    pub(super) user: Arc<str>,
    /// The requested values.
    pub(super) values: Values,
    /// Whether a request with the same key may come again.
    pub(super) repeatable: bool,
    progress: Mutex<Progress>,
    ended: Notify,
}

#[derive(Default)]
struct Progress {
    waiting: usize,
    outcome: Option<Outcome>,
    announced: bool,
}

impl Creation {
    pub(super) fn new(key: &str, user: &Arc<str>, values: Values, repeatable: bool) -> Self {
        let user = Arc::clone(user);
        Self { key: key.to_owned(), user, values, repeatable, progress: Mutex::default(), ended: Notify::new() }
    }

    /// Ends it. Returns whether nobody waits for it, so that the caller has to announce the record.
    pub(super) fn end(&self, outcome: Outcome) -> bool {
        let mut progress = self.progress.lock();
        let announces = progress.waiting == 0 && outcome.is_ok();
        progress.announced = announces;
        progress.outcome = Some(outcome);
        drop(progress);
        self.ended.notify_waiters();
        announces
    }
}

/// A requester that waits for a creation.
pub(super) struct Waiting {
    creation: Arc<Creation>,
    /// Whether it counts as waiting.
    counted: bool,
}

impl Waiting {
    /// Counts one more requester that waits.
    pub(super) fn new(creation: &Arc<Creation>) -> Self {
        creation.progress.lock().waiting += 1;
        Self { creation: Arc::clone(creation), counted: true }
    }

    /// Waits until the creation ends.
    pub(super) async fn ended(&self) {
        loop {
            let ended = self.creation.ended.notified();
            if self.creation.progress.lock().outcome.is_some() {
                return;
            }
            ended.await;
        }
    }

    /// Stops waiting. Returns the outcome, if there is one, and whether this requester is the one to announce the record.
    pub(super) fn leave(mut self) -> Option<(Outcome, bool)> {
        let mut progress = self.creation.progress.lock();
        progress.waiting -= 1;
        self.counted = false;
        let outcome = progress.outcome.clone()?;
        let announces = outcome.is_ok() && !std::mem::replace(&mut progress.announced, true);
        Some((outcome, announces))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.counted {
            self.creation.progress.lock().waiting -= 1;
        }
    }
}
