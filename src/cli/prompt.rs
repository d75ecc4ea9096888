//! Asks for a secret on the terminal, without showing it. The buffer has its final size, as in `secret`.

use std::io;

use zeroize::Zeroizing;

/// Asks for one line of at most `bytes_max` bytes; of a longer one, returns one byte more than that.
///
/// # Errors
/// Those of the system; `Interrupted` after Ctrl-C.
#[cfg(unix)]
pub(crate) fn ask(prompt: &str, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Write as _;
    let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let quiet = unix::Quiet::new(&terminal)?;
    terminal.write_all(prompt.as_bytes())?;
    let line = unix::edit(&mut terminal, bytes_max);
    drop(quiet);
    terminal.write_all(b"\n")?;
    line
}

/// As on Unix. The library reads the line into a buffer that grows.
#[cfg(not(unix))]
pub(crate) fn ask(prompt: &str, _bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    rpassword::prompt_password(prompt).map(|line| Zeroizing::new(line.into_bytes()))
}

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io::{self, Read};

    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
    use zeroize::Zeroizing;

    const CTRL_C: u8 = 0x03;
    const CTRL_D: u8 = 0x04;
    const CTRL_U: u8 = 0x15;
    const BACKSPACE: u8 = 0x08;
    const DELETE: u8 = 0x7f;

    /// A terminal that passes on each key and shows none, until this is dropped.
    pub(super) struct Quiet {
        terminal: File,
        before: Termios,
    }

    impl Quiet {
        pub(super) fn new(terminal: &File) -> io::Result<Self> {
            let before = tcgetattr(terminal)?;
            let mut quiet = before.clone();
            // Ctrl-C arrives as a key, so that the settings are restored before the program ends.
            quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
            quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
            quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(terminal, OptionalActions::Drain, &quiet)?;
            Ok(Self { terminal: terminal.try_clone()?, before })
        }
    }

    impl Drop for Quiet {
        fn drop(&mut self) {
            tcsetattr(&self.terminal, OptionalActions::Drain, &self.before).ok();
        }
    }

    /// Reads the keys of one line.
    pub(super) fn edit(keys: &mut dyn Read, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut line = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
        let mut key = Zeroizing::new([0]);
        loop {
            if keys.read(key.as_mut_slice())? == 0 {
                return if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) };
            }
            let [byte] = *key;
            match byte {
                b'\n' | b'\r' => return Ok(line),
                CTRL_C => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
                CTRL_D if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                CTRL_D => return Ok(line),
                CTRL_U => line.clear(),
                BACKSPACE | DELETE => {
                    // One character, which ends with its first byte from behind.
                    while line.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {}
                }
                byte if line.len() <= bytes_max => line.push(byte),
                _ => {}
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_line_can_be_edited() {
            for (keys, expected) in [
                ("acq@123\nmore", "acq@123"),
                ("acq@123\r", "acq@123"),
                ("wrong\u{15}acq\u{4}", "acq"),
                ("\u{7f}pässe\u{7f}\u{8}\u{7f}\u{7f}\n", "p"),
                ("0123456789", "012345"),
            ] {
                let line = edit(&mut keys.as_bytes(), 5).unwrap();
                let expected = expected.as_bytes();
                assert_eq!(line.as_slice(), expected.get(..6).unwrap_or(expected), "{keys:?}");
                assert!(line.capacity() == 6);
            }
            for (keys, kind) in [
                ("abc\u{3}", io::ErrorKind::Interrupted),
                ("\u{4}", io::ErrorKind::UnexpectedEof),
                ("", io::ErrorKind::UnexpectedEof),
            ] {
                assert_eq!(edit(&mut keys.as_bytes(), 5).unwrap_err().kind(), kind, "{keys:?}");
            }
        }
    }
}
