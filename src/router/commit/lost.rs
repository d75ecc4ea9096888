//! What durable logs lose on disk, because of their bounds or because the file is damaged, and memory with it.

use std::time::{Duration, Instant};

use crate::router::Router;
use crate::router::history::LogName;
use crate::store::history::{Applied, Change, LogName as StoredName};

impl Router {
    /// How long a durable log keeps an event; `None` if the channel has no such log any more.
    pub fn durable_ttl(&self, log: &StoredName) -> Option<Duration> {
        let is_durable = self.policy.is_durable(&log.channel);
        let has_scope = self.policy.is_shared(&log.channel) == log.user.is_none();
        self.policy.history(&log.channel).filter(|_| is_durable && has_scope).map(|bounds| bounds.ttl)
    }

    /// Forgets what a sweep has removed from the disk.
    pub fn forgotten_on_disk(&self, now: Instant, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Forget(log) => self.history.forget(&LogName::from(log)),
                Change::Trim { log, first } => self.history.trim_to(now, &LogName::from(log), *first),
                Change::Append { .. } | Change::Keep(..) | Change::Clear(_) => {}
            }
        }
    }

    /// Forgets what was removed from the disk because of `history.disk_bytes`.
    pub fn lost_on_disk(&self, now: Instant, applied: &Applied) {
        for log in &applied.removed {
            self.history.forget(&LogName::from(log));
        }
        for (log, first) in applied.trimmed.iter().chain(&applied.damaged) {
            self.history.trim_to(now, &LogName::from(log), *first);
        }
    }
}
