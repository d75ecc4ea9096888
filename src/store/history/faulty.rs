//! [`FaultyDisk`]: a disk in memory that loses what was not synced, fails, or is full, as a test wants.

use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::{BackendError, StorageBackend};

use super::disk::{Backend, Disk};

/// A disk in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What the process sees.
    seen: Vec<u8>,
    /// What is safe.
    synced: Vec<u8>,
    /// What was written since the last sync, in its order.
    unsynced: Vec<Unsynced>,
    /// How many more writes and syncs succeed.
    left: Option<u64>,
    /// The largest length that the file may have.
    full_at: Option<u64>,
    syncs: u64,
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl FaultyDisk {
    /// A disk with these bytes.
    pub(super) fn with(bytes: Vec<u8>) -> Self {
        let state = State { seen: bytes.clone(), synced: bytes, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().seen.clone()
    }

    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Lets this many more writes and syncs succeed.
    pub(super) fn fail_after(&self, writes: u64) {
        self.0.lock().left = Some(writes);
    }

    /// Lets the file grow to this length only.
    pub(super) fn fill_at(&self, len: u64) {
        self.0.lock().full_at = Some(len);
    }

    pub(super) fn heal(&self) {
        let mut state = self.0.lock();
        (state.left, state.full_at) = (None, None);
    }

    /// Cuts the power: each write that was not synced is on the disk, or not, or in part.
    pub(super) fn cut_power(&self, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let state = self.0.lock();
        let mut bytes = state.synced.clone();
        for unsynced in &state.unsynced {
            match unsynced {
                Unsynced::Length(len) if random.random() => bytes.resize(usize::try_from(*len).unwrap(), 0),
                Unsynced::Length(_) => {}
                Unsynced::Write(at, data) => {
                    // A disk writes sectors.
                    for (number, sector) in data.chunks(512).enumerate() {
                        let at = usize::try_from(*at).unwrap() + number * 512;
                        if random.random() && at + sector.len() <= bytes.len() {
                            bytes[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        Self::with(bytes)
    }

    /// Ends the process only: the system keeps what it has written.
    pub(super) fn kill(&self) -> Self {
        Self::with(self.bytes())
    }
}

impl State {
    fn count(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::other("the disk has failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self) -> io::Result<Backend> {
        self.0.lock().count()?;
        Ok(Backend::new(self.clone()))
    }

    fn open_to_read(&self) -> io::Result<Backend> {
        Ok(Backend::new(self.clone()))
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let state = self.0.lock();
        let bytes = state.seen.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.count()?;
        if len > state.seen.len() as u64 && state.full_at.is_some_and(|most| len > most) {
            return Err(ErrorKind::StorageFull.into());
        }
        state.seen.resize(usize::try_from(len).unwrap(), 0);
        state.unsynced.push(Unsynced::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.count()?;
        state.syncs += 1;
        state.synced = state.seen.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let mut state = self.0.lock();
        state.count()?;
        state.seen.get_mut(at..at + data.len()).ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        state.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }

    fn try_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}
