//! Reads passwords from standard input and import files, and the key of the credential store from the environment.
//!
//! A password or a file is read into a buffer of its final size, which is zeroised. A buffer that grows leaves copies of the
//! secret in freed memory, and so does a buffered reader.

use std::fs::File;
use std::io::{self, Read};

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::credentials::KEY_VARIABLE;

/// Returns the key of the credential store, if the environment has it. A text that is not UTF-8 gets characters that no key
/// has, so it is refused as any other wrong key is.
pub(crate) fn credentials_key() -> Option<SecretString> {
    let text = std::env::var_os(KEY_VARIABLE)?;
    Some(text.into_string().unwrap_or_else(|text| text.to_string_lossy().into_owned()).into())
}

/// Reads to the end.
///
/// # Errors
/// Those of the system; `FileTooLarge` beyond `bytes_max`.
pub(crate) fn read_all(input: &mut dyn Read, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(vec![0; bytes_max + 1]);
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
        match input.read(free) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// Returns standard input without the buffer of the standard library, which is not zeroised.
///
/// # Errors
/// Those of the system.
pub(crate) fn unbuffered_stdin() -> io::Result<File> {
    #[cfg(unix)]
    return std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned().map(File::from);
    #[cfg(windows)]
    return std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned().map(File::from);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte per read, as a slow pipe does.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            self.0 = rest;
            buffer[0] = *first;
            Ok(1)
        }
    }

    #[test]
    fn the_buffer_never_grows() {
        let all = read_all(&mut Slow(&[b'x'; 20]), 20).unwrap();
        assert_eq!((all.len(), all.capacity()), (20, 21));
        assert_eq!(read_all(&mut Slow(&[b'x'; 21]), 20).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
