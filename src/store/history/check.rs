//! Checks a whole file before redb may write to it, on an [`Overlay`].

use std::io;

use redb::{Database, ReadTransaction, ReadableDatabase, StorageBackend};

use super::disk::{Backend, Disk, Overlay};
use super::header::{FLAGS_AT, Header};
use super::start::builder;
use super::tables::damaged;
use crate::store::quiet::catch_quietly;

/// Opens a copy that shares the file's bytes and checks its structure, then calls `read`. Nothing is written to the file.
///
/// Returns also the byte at [`FLAGS_AT`] that the file has to have, if it is another one: see `header`. Then `probe` was called
/// before, for both commits, to find out whether the newer one is complete.
pub(super) fn check<T>(
    disk: &dyn Disk,
    probe: &dyn Fn(&ReadTransaction) -> Result<T, redb::Error>,
    read: &mut dyn FnMut(&ReadTransaction) -> Result<T, redb::Error>,
) -> Result<(T, Option<u8>), redb::Error> {
    let under = disk.open_to_read()?;
    if under.len()? == 0 {
        return Err(damaged("the file is empty"));
    }
    let with = |flags: Option<u8>| -> Result<Overlay, redb::Error> {
        let overlay = Overlay::new(under.clone())?;
        if let Some(flags) = flags {
            overlay.write(FLAGS_AT, &[flags])?;
        }
        Ok(overlay)
    };
    let mut flags = newer(&under)?;
    if flags.is_some() {
        explained(check_copy(with(None)?, &mut |it| probe(it)))?;
        // A commit that was cut off is not complete, and the one before it is the last.
        if !matches!(catch_quietly(|| check_copy(with(flags)?, &mut |it| probe(it))), Ok(Ok(_))) {
            flags = None;
        }
    }
    Ok((explained(check_copy(with(flags)?, read))?, flags))
}

/// Says what it means that a file ends early.
fn explained<T>(checked: Result<T, redb::Error>) -> Result<T, redb::Error> {
    match checked {
        Err(redb::Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(damaged("it ends before a part that belongs to it"))
        }
        checked => checked,
    }
}

fn newer(under: &Backend) -> io::Result<Option<u8>> {
    Ok(Header::read(under)?.and_then(|header| header.newer_commit()))
}

fn check_copy<T>(
    copy: Overlay,
    read: &mut dyn FnMut(&ReadTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
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
