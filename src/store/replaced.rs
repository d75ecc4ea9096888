//! [`Replaced`]: a file that lost its name to a new one, and can still be overwritten.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, Write};
use std::path::Path;

/// A file that was replaced and has no name any more.
#[must_use = "what it contains can be read from the disk until it is overwritten"]
pub(crate) struct Replaced(File);

impl Replaced {
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(Self(file))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Overwrites it with zeros. A file that has another name, a hard link, is someone's backup and stays as it is.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn overwrite(mut self) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        #[cfg(unix)]
        if std::os::unix::fs::MetadataExt::nlink(&self.0.metadata()?) > 0 {
            return Ok(());
        }
        let mut left = self.0.metadata()?.len();
        self.0.rewind()?;
        while left > 0 {
            let length = left.min(ZEROS.len() as u64);
            left -= length;
            self.0.write_all(ZEROS.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default())?;
        }
        self.0.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;

    #[test]
    fn a_file_that_has_lost_its_name_is_overwritten_and_a_backup_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (path, backup) = (folder.path().join("file"), folder.path().join("backup"));
        let secret = b"secret".repeat(20_000);
        for has_backup in [false, true] {
            fs::write(&path, &secret).unwrap();
            if has_backup {
                fs::hard_link(&path, &backup).unwrap();
            }
            let mut file = File::open(&path).unwrap();
            let replaced = Replaced::open(&path).unwrap().unwrap();
            fs::remove_file(&path).unwrap();
            replaced.overwrite().unwrap();
            let mut left = Vec::new();
            file.read_to_end(&mut left).unwrap();
            assert_eq!(left.len(), secret.len());
            assert_eq!(left == secret, has_backup);
            assert_eq!(left.iter().all(|byte| *byte == 0), !has_backup);
        }
        assert!(Replaced::open(&path).unwrap().is_none());
    }
}
