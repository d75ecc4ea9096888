//! Files that hold a secret: keys, tokens, client secrets.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use super::{Readers, open_regular, open_to_others};
use crate::short_text;

/// The largest secret, far above any private key in PEM.
const BYTES_MAX: usize = 64 << 10;

/// Why a secret file cannot be used. The text does not name the file, which its caller knows by a better name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// Someone except its owner can use it.
    #[error(
        "the file is open to other users of this machine; run 'chmod 600' on it, and replace the secret if someone may \
         have read it"
    )]
    OpenToOthers,
    /// Someone except its owner and its group can use it, or its group can do more than read it.
    #[error(
        "the file is open to other users of this machine; run 'chmod 640' on it, and replace the secret if someone may \
         have read it"
    )]
    OpenBeyondGroup,
    /// It does not hold a text of at most 64 KiB.
    #[error("the file does not hold a secret: it is not UTF-8, or larger than 64 KiB")]
    NotText,
}

/// Reads a secret from a regular file. A byte order mark in front and one line end behind it are not part of it. The secret
/// is erased when the text is dropped, and no copy of it stays behind.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    text_of(&read_secret_bytes(path)?)
}

/// Reads a secret from a regular file. Its group may read it too, as that of a pod has to in Kubernetes.
pub(crate) fn read_group_secret(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    text_of(&read_group_secret_bytes(path)?)
}

/// Reads a secret from a file or a pipe, such as `/dev/stdin`, waiting for its other end.
pub(crate) fn read_secret_or_pipe(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    text_of(&read_private(File::open(path)?, Readers::Owner)?)
}

/// Reads a regular file with a secret as it is.
pub(crate) fn read_secret_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    read_private(open_regular(path)?, Readers::Owner)
}

/// Reads a regular file with a secret as it is. Its group may read it too.
pub(crate) fn read_group_secret_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    read_private(open_regular(path)?, Readers::Group)
}

fn text_of(bytes: &[u8]) -> Result<Zeroizing<String>, SecretError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SecretError::NotText)?;
    Ok(Zeroizing::new(short_text::trim(text).to_owned()))
}

fn read_private(file: File, readers: Readers) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    if open_to_others(&file, readers)? {
        return Err(match readers {
            Readers::Owner => SecretError::OpenToOthers,
            Readers::Group => SecretError::OpenBeyondGroup,
        });
    }
    // Large enough for all that is read, so the buffer never moves.
    let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX + 2));
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > BYTES_MAX {
        return Err(SecretError::NotText);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(contents: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, contents).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        read_secret(&path).map(|text| text.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_byte_order_mark_and_one_line_end_are_not_part_of_a_secret() {
        for (contents, secret) in [
            ("s3cret", "s3cret"),
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            ("\u{feff}s3cret\r\n", "s3cret"),
            ("s3cret\n\n", "s3cret\n"),
            (" s3cret ", " s3cret "),
            ("\u{feff}", ""),
            ("", ""),
        ] {
            assert_eq!(read(contents.as_bytes()).as_deref(), Ok(secret), "{contents:?}");
        }
        assert_eq!(read(&vec![b'x'; BYTES_MAX]).map(|text| text.len()), Ok(BYTES_MAX));
        for wrong in [vec![b'x'; BYTES_MAX + 1], vec![0xff; 10]] {
            assert!(read(&wrong).unwrap_err().contains("not UTF-8, or larger"), "{}", wrong.len());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "s3cret").unwrap();
        for (mode, refused) in [(0o600, false), (0o640, true), (0o644, true), (0o660, true), (0o602, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(matches!(read_secret(&path), Err(SecretError::OpenToOthers)), refused, "{mode:o}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_group_may_read_some_secrets_and_others_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "s3cret").unwrap();
        for (mode, refused) in
            [(0o600, false), (0o440, false), (0o640, false), (0o644, true), (0o660, true), (0o641, true)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                matches!(read_group_secret_bytes(&path), Err(SecretError::OpenBeyondGroup)),
                refused,
                "{mode:o}"
            );
        }
    }
}
