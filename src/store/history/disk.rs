//! Where the file's bytes are: [`Disk`] opens it, [`Overlay`] lets redb work on it without changing it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::store::open_regular;

/// What redb reads and writes. Each opening of a file makes a new one.
#[derive(Clone, Debug)]
pub(super) struct Backend(Arc<dyn StorageBackend>);

impl Backend {
    pub(super) fn new(storage: impl StorageBackend) -> Self {
        Self(Arc::new(storage))
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

/// Where a history is kept. A test keeps one in memory and loses what was not synced.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Opens the file for reading and writing.
    fn open(&self) -> io::Result<Backend>;

    /// Opens it for reading only.
    fn open_to_read(&self) -> io::Result<Backend>;

    /// The memory for pages of the file, in bytes. redb's own default is 1 GiB.
    fn cache_bytes(&self) -> usize {
        CACHE_BYTES
    }
}

/// The memory for pages of a file on a real disk.
pub(super) const CACHE_BYTES: usize = 8 << 20;

/// A file.
#[derive(Debug)]
pub(super) struct FileDisk(pub(super) PathBuf);

impl Disk for FileDisk {
    fn open(&self) -> io::Result<Backend> {
        let file = OpenOptions::new().read(true).write(true).open(&self.0)?;
        Ok(Backend::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn open_to_read(&self) -> io::Result<Backend> {
        Ok(Backend::new(FileBackend::new(open_regular(&self.0)?).map_err(io::Error::other)?))
    }
}

/// The unit in which an [`Overlay`] keeps what is written, in bytes.
const BLOCK: u64 = 4096;

/// A file as it would be after some writes, which are kept in memory. The file is only read.
pub(super) struct Overlay {
    under: Backend,
    state: Mutex<Written>,
}

struct Written {
    len: u64,
    /// The length up to which blocks that were not written are those of the file. Beyond it, they are zeros.
    under_len: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay").finish_non_exhaustive()
    }
}

impl Overlay {
    pub(super) fn new(under: Backend) -> io::Result<Self> {
        let len = under.len()?;
        Ok(Self { under, state: Mutex::new(Written { len, under_len: len, blocks: BTreeMap::new() }) })
    }

    /// Returns the block with this number as it is now.
    fn block(&self, state: &Written, number: u64) -> io::Result<Box<[u8]>> {
        if let Some(block) = state.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
        let start = number * BLOCK;
        let there = usize::try_from(state.under_len.saturating_sub(start).min(BLOCK)).unwrap_or_default();
        if let Some(there) = block.get_mut(..there).filter(|there| !there.is_empty()) {
            self.under.read(start, there)?;
        }
        Ok(block.into())
    }

    /// Calls `work` with each block that a range meets: its number, the range in the block, and the range in the data.
    fn for_blocks(
        offset: u64,
        len: usize,
        mut work: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = usize::try_from(at % BLOCK).unwrap_or_default();
            let count = (usize::try_from(BLOCK).unwrap_or_default() - within).min(len - done);
            work(at / BLOCK, within..within + count, done..done + count)?;
            done += count;
        }
        Ok(())
    }
}

fn out_of_range() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "beyond the end of the file")
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.len) {
            return Err(out_of_range());
        }
        if state.blocks.is_empty() && offset + out.len() as u64 <= state.under_len {
            return self.under.read(offset, out);
        }
        Self::for_blocks(offset, out.len(), |number, within, of_data| {
            let block = self.block(&state, number)?;
            let (Some(from), Some(to)) = (block.get(within), out.get_mut(of_data)) else { return Err(out_of_range()) };
            to.copy_from_slice(from);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if len < state.len {
            state.under_len = state.under_len.min(len);
            state.blocks.split_off(&len.div_ceil(BLOCK));
            let (last, kept) = (len / BLOCK, usize::try_from(len % BLOCK).unwrap_or_default());
            if let Some(block) = state.blocks.get_mut(&last).and_then(|block| block.get_mut(kept..)) {
                block.fill(0);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > state.len) {
            return Err(out_of_range());
        }
        Self::for_blocks(offset, data.len(), |number, within, of_data| {
            let mut block = self.block(&state, number)?;
            let (Some(to), Some(from)) = (block.get_mut(within), data.get(of_data)) else { return Err(out_of_range()) };
            to.copy_from_slice(from);
            state.blocks.insert(number, block);
            Ok(())
        })
    }
}
