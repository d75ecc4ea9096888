//! [`FaultyDisk`]: a disk in memory that loses what was not synced, fails, hangs, or is full, as a test wants.

use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::{BackendError, StorageBackend};

use super::disk::{Backend, CACHE_BYTES, Disk};
use super::start::create;
use super::tables::STORE;
use super::{FILE, HistoryFile, HistoryLimits, Loaded};
use crate::store::{Cipher, Key, StoreError};

/// How long a sync or a read hangs at most, so that a test ends that does not release it.
const HANGS_AT_MOST: Duration = Duration::from_mins(1);

/// A disk in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The disk hangs no longer, or has begun to.
    changed: Condvar,
}

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
    hangs: bool,
    hangs_reads: bool,
    /// Everything is read from it anew.
    is_uncached: bool,
    /// How many syncs and reads hang now.
    hanging: usize,
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl FaultyDisk {
    /// A disk with an empty history, whose key consists of this digit.
    pub(crate) fn with_history(digit: char) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        drop(create(&path, &Cipher::new(&key(digit), STORE).key_check().unwrap(), |_| Ok(())).unwrap());
        Self::with(std::fs::read(path).unwrap())
    }

    /// Opens the history that it has.
    pub(crate) fn open_history(
        &self,
        digit: char,
        limits: HistoryLimits,
        visit: &mut dyn FnMut(Loaded),
    ) -> Result<Option<HistoryFile>, StoreError> {
        let path = PathBuf::from("/disk").join(FILE);
        HistoryFile::open_on(Arc::new(self.clone()), path, &key(digit), limits, visit)
    }

    /// A disk with these bytes.
    pub(super) fn with(bytes: Vec<u8>) -> Self {
        let state = State { seen: bytes.clone(), synced: bytes, ..State::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Lets no sync end until the disk heals.
    pub(crate) fn hang(&self) {
        self.0.state.lock().hangs = true;
    }

    /// Lets nothing that is read from it be kept in memory, once it is opened again.
    pub(crate) fn cache_nothing(&self) {
        self.0.state.lock().is_uncached = true;
    }

    /// Lets no read end until the disk heals.
    pub(crate) fn hang_reads(&self) {
        self.0.state.lock().hangs_reads = true;
    }

    /// Waits until a sync or a read hangs.
    pub(crate) fn wait_until_it_hangs(&self) {
        let mut state = self.0.state.lock();
        let waited = self.0.changed.wait_while_for(&mut state, |state| state.hanging == 0, HANGS_AT_MOST);
        assert!(!waited.timed_out(), "the disk is not used");
    }

    fn wait(&self, state: &mut MutexGuard<'_, State>, hangs: impl Fn(&State) -> bool) {
        state.hanging += 1;
        self.0.changed.notify_all();
        self.0.changed.wait_while_for(state, |state| hangs(state), HANGS_AT_MOST);
        state.hanging -= 1;
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.state.lock().seen.clone()
    }

    pub(super) fn syncs(&self) -> u64 {
        self.0.state.lock().syncs
    }

    /// Lets this many more writes and syncs succeed.
    pub(crate) fn fail_after(&self, writes: u64) {
        self.0.state.lock().left = Some(writes);
    }

    /// Lets the file grow to this length only.
    pub(crate) fn fill_at(&self, len: u64) {
        self.0.state.lock().full_at = Some(len);
    }

    pub(crate) fn heal(&self) {
        let mut state = self.0.state.lock();
        (state.left, state.full_at, state.hangs, state.hangs_reads) = (None, None, false, false);
        self.0.changed.notify_all();
    }

    /// Cuts the power: each write that was not synced is on the disk, or not, or in part.
    pub(super) fn cut_power(&self, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let state = self.0.state.lock();
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
    pub(crate) fn kill(&self) -> Self {
        Self::with(self.bytes())
    }
}

fn key(digit: char) -> Key {
    Key::parse(&digit.to_string().repeat(64)).unwrap()
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
        self.0.state.lock().count()?;
        Ok(Backend::new(self.clone()))
    }

    fn open_to_read(&self) -> io::Result<Backend> {
        Ok(Backend::new(self.clone()))
    }

    fn cache_bytes(&self) -> usize {
        if self.0.state.lock().is_uncached { 0 } else { CACHE_BYTES }
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let mut state = self.0.state.lock();
        self.wait(&mut state, |state| state.hangs_reads);
        let bytes = state.seen.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.count()?;
        if len > state.seen.len() as u64 && state.full_at.is_some_and(|most| len > most) {
            return Err(ErrorKind::StorageFull.into());
        }
        state.seen.resize(usize::try_from(len).unwrap(), 0);
        state.unsynced.push(Unsynced::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.state.lock();
        self.wait(&mut state, |state| state.hangs);
        state.count()?;
        state.syncs += 1;
        state.synced = state.seen.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let mut state = self.0.state.lock();
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
