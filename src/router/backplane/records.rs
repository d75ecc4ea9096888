//! [`RecordCache`]: what a node keeps in memory of records of another system.
//!
//! One node reads the events that say what has changed there, and tells its peers before it sends them the event: an
//! application that the event reaches finds nothing old. What a node has missed is unknown, so a snapshot of a peer, with
//! which a link begins, counts as a change of everything.

use std::sync::Arc;

use super::message::Message;
use crate::router::Router;

/// What a node keeps in memory of records of another system. It never waits, and calls nothing of the router.
pub trait RecordCache: Send + Sync {
    /// Forgets records that have changed, or may have. What was asked for before is not kept either. `event` is the API name
    /// of a change event; `None`: records of any object may have changed.
    fn records_changed(&self, event: Option<&str>);
}

impl Router {
    /// Says what to tell of the changes that peers report. The first one stays. Without a cluster, it is not used.
    pub fn set_record_cache(&self, cache: &Arc<dyn RecordCache>) {
        if let Some(cluster) = &self.cluster {
            cluster.record_cache.set(Arc::clone(cache)).ok();
        }
    }

    /// Tells every peer that records have changed. `event` is as in [`RecordCache::records_changed`], which the caller tells
    /// itself. A peer without a link learns of it when its link begins.
    pub fn tell_records_changed(&self, event: Option<&str>) {
        let Some(cluster) = &self.cluster else { return };
        for peer in cluster.peers.load().iter() {
            cluster.send(peer, &Message::RecordsChanged { event });
        }
    }

    /// A peer says that records have changed, or a link to one begins.
    pub(super) fn records_changed_elsewhere(&self, event: Option<&str>) {
        let cache = self.cluster.as_ref().and_then(|cluster| cluster.record_cache.get());
        if let Some(cache) = cache {
            cache.records_changed(event);
        }
    }
}
