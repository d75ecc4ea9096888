//! Checks a whole file before redb may write to it, on an [`Overlay`].

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Database, ReadTransaction, ReadableDatabase, StorageBackend};

use super::builder;
use super::disk::{Backend, Disk, Overlay};
use super::header::{FLAGS_AT, Header};
use super::tables::damaged;

/// Opens a copy that shares the file's bytes and checks its structure, then calls `read`. Nothing is written to the file.
///
/// Returns also the byte at [`FLAGS_AT`] that the file has to have, if it is another one: see `header`.
pub(super) fn check<T>(
    disk: &dyn Disk,
    read: &dyn Fn(&ReadTransaction) -> Result<T, redb::Error>,
) -> Result<(T, Option<u8>), redb::Error> {
    let under = disk.open_to_read()?;
    if under.len()? == 0 {
        return Err(damaged("the file is empty"));
    }
    let found = match check_copy(Overlay::new(under.clone())?, read) {
        Err(redb::Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(damaged("it ends before a part that belongs to it"))
        }
        found => found,
    }?;
    if let Some(flags) = newer(&under)? {
        let overlay = Overlay::new(under)?;
        overlay.write(FLAGS_AT, &[flags])?;
        // A commit that was cut off is not complete, and the one before it is the last.
        if let Ok(Ok(newer)) = catch_unwind(AssertUnwindSafe(|| check_copy(overlay, read))) {
            return Ok((newer, Some(flags)));
        }
    }
    Ok((found, None))
}

fn newer(under: &Backend) -> io::Result<Option<u8>> {
    Ok(Header::read(under)?.and_then(|header| header.newer_commit()))
}

fn check_copy<T>(copy: Overlay, read: &dyn Fn(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let mut database: Database = builder().create_with_backend(copy)?;
    if !database.check_integrity()? {
        return Err(damaged("checksums do not fit"));
    }
    read(&database.begin_read()?)
}

/// Reads a file that [`check`] has found sound, with the flags that it returned.
pub(super) fn read<T>(
    disk: &dyn Disk,
    flags: Option<u8>,
    read: &mut dyn FnMut(&ReadTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let overlay = Overlay::new(disk.open_to_read()?)?;
    if let Some(flags) = flags {
        overlay.write(FLAGS_AT, &[flags])?;
    }
    let database: Database = builder().create_with_backend(overlay)?;
    read(&database.begin_read()?)
}
