//! [`HistoryFile::probe`]: shows that the disk can be written again after a fault, without an event.
//!
//! A commit without changes succeeds on a full disk, and so does a small one that finds room in the file. So a probe writes
//! as much as the batch that failed, and removes it again: the next events find that room.

use std::time::Instant;

use zeroize::Zeroizing;

use super::tables::{META, probe_place};
use super::{HistoryFile, REOPEN_AFTER};
use crate::store::StoreError;

/// The row of a probe.
const PROBE: &str = "probe";

/// The bytes that a probe writes at least.
const BYTES_MIN: usize = 4 << 10;

/// The bytes that a probe writes at most, however long the batch was: an event is not longer, unless
/// `limits.message_bytes` was raised.
const BYTES_MAX: usize = 1 << 20;

impl HistoryFile {
    /// Opens the file again after a fault, writes to it, and removes what was written. Does nothing if there was no fault
    /// since the last probe or batch.
    ///
    /// # Errors
    /// The file cannot be written, or the last attempt is less than a second ago.
    pub fn probe(&mut self, now: Instant) -> Result<(), StoreError> {
        self.probe_if(now, || true)
    }

    /// The same, unless `is_wanted` returns `false` when it is done, because it took too long.
    ///
    /// # Errors
    /// Those of [`HistoryFile::probe`], or it was given up.
    pub fn probe_if(&mut self, now: Instant, is_wanted: impl FnOnce() -> bool) -> Result<(), StoreError> {
        if self.open.is_open() {
            return Ok(());
        }
        self.reopen(now)?;
        let written =
            self.write_probe().and_then(|()| if is_wanted() { Ok(()) } else { Err(super::given_up(&self.name)) });
        if written.is_err() {
            self.close_until(now + REOPEN_AFTER);
        }
        written
    }

    fn write_probe(&self) -> Result<(), StoreError> {
        let bytes = self.failed_bytes.clamp(BYTES_MIN, BYTES_MAX);
        // Sealed, so that no file system can make it shorter.
        let sealed = self.seal.cipher().seal(&probe_place(), Zeroizing::new(vec![0; bytes]))?;
        for row in [Some(&*sealed), None] {
            self.name.guarded(|| {
                let database = self.open.database();
                let Some(database) = &*database else { return Err(redb::Error::PreviousIo) };
                let mut transaction = database.begin_write()?;
                transaction.set_quick_repair(true);
                let mut meta = transaction.open_table(META)?;
                match row {
                    Some(sealed) => drop(meta.insert(PROBE, sealed)?),
                    None => drop(meta.remove(PROBE)?),
                }
                drop(meta);
                Ok(transaction.commit()?)
            })?;
        }
        Ok(())
    }
}
