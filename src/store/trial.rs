//! Tries whether files and folders can be used, and changes nothing: on a file system that has no files without a name, a file
//! is made and removed again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::files::{folder_of, open_own};
use super::{StoreError, beside, create_new, open_to_append};

/// Tries whether a data folder can be used: files can be made in it or, if it does not exist, it can be made.
///
/// # Errors
/// Why neither is possible.
pub(crate) fn try_folder(path: &Path) -> Result<(), StoreError> {
    let outcome = try_to_make_files(path);
    outcome.map_err(|(what, error)| {
        StoreError::unusable(format!(
            "{}: {what}: {error}; name a folder that may be written with --data-dir or data_dir",
            path.display()
        ))
    })
}

/// Tries whether a file can be made at a path, in a folder that exists.
pub(crate) fn try_new_file(path: &Path) -> io::Result<()> {
    try_new_name(path)?;
    make_unnamed(&folder_of(path))
}

/// Tries whether nothing has the name of a new file, not even a link that leads nowhere.
pub(crate) fn try_new_name(path: &Path) -> io::Result<()> {
    if is_taken(path) { Err(ErrorKind::AlreadyExists.into()) } else { Ok(()) }
}

/// Tries whether a file could be appended to, if it exists. Returns whether there is one.
pub(crate) fn try_file(path: &Path) -> io::Result<bool> {
    is_there(path, open_to_append(path))
}

/// The same for a file that can be behind a symbolic link. A link that leads nowhere is replaced by a new file, so there is
/// none.
pub(crate) fn try_linked_file(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().read(true).append(true).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tries whether a lock could be taken, if its file exists.
pub(crate) fn try_lock_file(path: &Path) -> io::Result<bool> {
    is_there(path, open_own(path, OpenOptions::new().read(true).write(true)))
}

fn is_there(path: &Path, opened: io::Result<File>) -> io::Result<bool> {
    match opened {
        Ok(_) => Ok(true),
        // A link that leads nowhere is in the way of a new file.
        Err(error) if error.kind() == ErrorKind::NotFound && !is_taken(path) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns whether something has this name.
fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Tries the folder, or its first parent that exists.
fn try_to_make_files(path: &Path) -> Result<(), (&'static str, io::Error)> {
    for folder in path.ancestors() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match fs::metadata(folder) {
            // A link that leads nowhere is in the way of a new folder.
            Err(error) if error.kind() == ErrorKind::NotFound && !is_taken(folder) => {}
            Err(error) => return Err(("the data folder cannot be used", error)),
            Ok(metadata) => {
                let is_it = folder == path;
                let what =
                    if is_it { "files cannot be made in the data folder" } else { "the data folder cannot be made" };
                let outcome =
                    if metadata.is_dir() { make_unnamed(folder) } else { Err(ErrorKind::NotADirectory.into()) };
                return outcome.map_err(|error| (what, error));
            }
        }
    }
    Ok(())
}

/// Makes a file without a name, which is gone when it is closed.
#[cfg(target_os = "linux")]
fn make_unnamed(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::io::Errno;
    match open(folder, OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Ok(()),
        // The file system cannot make such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => make_and_remove(folder),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn make_unnamed(folder: &Path) -> io::Result<()> {
    make_and_remove(folder)
}

/// Makes a file and removes it. One that a killed process left is removed too: its folder can be written as well.
fn make_and_remove(folder: &Path) -> io::Result<()> {
    let path = beside(&folder.join(".switchboard-trial"), &std::process::id().to_string());
    match create_new(&path, b"") {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    match fs::remove_file(&path) {
        // By a process with the same number, in another container.
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_killed_process_left_is_not_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(format!(".switchboard-trial{}", std::process::id()));
        fs::write(&left, "").unwrap();
        make_and_remove(folder.path()).unwrap();
        assert!(!left.exists());
    }
}
