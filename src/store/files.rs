//! Files and folders that only their owner may read. Modes are Unix; elsewhere a file has the rights its folder gives it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::StoreError;
use super::access::Access;

/// Returns whether there is something at the path; failing to look is an error, not an absence.
pub(crate) fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|error| StoreError::file(path, "cannot be looked for", &error))
}

/// Makes the folder and its parents for the owner only; an existing folder keeps its mode.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| {
        StoreError::unusable(format!(
            "{}: the data folder cannot be made: {error}; name a folder that may be written with --data-dir or data_dir",
            path.display()
        ))
    })
}

/// Writes a file that must not exist yet, and syncs it and its name to disk. If root makes it, it belongs to the owner of
/// the folder, as far as the file system allows.
pub(crate) fn create_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let access = Access::of_new(path)?;
    create_with(path, contents, |file| access.map_or(Ok(()), |access| access.give(file)).or(Ok(())))
}

/// Writes a file that must not exist yet with the owner, the group and the mode of another one, and syncs it and its name
/// to disk.
pub(crate) fn create_like(model: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    let access = Access::of(model)?;
    create_with(path, contents, |file| access.give(file))
}

fn create_with(path: &Path, contents: &[u8], prepare: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    private(&mut options);
    let mut file = options.open(path)?;
    let written = prepare(&file).and_then(|()| file.write_all(contents)).and_then(|()| file.sync_all());
    if written.is_err() {
        // An incomplete file would be in the way of the next attempt.
        fs::remove_file(path).ok();
    }
    written?;
    sync_folder(path)
}

/// Opens a file for reading and writing, or makes an empty one for the folder's owner.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    match create_new(path, b"") {
        // Another process was faster.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => open(),
    }
}

/// Writes a file, or replaces the one that is there: after a crash it holds either the old contents or the new.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    private(&mut options);
    let mut file = options.open(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    drop(file);
    publish(&new, path)
}

/// Renames a file, and syncs the new name to disk.
pub(crate) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(to)
}

/// Returns the file that a path leads to: a rename over a symbolic link would replace the link. A path that leads nowhere
/// stays as it is.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Adds to the last part of a path: a file in the same folder, because only there a rename is atomic.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Syncs the folder of a file: a new name is only durable then. Windows neither needs nor offers it.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder_of(path))?.sync_all() } else { Ok(()) }
}

pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Lets only the owner read a file that is created with these options.
fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

/// Returns whether anyone except its owner may use a file. A pipe is private to the processes that share it.
pub(super) fn open_to_others(file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        let metadata = file.metadata()?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        Ok(metadata.is_file() && mode & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(false)
    }
}
