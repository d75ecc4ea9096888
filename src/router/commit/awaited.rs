//! [`Awaited`]: what other nodes have to take before the sender of an event is told what became of it.

use std::sync::Arc;
use std::time::Instant;

use super::Uncommitted;
use crate::router::backplane::Peer;
use crate::router::{Denied, Routed};

/// Messages to peers, by their numbers, that have to be acknowledged.
#[derive(Default)]
pub(in crate::router) struct Awaited(pub(in crate::router) Vec<(Arc<Peer>, u64)>);

/// An event whose sender is told when the last reference is dropped.
struct Untold(Option<(Instant, Uncommitted, Result<Routed, Denied>)>);

impl Drop for Untold {
    fn drop(&mut self) {
        if let Some((now, event, outcome)) = self.0.take() {
            event.told(now, outcome);
        }
    }
}

impl Uncommitted {
    /// Tells the sender what became of the event, as soon as peers have taken what has to precede that, or are lost.
    pub(super) fn tell(mut self, now: Instant, mut outcome: Result<Routed, Denied>) {
        let awaited = outcome.as_mut().map(|routed| std::mem::take(&mut routed.waits_for.0)).unwrap_or_default();
        if awaited.is_empty() {
            return self.told(now, outcome);
        }
        // It is delivered, so what its sender has sent later may be.
        self.delivered = None;
        let untold = Arc::new(Untold(Some((now, self, outcome))));
        for (peer, number) in awaited {
            peer.acknowledged().keep(number, Arc::clone(&untold) as _);
        }
    }
}
