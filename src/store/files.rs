//! Files and folders that only their owner may read. Modes are Unix; elsewhere a file has the rights its folder gives it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;

use super::StoreError;
use super::access::Access;

/// Returns whether there is something at the path; failing to look is an error, not an absence.
pub(crate) fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|error| StoreError::file(path, "cannot be looked for", &error))
}

/// Makes the folder and its parents for the owner only; an existing folder keeps its mode.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    make_private_folder(path).map_err(|error| {
        StoreError::unusable(format!(
            "{}: the data folder cannot be made: {error}; name a folder that may be written with --data-dir or data_dir",
            path.display()
        ))
    })
}

/// As [`make_folder`], for a folder that is not the data folder. If root makes it in the folder of another user, it belongs
/// to that user, as far as the file system allows.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    if let Some(access) = Access::of_new(path)? {
        let mut options = OpenOptions::new();
        options.read(true);
        flags(&mut options, NO_WAIT_OR_FOLLOW);
        access.with_mode(0o700).give(&options.open(path)?).ok();
    }
    Ok(())
}

/// Writes a file that must not exist yet, and syncs it and its name to disk. If root makes it, it belongs to the owner of
/// the folder, as far as the file system allows.
pub(crate) fn create_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let access = Access::of_new(path)?;
    create_with(path, contents, |file| access.map_or(Ok(()), |access| access.give(file)).or(Ok(())))
}

/// As [`create_new`], but anyone may read the file: it has nothing to hide.
pub(crate) fn create_readable(path: &Path, contents: &[u8]) -> io::Result<()> {
    let access = Access::of_new(path)?;
    create_with(path, contents, |file| {
        access.map_or(Ok(()), |access| access.give(file)).ok();
        readable(file)
    })
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

/// Writes a file that must not exist yet, with the owner, the group and the mode of `model` if there is one. The file has
/// its name only when it is complete.
pub(crate) fn create_whole(model: Option<&Path>, path: &Path, contents: &[u8]) -> io::Result<()> {
    let making = making(path)?;
    match model {
        Some(model) => create_like(model, &making, contents),
        None => create_new(&making, contents),
    }?;
    // Unlike a rename, a link never replaces a file.
    let named = match fs::hard_link(&making, path) {
        Ok(()) => fs::remove_file(&making),
        // The file system may have no hard links.
        Err(error) if error.kind() != ErrorKind::AlreadyExists && fs::symlink_metadata(path).is_err() => {
            fs::rename(&making, path)
        }
        Err(error) => Err(error),
    };
    if named.is_err() {
        fs::remove_file(&making).ok();
    }
    named?;
    sync_folder(path)
}

/// Replaces a file by one with its owner, group and mode; a link stays, and the file that it leads to is replaced. After a
/// crash it holds either the old contents or the new.
pub(crate) fn replace_like(path: &Path, contents: &[u8]) -> io::Result<()> {
    let path = resolve(path);
    let making = making(&path)?;
    create_like(&path, &making, contents)?;
    publish(&making, &path).inspect_err(|_| {
        fs::remove_file(&making).ok();
    })
}

/// Returns the name of a file until it is complete. Two processes can make the same one, so each has a name of its own.
fn making(path: &Path) -> io::Result<PathBuf> {
    let number = SysRng.try_next_u64().map_err(io::Error::other)?;
    Ok(beside(path, &format!(".{number:016x}")))
}

/// Opens a file for reading and writing, or makes an empty one for the folder's owner. A symbolic link is refused: another
/// user may have made it.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let open = || open_own(path, OpenOptions::new().read(true).write(true));
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

/// Opens an existing regular file for reading and appending. If root does so in the folder of another user, a symbolic link
/// and a file that does not belong there are refused.
pub(crate) fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    if Access::of_new(path)?.is_some() {
        return open_own(path, &mut options);
    }
    flags(&mut options, NO_WAIT);
    regular(options.open(path)?)
}

/// Opens a regular file in the folder that its path names, not one elsewhere to which a link leads.
pub(super) fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    flags(options, NO_WAIT_OR_FOLLOW);
    let file = options.open(path).map_err(|error| {
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        if is_link { io::Error::new(error.kind(), "it is a symbolic link; remove the link") } else { error }
    })?;
    let file = regular(file)?;
    Access::check_own(path, &file)?;
    Ok(file)
}

/// Opens a regular file for reading. A pipe is refused, because it could keep the reader waiting for ever.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    flags(&mut options, NO_WAIT);
    regular(options.open(path)?)
}

/// Refuses a pipe, a folder and a device.
fn regular(file: File) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// Reads a regular file.
pub(crate) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file, or replaces the one that is there: after a crash it holds either the old contents or the new.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut options = OpenOptions::new();
    // Emptied only when it is known to belong here.
    options.write(true).create(true).truncate(false);
    private(&mut options);
    let mut file = open_own(&new, &mut options)?;
    file.set_len(0)?;
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

