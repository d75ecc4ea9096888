//! [`Tail`]: the end of a file of the log.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::record::{Hash, Line, hash};

/// The longest line that can be a record, in bytes. A record has some hundred.
pub(super) const LINE_BYTES_MAX: u64 = 1 << 20;

/// How much of the end of a file is read first, in bytes.
const TAIL_BYTES: u64 = 8 << 10;

/// The end of a file.
pub(super) struct Tail {
    /// The last line has no line end.
    pub(super) cut: bool,
    /// The hash of the last record, together with lines behind it that are not records; `None` if the file is empty.
    pub(super) hash: Option<Hash>,
}

impl Tail {
    pub(super) fn read(file: &File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        if size == 0 {
            return Ok(Self { cut: false, hash: None });
        }
        let mut hash = None;
        let mut cut = false;
        for most in [TAIL_BYTES, LINE_BYTES_MAX] {
            let length = most.min(size);
            let mut reader = file;
            reader.seek(SeekFrom::Start(size - length))?;
            let mut bytes = Vec::new();
            reader.take(length).read_to_end(&mut bytes)?;
            let text = bytes.strip_suffix(b"\n");
            cut = text.is_none();
            hash = last_record(text.unwrap_or(&bytes), length == size).map(self::hash);
            if hash.is_some() {
                break;
            }
        }
        Ok(Self { cut, hash })
    }
}

/// The text from the last record on. `whole`: the text begins where the file does.
fn last_record(text: &[u8], whole: bool) -> Option<&[u8]> {
    let mut end = text.len();
    loop {
        let before = text.get(..end)?;
        let start = before.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        match start {
            Some(start) if Line::read(before.get(start..)?).is_record() => return text.get(start..),
            Some(start) => end = start - 1,
            None => return whole.then_some(text),
        }
    }
}
