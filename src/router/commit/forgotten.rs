//! [`Forgotten`]: what a reload has ended in memory and the disk still has.
//!
//! A log of a channel whose scope has changed is lost. If the disk kept it, a later start would load it again with its old
//! epoch, once the channel has its old scope again. The thread that commits removes it before it writes anything else.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::router::Router;
use crate::store::history::{Change, LogName, Place};

/// Logs and retained values that are to be removed from the disk.
#[derive(Default)]
pub(in crate::router) struct Forgotten {
    lost: Mutex<Lost>,
}

#[derive(Default)]
struct Lost {
    /// With the epoch that they had.
    logs: BTreeSet<(LogName, Arc<str>)>,
    values: Vec<Place>,
}

impl Forgotten {
    pub(in crate::router) fn add_log(&self, log: LogName, epoch: Arc<str>) {
        self.lost.lock().logs.insert((log, epoch));
    }

    pub(in crate::router) fn add_values(&self, values: impl IntoIterator<Item = Place>) {
        self.lost.lock().values.extend(values);
    }
}

impl Router {
    /// What is to be removed from the disk before anything else is written, because a reload has ended it. `has` says
    /// whether the disk has a log with an epoch. For the thread that commits.
    pub fn forgotten(&self, has: impl Fn(&LogName, &str) -> bool) -> Vec<Change> {
        let Some(commits) = &self.commits else { return Vec::new() };
        let Lost { logs, values } = std::mem::take(&mut *commits.forgotten.lost.lock());
        // A log that has begun anew since has taken the place of the old one, and a value that was kept again, too.
        let logs = logs.into_iter().filter(|(log, epoch)| has(log, epoch)).map(|(log, _)| Change::Forget(log));
        let values = values.into_iter().filter(|place| !self.retained.has(place)).map(Change::Clear);
        logs.chain(values).collect()
    }

    /// What [`Router::forgotten`] gave could not be removed: it is given again.
    pub fn not_forgotten(&self, changes: Vec<Change>, epoch: impl Fn(&LogName) -> Option<Arc<str>>) {
        let Some(commits) = &self.commits else { return };
        for change in changes {
            match change {
                Change::Forget(log) => {
                    if let Some(epoch) = epoch(&log) {
                        commits.forgotten.add_log(log, epoch);
                    }
                }
                Change::Clear(place) => commits.forgotten.add_values([place]),
                Change::Append { .. } | Change::Trim { .. } | Change::Keep(..) => {}
            }
        }
    }

    /// Lets the thread that commits look at what was forgotten.
    pub(in crate::router) fn wake_committer(&self) {
        if let Some(commits) = &self.commits {
            commits.queue.wake();
        }
    }
}
