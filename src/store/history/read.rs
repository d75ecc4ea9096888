//! [`HistoryReader`]: reads entries of logs, while another thread writes to the file.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use super::open::{OpenFile, Pin};
use super::record::{Entry, LogName};
use super::tables::{ENTRIES, Seal, damaged, entry_place};
use super::{HistoryFile, unavailable};
use crate::store::StoreError;
use crate::store::database::Name;

/// The entries that are read at once.
const ENTRIES_MAX: usize = 256;

/// The bytes of their records beyond which no other is read.
const BYTES_MAX: usize = 1 << 20;

/// Reads what a history file has. Everything here may block.
pub struct HistoryReader {
    name: Name,
    seal: Arc<Seal>,
    open: Arc<OpenFile>,
}

/// Entries of a log that are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// The log.
    pub log: LogName,
    /// Its epoch.
    pub epoch: Arc<str>,
    /// The offsets.
    pub offsets: RangeInclusive<u64>,
    /// The last ones are read first.
    pub backwards: bool,
}

/// Why entries could not be read.
#[derive(Debug)]
pub enum Unread {
    /// The log has another epoch, or no longer has the first one of them.
    Gone,
    /// The file cannot be read.
    Fault(StoreError),
}

impl HistoryFile {
    /// What reads the file on another thread.
    pub fn reader(&self) -> HistoryReader {
        HistoryReader { name: self.name.clone(), seal: Arc::clone(&self.seal), open: Arc::clone(&self.open) }
    }
}

impl HistoryReader {
    /// Reads the first of these entries, or the last if they are wanted backwards: at least one, and a bounded number. Reads
    /// with the same pin see one state of the file, for some seconds.
    ///
    /// # Errors
    /// [`Unread`].
    pub fn read(&self, now: Instant, pin: &Pin, wanted: &ReadRange) -> Result<Vec<(u64, Entry)>, Unread> {
        let ReadRange { log, epoch, offsets, backwards } = wanted;
        let key = self.seal.log_key(log, epoch);
        let read = self.name.guarded(|| {
            self.open.read(now, pin, |transaction| {
                let table = transaction.open_table(ENTRIES)?;
                let mut range = table.range((&key, *offsets.start())..=(&key, *offsets.end()))?;
                let (mut found, mut bytes) = (Vec::new(), 0);
                let mut next = Some(if *backwards { *offsets.end() } else { *offsets.start() });
                while found.len() < ENTRIES_MAX && bytes < BYTES_MAX {
                    let row = if *backwards { range.next_back() } else { range.next() };
                    let Some((place, sealed)) = row.transpose()? else { break };
                    let (_, offset) = place.value();
                    if Some(offset) != next {
                        break;
                    }
                    next = if *backwards { offset.checked_sub(1) } else { offset.checked_add(1) };
                    bytes += sealed.value().len();
                    let entry = self.seal.open(&entry_place(&key, offset), sealed.value());
                    let altered = || damaged(&format!("offset {offset} was altered or moved in the log of {log}"));
                    found.push((offset, entry.ok_or_else(altered)?));
                }
                Ok(found)
            })
        });
        match read {
            Ok(Some(found)) if found.is_empty() => Err(Unread::Gone),
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(Unread::Fault(unavailable(&self.name))),
            Err(fault) => Err(Unread::Fault(fault)),
        }
    }

    /// Ends the states of the file that were pinned some seconds ago, so that it can use the room of removed entries again.
    /// To be called every second.
    pub fn release_old(&self, now: Instant) {
        self.open.release_old(now);
    }
}