/// Lets anyone read an open file.
fn readable(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Does not wait for the other end of a pipe.
#[cfg(unix)]
const NO_WAIT: rustix::fs::OFlags = rustix::fs::OFlags::NONBLOCK;

/// Does not follow a symbolic link either.
#[cfg(unix)]
const NO_WAIT_OR_FOLLOW: rustix::fs::OFlags = NO_WAIT.union(rustix::fs::OFlags::NOFOLLOW);

#[cfg(not(unix))]
const NO_WAIT: () = ();

#[cfg(not(unix))]
const NO_WAIT_OR_FOLLOW: () = ();

#[cfg(unix)]
fn flags(options: &mut OpenOptions, flags: rustix::fs::OFlags) {
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.bits().cast_signed());
}

/// There are no such flags.
#[cfg(not(unix))]
fn flags(_options: &mut OpenOptions, _flags: ()) {}

/// Who may read a file with a secret.
#[derive(Clone, Copy, Debug)]
pub(super) enum Readers {
    /// Its owner alone.
    Owner,
    /// Its owner and its group.
    Group,
}

/// Returns whether anyone else may use a file. A pipe is private to the processes that share it.
pub(super) fn open_to_others(file: &File, readers: Readers) -> io::Result<bool> {
    let forbidden = match readers {
        Readers::Owner => 0o077,
        Readers::Group => 0o037,
    };
    #[cfg(unix)]
    {
        let metadata = file.metadata()?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        Ok(metadata.is_file() && mode & forbidden != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = (file, forbidden);
        Ok(false)
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, chown, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_file_is_whole_from_the_moment_it_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let done = AtomicBool::new(false);
        // Large, so that writing it takes long enough to be seen.
        let contents = vec![b'k'; 4 << 20];
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let length = fs::metadata(&path).map_or(contents.len() as u64, |metadata| metadata.len());
                    assert_eq!(length, contents.len() as u64, "half a file has the name");
                }
            });
            for _ in 0..20 {
                create_whole(None, &path, &contents).unwrap();
                fs::remove_file(&path).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_new_file_never_takes_the_place_of_another_file_or_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("key"), folder.path().join("link"));
        create_whole(None, &path, b"first").unwrap();
        symlink("nowhere", &link).unwrap();
        for path in [&path, &link] {
            assert_eq!(create_whole(None, path, b"second").unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_the_link_to_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("cert.pem"), folder.path().join("link"));
        create_readable(&path, b"first").unwrap();
        let mode = || path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        replace_like(&link, b"second").unwrap();
        assert!(link.is_symlink() && fs::read(&path).unwrap() == b"second" && mode() == 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_root_makes_in_the_folder_of_another_user_belongs_to_that_user() {
        let folder = tempfile::tempdir().unwrap();
        if fs::metadata(folder.path()).unwrap().uid() != 0 {
            return;
        }
        chown(folder.path(), Some(12345), Some(23456)).unwrap();
        let made = folder.path().join("tls");
        make_private_folder(&made).unwrap();
        let metadata = made.metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (12345, 23456, 0o700));
    }

    /// Opening must fail, and leave the file as it is.
    #[track_caller]
    fn check_refused(opened: io::Result<File>, words: &str) {
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_link_to_a_file_elsewhere_is_not_written_to() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "of another user").unwrap();
        let link = folder.path().join("link");
        for target in [&victim, &elsewhere.path().join("absent")] {
            symlink(target, &link).unwrap();
            check_refused(open_or_create(&link), "it is a symbolic link");
            fs::remove_file(&link).unwrap();
        }
        symlink(&victim, folder.path().join("position.new")).unwrap();
        replace(&folder.path().join("position"), b"42").unwrap_err();
        assert_eq!(fs::read(&victim).unwrap(), b"of another user");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_is_not_opened_and_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("position.new");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for opened in [open_or_create(&pipe), open_to_append(&pipe), open_regular(&pipe)] {
            check_refused(opened, "it is not a regular file");
        }
        replace(&folder.path().join("position"), b"42").unwrap_err();
    }

    #[test]
    fn root_writes_only_to_files_that_belong_to_the_folder_of_another_user() {
        let folder = tempfile::tempdir().unwrap();
        if fs::metadata(folder.path()).unwrap().uid() != 0 {
            return;
        }
        let victim = folder.path().join("victim");
        fs::write(&victim, "of root").unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        chown(&data, Some(12345), Some(23456)).unwrap();
        let path = data.join("file");
        symlink(&victim, &path).unwrap();
        check_refused(open_to_append(&path), "it is a symbolic link");
        fs::remove_file(&path).unwrap();
        fs::hard_link(&victim, &path).unwrap();
        for opened in [open_to_append(&path), open_or_create(&path)] {
            check_refused(opened, "belongs to user 0 and its folder to user 12345");
        }
        fs::remove_file(&path).unwrap();
        fs::hard_link(&victim, data.join("position.new")).unwrap();
        let replaced = replace(&data.join("position"), b"42").unwrap_err().to_string();
        assert!(replaced.contains("belongs to user 0 and its folder to user 12345"), "{replaced}");
        assert_eq!(fs::read(&victim).unwrap(), b"of root");
        // A file that root made there, and one that belongs to the owner of the folder.
        fs::write(&path, "").unwrap();
        open_to_append(&path).unwrap();
        chown(&path, Some(12345), None).unwrap();
        open_to_append(&path).unwrap();
        open_or_create(&path).unwrap();
        chown(&path, Some(12346), None).unwrap();
        check_refused(open_to_append(&path), "belongs to user 12346");
        assert_eq!(fs::read(&victim).unwrap(), b"of root");
    }
}
