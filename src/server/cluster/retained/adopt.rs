//! [`adopt_value`]: puts a retained value into the bucket that one broker kept.

use tokio::time::{Instant, sleep_until};

use super::bucket::{subject, text};
use crate::cluster::StoredAt;
use crate::server::cluster::jetstream::{JetStream, Put, RETAINED, StorageError};
use crate::store::history::{Place, Retained};

/// How long after a failure JetStream is asked again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(250);

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::cluster) enum ValueOutcome {
    /// It is in the bucket now.
    Put,
    /// An earlier run has put it there.
    WasThere,
    /// The cluster has another value there, or has cleared it.
    Newer,
    /// NATS does not take it.
    TooLarge,
}

/// Puts a value into the bucket if there never was one in its place.
///
/// # Errors
/// [`StorageError::Unavailable`]: JetStream has not answered for `cluster.storage_wait`.
pub(in crate::server::cluster) async fn adopt_value(
    storage: &JetStream,
    place: &Place,
    value: &Retained,
) -> Result<ValueOutcome, StorageError> {
    let until = Instant::now() + storage.wait();
    let subject = subject(storage, place);
    let position = value.position.as_ref().map(|(epoch, offset)| (&**epoch, *offset));
    let Some(text) = text(place, position, Some(value)) else { return Ok(ValueOutcome::TooLarge) };
    let at = StoredAt::subject(&subject);
    loop {
        let attempt = async {
            match storage.put(Put { expected: Some(0), ..Put::new(at, &text) }).await {
                Ok(_) => Ok(ValueOutcome::Put),
                Err(StorageError::TooLarge) => Ok(ValueOutcome::TooLarge),
                Err(StorageError::Conflict) => {
                    let read = storage.last(&storage.bucket(RETAINED).0, &subject).await?;
                    let there = read.filter(|read| !read.is_marker());
                    let there = there.and_then(|read| storage.open_stored(at, &read.sealed));
                    Ok(if there.is_some_and(|there| there == text) {
                        ValueOutcome::WasThere
                    } else {
                        ValueOutcome::Newer
                    })
                }
                Err(error @ StorageError::Unavailable(_)) => Err(error),
            }
        };
        match attempt.await {
            Err(_) if Instant::now() + AGAIN < until => sleep_until(Instant::now() + AGAIN).await,
            outcome => return outcome,
        }
    }
}
