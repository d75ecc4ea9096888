//! [`Reader`]: reads events of logs from JetStream, a portion at a time. Everything is read from the leader of the stream.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::logs::{Logs, Place, epoch_of};
use super::record::Record;
use crate::router::MissingEntry;
use crate::server::cluster::jetstream::{Read, StorageError};
use crate::store::history::{LogName, ReadRange};

/// The events of a portion, and their bytes beyond which none is added.
const PORTION: u64 = 256;
const PORTION_BYTES: usize = 1 << 20;

/// The places at which reads ended that are remembered. Beyond that, all are forgotten, and looked for.
const ENDED_MAX: usize = 16_384;

/// Why events cannot be read.
pub(super) enum Unread {
    /// The log has another epoch, or no longer has the first one of them.
    Gone,
    Storage(StorageError),
}

impl From<StorageError> for Unread {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Reads events.
pub(super) struct Reader {
    pub(super) logs: Arc<Logs>,
    /// Offset and sequence of the event with which the last read of a log ended.
    ended: Mutex<HashMap<LogName, (u64, u64)>>,
}

impl Reader {
    pub(super) fn new(logs: Arc<Logs>) -> Self {
        Self { logs, ended: Mutex::default() }
    }

    /// Reads the first of these events, or the last if they are wanted backwards: at least one, unless there is none that
    /// opens, and a bounded number.
    ///
    /// # Errors
    /// [`Unread`]
    pub(super) async fn read(&self, range: &ReadRange) -> Result<Vec<MissingEntry>, Unread> {
        let place = self.logs.place(&range.log);
        let (first, last) = (*range.offsets.start(), *range.offsets.end());
        let from = if range.backwards { last.saturating_sub(PORTION - 1).max(first) } else { first };
        let mut next = self.find(&range.log, &place, from).await?;
        if !range.backwards && next.as_ref().is_none_or(|read| place.offset(read) > first) {
            return Err(Unread::Gone);
        }
        let epoch = match place.has_headers {
            true => None,
            false => Some(self.logs.stream(&place.stream).await?.0),
        };
        let (mut entries, mut bytes, mut portion) = (Vec::new(), 0, 0);
        while let Some(read) = next.take() {
            let offset = place.offset(&read);
            if epoch.clone().unwrap_or_else(|| epoch_of(&read)) != range.epoch {
                return Err(Unread::Gone);
            }
            if offset > last {
                break;
            }
            portion += 1;
            if let Some(entry) = self.open(&place, offset, &read) {
                bytes += entry.entry.text.len();
                entries.push(entry);
            }
            let is_full = !range.backwards && (portion >= PORTION || bytes >= PORTION_BYTES) && !entries.is_empty();
            if offset == last || is_full {
                self.note_end(&range.log, offset, read.sequence);
                break;
            }
            next = self.logs.storage.first_from(&place.stream, &place.subject, read.sequence + 1).await?;
        }
        if range.backwards {
            entries.reverse();
        }
        Ok(entries)
    }

    fn open(&self, place: &Place, offset: u64, read: &Read) -> Option<MissingEntry> {
        let text = self.logs.storage.open_stored(place.at(offset), &read.sealed)?;
        let record = Record::read(&text)?;
        Some(MissingEntry { offset, attempt: record.attempt, entry: record.entry() })
    }

    fn note_end(&self, log: &LogName, offset: u64, sequence: u64) {
        let mut ended = self.ended.lock();
        if ended.len() >= ENDED_MAX {
            ended.clear();
        }
        ended.insert(log.clone(), (offset, sequence));
    }

    /// Reads the first event whose offset is at least this.
    async fn find(&self, log: &LogName, place: &Place, offset: u64) -> Result<Option<Read>, StorageError> {
        let from = async |sequence| self.logs.storage.first_from(&place.stream, &place.subject, sequence).await;
        if !place.has_headers {
            return from(offset).await;
        }
        let ended = self.ended.lock().get(log).copied();
        if let Some((_, sequence)) = ended.filter(|(ended, _)| ended + 1 == offset)
            && let Some(read) = from(sequence + 1).await?.filter(|read| place.offset(read) == offset)
        {
            return Ok(Some(read));
        }
        let Some(last) = self.logs.storage.last(&place.stream, &place.subject).await? else { return Ok(None) };
        if place.offset(&last) <= offset {
            return Ok((place.offset(&last) == offset).then_some(last));
        }
        let Some(first) = from(1).await?.filter(|first| place.offset(first) < offset) else { return from(1).await };
        let (mut low, mut high) = ((first.sequence, place.offset(&first)), (last.sequence, place.offset(&last)));
        // In a stream with many users, the sequences between two events of a log are not known. Every other guess halves.
        for turn in 0_u32.. {
            let sequences = high.0.saturating_sub(low.0);
            if sequences <= 1 {
                break;
            }
            let share = |part: u64, of: u64| {
                u64::try_from(u128::from(sequences) * u128::from(part) / u128::from(of.max(1))).unwrap_or(sequences)
            };
            let step = if turn % 2 == 0 { share(offset - low.1, high.1 - low.1) } else { sequences / 2 };
            let guess = low.0 + step.clamp(1, sequences - 1);
            let Some(read) = from(guess).await? else { break };
            match place.offset(&read) {
                found if found == offset => return Ok(Some(read)),
                found if found < offset => low = (read.sequence, found),
                found => high = (guess, found),
            }
        }
        from(low.0 + 1).await
    }
}
