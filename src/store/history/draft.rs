//! [`Draft`]: a batch of changes while it is written. Nothing of it is known elsewhere before its transaction is on disk.

use std::collections::{BTreeMap, BTreeSet};

use redb::{Table, WriteTransaction};

use super::record::{Known, LogName, LogRecord, Record};
use super::tables::{
    ENTRIES, KNOWN, LOGS, LogKey, PlaceKey, RETAINED, damaged, entry_place, known_place, log_place, retained_place,
};
use super::{Applied, Change, HistoryFile, LogState, cost};
use crate::store::StoreError;

/// When `disk_bytes` is exceeded, logs are removed until this many hundredths of it are reached: not one for each batch.
const RELIEVED_PERCENT: u64 = 95;

/// A batch of changes.
pub(super) struct Draft<'h> {
    history: &'h HistoryFile,
    wall: u64,
    finished: Finished,
}

/// What a batch did.
#[derive(Default)]
pub(super) struct Finished {
    /// The logs that it changed; `None` for one that it removed.
    pub(super) logs: BTreeMap<LogName, Option<LogState>>,
    /// How many known ids it removed, oldest first.
    pub(super) known_gone: usize,
    /// The number and time of each id that it added.
    pub(super) known_added: Vec<(u64, u64)>,
    /// The retained values that it changed, and what was there before.
    pub(super) undo: Vec<(PlaceKey, Option<Vec<u8>>)>,
    pub(super) applied: Applied,
}

impl HistoryFile {
    /// The logs to which these changes append an event whose offset does not follow the last one on disk: memory and disk
    /// disagree about what the log has. A batch with such an event fails as a whole, so it is to be left out.
    #[must_use]
    pub fn misfits(&self, changes: &[Change]) -> BTreeSet<LogName> {
        let mut last: BTreeMap<&LogName, Option<(&str, u64)>> = BTreeMap::new();
        let mut misfits = BTreeSet::new();
        for change in changes {
            match change {
                Change::Append { log, epoch, offset, .. } => {
                    let on_disk = || self.logs.get(log).map(|state| (&*state.epoch, state.last));
                    let before = last.insert(log, Some((epoch, *offset)));
                    let before = before.unwrap_or_else(on_disk).filter(|(of, _)| **of == **epoch);
                    if before.is_some_and(|(_, last)| *offset != last.saturating_add(1)) {
                        misfits.insert(log.clone());
                    }
                }
                Change::Forget(log) => drop(last.insert(log, None)),
                Change::Trim { .. } | Change::Keep(..) | Change::Clear(_) => {}
            }
        }
        misfits
    }
}

/// The tables that a batch writes to.
struct Tables<'t> {
    logs: Table<'t, &'static LogKey, &'static [u8]>,
    entries: Table<'t, (&'static LogKey, u64), &'static [u8]>,
    known: Table<'t, u64, &'static [u8]>,
    retained: Table<'t, &'static PlaceKey, &'static [u8]>,
}

impl<'h> Draft<'h> {
    pub(super) fn new(history: &'h HistoryFile, wall: u64) -> Self {
        Self { history, wall, finished: Finished::default() }
    }

    pub(super) fn finish(self) -> Finished {
        self.finished
    }

    /// Writes the changes into a transaction.
    pub(super) fn write(&mut self, transaction: &WriteTransaction, changes: &[Change]) -> Result<(), redb::Error> {
        let mut tables = Tables {
            logs: transaction.open_table(LOGS)?,
            entries: transaction.open_table(ENTRIES)?,
            known: transaction.open_table(KNOWN)?,
            retained: transaction.open_table(RETAINED)?,
        };
        for change in changes {
            self.make(&mut tables, change)?;
        }
        self.forget_ids(&mut tables)?;
        self.keep_within_disk(&mut tables)?;
        for (name, state) in &self.finished.logs {
            let Some(LogState { key, epoch, first, last, used, .. }) = state else { continue };
            let (name, epoch) = (name.clone(), epoch.clone());
            let record = LogRecord { name, epoch, first: *first, last: *last, used: *used };
            tables.logs.insert(key, &*self.seal(&log_place(key), &record)?)?;
        }
        Ok(())
    }

    fn make(&mut self, tables: &mut Tables<'_>, change: &Change) -> Result<(), redb::Error> {
        match change {
            Change::Append { log, epoch, offset, entry, known, first } => {
                let mut state = match self.state(log) {
                    Some(state) if state.epoch == *epoch => state,
                    old => {
                        // The broker has begun the log anew.
                        old.map_or(Ok(()), |old| remove_log(tables, &old))?;
                        let key = self.history.seal.log_key(log, epoch);
                        let (epoch, first, last) = (epoch.clone(), *offset, offset.saturating_sub(1));
                        LogState { key, epoch, first, last, used: 0, bytes: 0 }
                    }
                };
                if *offset != state.last.saturating_add(1) {
                    let last = state.last;
                    return Err(damaged(&format!("offset {offset} cannot follow offset {last} in the log of {log}")));
                }
                let sealed = self.seal(&entry_place(&state.key, *offset), entry)?;
                tables.entries.insert((&state.key, *offset), &*sealed)?;
                (state.last, state.used) = (*offset, entry.at);
                state.bytes += cost(sealed.len());
                trim(tables, &mut state, *first)?;
                self.finished.logs.insert(log.clone(), Some(state));
                known.as_ref().map_or(Ok(()), |known| self.learn(tables, known))
            }
            Change::Trim { log, first } => {
                let Some(mut state) = self.state(log) else { return Ok(()) };
                trim(tables, &mut state, *first)?;
                self.finished.logs.insert(log.clone(), Some(state));
                Ok(())
            }
            Change::Forget(log) => self.remove(tables, log),
            Change::Keep(place, value) => {
                let key = self.history.seal.place_key(place);
                let sealed = self.seal(&retained_place(&key), &(place.clone(), value.clone()))?;
                let old = tables.retained.insert(&key, &*sealed)?.map(|old| old.value().to_vec());
                self.finished.undo.push((key, old));
                Ok(())
            }
            Change::Clear(place) => {
                let key = self.history.seal.place_key(place);
                let old = tables.retained.remove(&key)?.map(|old| old.value().to_vec());
                self.finished.undo.push((key, old));
                Ok(())
            }
        }
    }

