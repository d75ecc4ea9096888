//! [`Admission`]: how many connections are set up or torn down at once.

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;

/// Limits how many connections are set up or torn down between two turns of the established ones. Setup costs about
/// 100 µs, teardown 50 µs; 5,000 at once would starve everyone else. The two have permits of their own, so that the end
/// of a session never waits for strangers that connect.
pub struct Admission {
    arrivals: Semaphore,
    departures: Semaphore,
}

impl Admission {
    /// Connections that are set up, and torn down, between two turns of the established ones.
    const AT_ONCE: usize = 8;

    /// Waits for a permit to set up a connection. Dropping the permit hands it to the next one.
    pub async fn arrival(&self) -> Option<SemaphorePermit<'_>> {
        Self::permit(&self.arrivals).await
    }

    /// Waits for a permit to tear down a connection.
    pub async fn departure(&self) -> Option<SemaphorePermit<'_>> {
        Self::permit(&self.departures).await
    }

    /// Waits for all permits to set up a connection.
    #[cfg(test)]
    pub(crate) async fn all_arrivals(&self) -> Option<SemaphorePermit<'_>> {
        self.arrivals.acquire_many(Self::AT_ONCE.try_into().ok()?).await.ok()
    }

    async fn permit(permits: &Semaphore) -> Option<SemaphorePermit<'_>> {
        let permit = permits.acquire().await.ok();
        // Behind all tasks that are ready now, or the permits would only form another line.
        yield_now().await;
        permit
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self { arrivals: Semaphore::new(Self::AT_ONCE), departures: Semaphore::new(Self::AT_ONCE) }
    }
}
