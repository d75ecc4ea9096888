//! [`HistoryFile::expired`]: what is too old.

use std::time::Duration;

use redb::ReadableDatabase;

use super::record::{Entry, LogName};
use super::tables::{ENTRIES, entry_place};
use super::{Change, HistoryFile};
use crate::store::StoreError;

/// How long a log without entries is remembered at least.
pub(crate) const REMEMBERED: Duration = Duration::from_hours(1);

impl HistoryFile {
    /// Says what is too old: entries older than the time that `ttl` gives for their log; logs that have been without entries
    /// for as long again, at least an hour; logs for which it gives none. `wall` is the time in milliseconds since 1970.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn expired(&self, wall: u64, ttl: &dyn Fn(&LogName) -> Option<Duration>) -> Result<Vec<Change>, StoreError> {
        let database = self.open.database();
        let Some(database) = &*database else { return Ok(Vec::new()) };
        self.name.guarded(|| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            let mut changes = Vec::new();
            for (name, log) in &self.logs {
                let Some(ttl) = ttl(name) else {
                    changes.push(Change::Forget(name.clone()));
                    continue;
                };
                let [ttl, remembered] =
                    [ttl, ttl.max(REMEMBERED)].map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
                let mut first = log.first;
                while first <= log.last {
                    let sealed = entries.get((&log.key, first))?;
                    let entry: Option<Entry> =
                        sealed.and_then(|sealed| self.seal.open(&entry_place(&log.key, first), sealed.value()));
                    if entry.is_some_and(|entry| entry.at.saturating_add(ttl) >= wall) {
                        break;
                    }
                    first += 1;
                }
                if first > log.last && log.used.saturating_add(ttl).saturating_add(remembered) < wall {
                    changes.push(Change::Forget(name.clone()));
                } else if first > log.first {
                    changes.push(Change::Trim { log: name.clone(), first });
                }
            }
            Ok(changes)
        })
    }
}
