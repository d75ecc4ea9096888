//! [`HistoryFile::reopen`]: continues after a fault of the disk.
//!
//! A commit whose fsync failed can be on disk or not. Its events were refused, so they must not be found there later. The
//! first transaction after a fault makes the file what was last accepted.

use std::collections::BTreeMap;
use std::time::Instant;

use redb::{ReadableTable, Table, WriteTransaction};

use super::record::{LogName, LogRecord};
use super::start::shared_builder;
use super::tables::{ENTRIES, KNOWN, LOGS, LogKey, RETAINED, damaged, log_place};
use super::{HistoryFile, LogState, REOPEN_AFTER, cost, unavailable};
use crate::store::StoreError;

impl HistoryFile {
    /// Opens the file again after a fault, at most once a second.
    pub(super) fn reopen(&mut self, now: Instant) -> Result<(), StoreError> {
        if self.open.is_open() {
            return Ok(());
        }
        if self.reopen_at.is_some_and(|at| now < at) {
            return Err(unavailable(&self.name));
        }
        self.open.release_all();
        let reopened = self.name.guarded(|| {
            let mut builder = shared_builder();
            let database = builder.set_cache_size(self.disk.cache_bytes()).create_with_backend(self.disk.open()?)?;
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            let restored = self.restore(&transaction)?;
            transaction.commit()?;
            Ok((database, restored))
        });
        match reopened {
            Ok((database, restored)) => {
                self.open.replace(database);
                self.reopen_at = None;
                self.logs.extend(restored.changed);
                self.damaged.extend(restored.damaged);
                self.bytes = self.logs.values().map(|log| log.bytes).sum();
                self.doubtful.clear();
                self.doubtful_logs.clear();
                Ok(())
            }
            Err(fault) => {
                self.reopen_at = Some(now + REOPEN_AFTER);
                Err(fault)
            }
        }
    }

    /// Makes the file what was last accepted, as far as it still has that: entries that a batch removed are gone if it is on
    /// disk after all. A log whose record is damaged, or that has lost accepted events, loses all of its entries and goes on
    /// after its last offset.
    fn restore(&self, transaction: &WriteTransaction) -> Result<Restored, redb::Error> {
        let mut tables = Tables { logs: transaction.open_table(LOGS)?, entries: transaction.open_table(ENTRIES)? };
        let mut found = self.records(&tables.logs)?;
        let mut restored = Restored::default();
        for (name, state) in &self.logs {
            let next = state.last.saturating_add(1);
            let first = match found.remove(&state.key) {
                Some(Some(record)) if (record.first, record.last) == (state.first, state.last) => continue,
                Some(Some(record)) if record.last >= state.last => record.first.min(next),
                None if self.doubtful_logs.contains(name) => next,
                Some(Some(_) | None) | None => {
                    tables.entries.retain_in((&state.key, 0)..=(&state.key, u64::MAX), |_, _| false)?;
                    restored.damaged.push((name.clone(), next));
                    next
                }
            };
            restored.changed.push((name.clone(), self.restore_log(&mut tables, name, state, first)?));
        }
        // The first event of each of these was refused.
        for key in found.into_keys() {
            tables.entries.retain_in((&key, 0)..=(&key, u64::MAX), |_, _| false)?;
            tables.logs.remove(&key)?;
        }
        drop(tables);
        let next = self.known.back().map_or(0, |(number, _)| number + 1);
        transaction.open_table(KNOWN)?.retain_in(next.., |_, _| false)?;
        let mut retained = transaction.open_table(RETAINED)?;
        for (key, before) in self.doubtful.iter().rev() {
            match before {
                Some(sealed) => drop(retained.insert(key, &**sealed)?),
                None => drop(retained.remove(key)?),
            }
        }
        Ok(restored)
    }

    fn records(&self, logs: &impl ReadableTable<&'static LogKey, &'static [u8]>) -> Result<Records, redb::Error> {
        let mut found = Records::new();
        for row in logs.iter()? {
            let (key, sealed) = row?;
            found.insert(*key.value(), self.seal.open(&log_place(key.value()), sealed.value()));
        }
        Ok(found)
    }

    /// Takes back what refused batches did to a log.
    fn restore_log(
        &self,
        tables: &mut Tables<'_>,
        name: &LogName,
        state: &LogState,
        first: u64,
    ) -> Result<LogState, redb::Error> {
        let key = &state.key;
        tables.entries.retain_in((key, state.last.saturating_add(1))..=(key, u64::MAX), |_, _| false)?;
        let mut state = LogState { first, bytes: 0, ..state.clone() };
        for row in tables.entries.range((key, 0)..=(key, u64::MAX))? {
            state.bytes += cost(row?.1.value().len());
        }
        let (name, epoch) = (name.clone(), state.epoch.clone());
        let record = LogRecord { name, epoch, first, last: state.last, used: state.used };
        let sealed = self.seal.seal(&log_place(key), &record).map_err(|error| damaged(&error.to_string()))?;
        tables.logs.insert(key, &*sealed)?;
        Ok(state)
    }
}

/// The record of each log that is on disk; `None` if it is damaged.
type Records = BTreeMap<LogKey, Option<LogRecord>>;

/// What became of the logs of a file that was opened again.
#[derive(Default)]
struct Restored {
    /// Those that are not as the file had them.
    changed: Vec<(LogName, LogState)>,
    /// Those of them that are damaged, and the offset of the first entry that is left.
    damaged: Vec<(LogName, u64)>,
}

struct Tables<'t> {
    logs: Table<'t, &'static LogKey, &'static [u8]>,
    entries: Table<'t, (&'static LogKey, u64), &'static [u8]>,
}