    /// A log as it is after the changes so far.
    fn state(&self, log: &LogName) -> Option<LogState> {
        match self.finished.logs.get(log) {
            Some(state) => state.clone(),
            None => self.history.logs.get(log).cloned(),
        }
    }

    fn remove(&mut self, tables: &mut Tables<'_>, log: &LogName) -> Result<(), redb::Error> {
        if let Some(state) = self.state(log) {
            remove_log(tables, &state)?;
            self.finished.logs.insert(log.clone(), None);
        }
        Ok(())
    }

    fn learn(&mut self, tables: &mut Tables<'_>, known: &Known) -> Result<(), redb::Error> {
        let last = self.finished.known_added.last().or(self.history.known.back());
        let number = last.map_or(1, |(number, _)| number + 1);
        tables.known.insert(number, &*self.seal(&known_place(number), known)?)?;
        self.finished.known_added.push((number, known.at));
        Ok(())
    }

    /// Forgets the oldest ids: those that have expired, and those beyond the number that may be known.
    fn forget_ids(&mut self, tables: &mut Tables<'_>) -> Result<(), redb::Error> {
        let limits = self.history.limits;
        let retry = u64::try_from(limits.retry.as_millis()).unwrap_or(u64::MAX);
        let known = self.history.known.len() + self.finished.known_added.len();
        let excess = known.saturating_sub(limits.ids);
        for (at, (number, time)) in self.history.known.iter().enumerate() {
            if at >= excess && time.saturating_add(retry) >= self.wall {
                break;
            }
            tables.known.remove(number)?;
            self.finished.known_gone += 1;
        }
        Ok(())
    }

    /// Removes the logs unused for longest while all use too much disk. The logs that this batch appends to are the last to
    /// go: they only lose their oldest entries.
    fn keep_within_disk(&mut self, tables: &mut Tables<'_>) -> Result<(), redb::Error> {
        let most = self.history.limits.disk_bytes;
        let mut bytes = self.bytes();
        if bytes <= most {
            return Ok(());
        }
        let enough = most / 100 * RELIEVED_PERCENT;
        let mut others: Vec<(u64, LogName)> =
            self.history.logs.iter().map(|(name, log)| (log.used, name.clone())).collect();
        others.retain(|(_, name)| !self.finished.logs.contains_key(name));
        others.sort();
        for (_, name) in others {
            if bytes <= enough {
                return Ok(());
            }
            bytes -= self.state(&name).map_or(0, |log| log.bytes);
            self.remove(tables, &name)?;
            self.finished.applied.removed.push(name);
        }
        self.shorten(tables, bytes, enough)
    }

    /// Takes the oldest entries of the logs of this batch, from the largest first.
    fn shorten(&mut self, tables: &mut Tables<'_>, mut bytes: u64, enough: u64) -> Result<(), redb::Error> {
        let mut own: Vec<(u64, LogName)> =
            self.finished.logs.iter().filter_map(|(name, log)| Some((log.as_ref()?.bytes, name.clone()))).collect();
        own.sort_by(|one, other| other.cmp(one));
        for (_, name) in own {
            let Some(mut state) = self.state(&name) else { continue };
            let before = (state.first, state.bytes);
            while bytes > enough && state.first < state.last {
                let old = state.bytes;
                let first = state.first + 1;
                trim(tables, &mut state, first)?;
                bytes -= old - state.bytes;
            }
            if state.first != before.0 {
                self.finished.applied.trimmed.push((name.clone(), state.first));
                self.finished.logs.insert(name, Some(state));
            }
        }
        Ok(())
    }

    /// The disk that all entries use after the changes so far.
    fn bytes(&self) -> u64 {
        let changed = self.finished.logs.iter().map(|(name, state)| {
            let before = self.history.logs.get(name).map_or(0, |log| log.bytes);
            (before, state.as_ref().map_or(0, |state| state.bytes))
        });
        let (before, after) = changed.fold((0, 0), |sum, (before, after)| (sum.0 + before, sum.1 + after));
        self.history.bytes - before + after
    }

    fn seal(&self, place: &[u8], record: &impl Record) -> Result<Vec<u8>, redb::Error> {
        self.history.seal.seal(place, record).map_err(|error: StoreError| redb::Error::Io(std::io::Error::other(error)))
    }
}

/// Removes the entries before an offset.
fn trim(tables: &mut Tables<'_>, state: &mut LogState, first: u64) -> Result<(), redb::Error> {
    let first = first.min(state.last.saturating_add(1));
    for offset in state.first..first {
        let removed = tables.entries.remove((&state.key, offset))?.map(|sealed| sealed.value().len());
        state.bytes -= removed.map_or(0, cost).min(state.bytes);
    }
    state.first = state.first.max(first);
    Ok(())
}

fn remove_log(tables: &mut Tables<'_>, state: &LogState) -> Result<(), redb::Error> {
    let mut state = state.clone();
    let all = state.last.saturating_add(1);
    trim(tables, &mut state, all)?;
    tables.logs.remove(&state.key)?;
    Ok(())
}
