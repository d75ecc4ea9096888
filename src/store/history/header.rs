//! redb's header, as far as it says which of its two commits is the newer one and how long the file is.
//!
//! A commit is written into the slot that is not the primary one and synced; then a bit makes its slot the primary one. redb
//! follows that bit and nothing else. If the bit is flipped by a fault of the disk, it would open the commit before the last,
//! which is sound in itself, and what the last commit had would be lost in silence. So the broker first looks whether the
//! other slot has a newer commit that is complete. After a crash between the two writes that is the commit of events that
//! were neither delivered nor confirmed, which may be in the log or not.

use std::io;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::start::builder;

/// The length of the header in bytes.
pub(super) const HEADER_BYTES: usize = 320;

/// Where the byte with the bit of the primary slot is.
pub(super) const FLAGS_AT: u64 = 9;

const PRIMARY: u8 = 1;
const RECOVERY_REQUIRED: u8 = 2;
const TWO_PHASE_COMMIT: u8 = 4;
const PAGE_BYTES: u64 = 4096;
const SLOTS_AT: [usize; 2] = [64, 192];
const TRANSACTION_AT: usize = 104;

/// The part that is the same in every file: the magic number; after the flags, the size of a page and of a region.
const MAGIC: std::ops::Range<usize> = 0..9;
const GEOMETRY: std::ops::Range<usize> = 10..24;
const REGION_HEADER_AT: usize = 16;
const REGION_PAGES_AT: usize = 20;

/// How many regions are complete, and how many pages the last one has.
const REGIONS_AT: usize = 24;
const LAST_REGION_AT: usize = 28;

/// A file's header.
pub(super) struct Header([u8; HEADER_BYTES]);

impl Header {
    /// Reads the header of a file. `None` if the file is shorter.
    pub(super) fn read(file: &impl StorageBackend) -> io::Result<Option<Self>> {
        if file.len()? < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        file.read(0, &mut header)?;
        Ok(Some(Self(header)))
    }

    /// Returns the byte at [`FLAGS_AT`] with which the other slot is the primary one, if that slot has the higher number.
    pub(super) fn newer_commit(&self) -> Option<u8> {
        let [first, second] = SLOTS_AT.map(|slot| self.number(slot + TRANSACTION_AT));
        let is_other_newer = if self.flags() & PRIMARY == 0 { second > first } else { first > second };
        is_other_newer.then_some(self.flags() ^ PRIMARY)
    }

    /// Makes this the header of a file of this length that was closed in order, with one slot or the other as the primary
    /// one. Everything that is the same in every file is written anew. Returns the length that the file has to have.
    pub(super) fn restore(&mut self, len: u64, slot: usize) -> Result<u64, redb::Error> {
        let sound = fresh()?;
        for range in [MAGIC, GEOMETRY] {
            if let (Some(to), Some(from)) = (self.0.get_mut(range.clone()), sound.0.get(range)) {
                to.copy_from_slice(from);
            }
        }
        let region_header = u64::from(self.half(REGION_HEADER_AT));
        let region = region_header + u64::from(self.half(REGION_PAGES_AT));
        let pages = len.div_ceil(PAGE_BYTES).saturating_sub(1).max(region_header + 1);
        let last = (pages % region).saturating_sub(region_header);
        self.put(REGIONS_AT, u32::try_from(pages / region).unwrap_or_default());
        self.put(LAST_REGION_AT, u32::try_from(last).unwrap_or_default());
        let primary = if slot == 0 { 0 } else { PRIMARY };
        if let Some(flags) = self.0.get_mut(MAGIC.end) {
            *flags = primary | TWO_PHASE_COMMIT & !RECOVERY_REQUIRED;
        }
        Ok((1 + pages) * PAGE_BYTES)
    }

    /// The slot with the higher number.
    pub(super) fn newest_slot(&self) -> usize {
        let [first, second] = SLOTS_AT.map(|slot| self.number(slot + TRANSACTION_AT));
        usize::from(second > first)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn flags(&self) -> u8 {
        self.0.get(MAGIC.end).copied().unwrap_or_default()
    }

    fn number(&self, at: usize) -> u64 {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn half(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn put(&mut self, at: usize, number: u32) {
        if let Some(to) = self.0.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *to = number.to_le_bytes();
        }
    }
}

/// The header of a file that redb has just made.
fn fresh() -> Result<Header, redb::Error> {
    let memory = super::disk::Backend::new(InMemoryBackend::new());
    let database = builder().create_with_backend(memory.clone())?;
    let header = Header::read(&memory)?;
    drop(database);
    header.ok_or_else(|| super::tables::damaged("a new file has no header"))
}
