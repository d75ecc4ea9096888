//! [`Access`]: the owner, the group and the mode of a file that replaces another one, or that root makes for the owner of
//! the folder: the broker's user has to read what an administrator's command writes.

use std::fs::File;
use std::io;
use std::path::Path;

/// Who a file belongs to, and who may use it. Unix only; elsewhere a file has the rights its folder gives it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    #[cfg(unix)]
    owner: u32,
    #[cfg(unix)]
    group: u32,
    #[cfg(unix)]
    mode: u32,
}

#[cfg(unix)]
impl Access {
    /// Returns that of a file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path)?;
        Ok(Self { owner: metadata.uid(), group: metadata.gid(), mode: metadata.mode() & 0o777 })
    }

    /// Returns that of a new file which root makes in the folder of another user. `None` for any other user and in root's
    /// own folders.
    pub(super) fn of_new(path: &Path) -> io::Result<Option<Self>> {
        let folder = Self::of(&super::files::folder_of(path))?;
        let foreign = rustix::process::geteuid().is_root() && folder.owner != 0;
        Ok(foreign.then_some(Self { mode: 0o600, ..folder }))
    }

    /// Returns it with another mode.
    pub(super) fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Refuses an open file that root has not made for the owner of the folder: the owner can put a hard link to any file
    /// there. A file of root's with a single name is accepted: it is in this folder only.
    pub(super) fn check_own(path: &Path, file: &File) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let Some(folder) = Self::of_new(path)? else { return Ok(()) };
        let metadata = file.metadata()?;
        if metadata.uid() == folder.owner || metadata.uid() == 0 && metadata.nlink() == 1 {
            return Ok(());
        }
        let (owner, of_folder) = (metadata.uid(), folder.owner);
        let words = format!("the file belongs to user {owner} and its folder to user {of_folder}; remove the file");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, words))
    }

    /// Gives it to an open file. Works on the file and not on its name, which can be made a link to another file meanwhile.
    pub(super) fn give(self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let metadata = file.metadata()?;
        let owner = (metadata.uid() != self.owner).then_some(self.owner);
        let group = (metadata.gid() != self.group).then_some(self.group);
        // A folder can give its own group to what is made in it. That is not worth an error for a mode of 0600.
        let needed = owner.is_some() || self.mode & 0o070 != 0;
        if owner.is_some() || group.is_some() {
            fchown(file, owner, group).or_else(|error| if needed { Err(self.not_given(&error)) } else { Ok(()) })?;
        }
        if metadata.mode() & 0o777 != self.mode {
            file.set_permissions(std::fs::Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }

    fn not_given(self, error: &io::Error) -> io::Error {
        let Self { owner, group, .. } = self;
        let advice = format!("it has to belong to user {owner} and group {group}; run the command as that user");
        io::Error::new(error.kind(), format!("{error}: {advice}"))
    }
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the same signatures as on Unix")]
impl Access {
    pub(super) fn of(_path: &Path) -> io::Result<Self> {
        Ok(Self {})
    }

    pub(super) fn of_new(_path: &Path) -> io::Result<Option<Self>> {
        Ok(None)
    }

    pub(super) fn with_mode(self, _mode: u32) -> Self {
        self
    }

    pub(super) fn check_own(_path: &Path, _file: &File) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn give(self, _file: &File) -> io::Result<()> {
        Ok(())
    }
}
