//! [`Tail`]: the end of a file of the log.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::record::{Hash, Line, hash};

/// The longest line that can be a record, in bytes. A record has some hundred.
pub(super) const LINE_BYTES_MAX: u64 = 1 << 20;

/// How much of the end of a file is read first, in bytes.
const TAIL_BYTES: u64 = 8 << 10;

/// The end of a file.
#[derive(Default)]
pub(super) struct Tail {
    /// The last line has no line end.
    pub(super) cut: bool,
    /// The hash of the last record and of any lines after it that are not records; `None` if there is no record.
    pub(super) hash: Option<Hash>,
    /// The line with the known hash is in the file, or a record that follows it.
    pub(super) has_known: bool,
}

impl Tail {
    /// Reads the end of a file, as far back as a record or the line with the `known` hash may be, at most
    /// [`LINE_BYTES_MAX`].
    pub(super) fn read(file: &File, known: Option<Hash>) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let mut tail = Self::default();
        if size == 0 {
            return Ok(tail);
        }
        for most in [TAIL_BYTES, LINE_BYTES_MAX] {
            let length = most.min(size);
            let mut reader = file;
            reader.seek(SeekFrom::Start(size - length))?;
            let mut bytes = Vec::new();
            reader.take(length).read_to_end(&mut bytes)?;
            let text = bytes.strip_suffix(b"\n");
            tail.cut = text.is_none();
            let text = text.unwrap_or(&bytes);
            tail.hash = last_record(text, length == size).map(hash);
            tail.has_known = known.is_some_and(|known| has(text, &known));
            if length == size || (tail.hash.is_some() && (known.is_none() || tail.has_known)) {
                break;
            }
        }
        Ok(tail)
    }
}

/// Returns whether one of the lines has this hash, or is a record that follows the line that has it.
fn has(text: &[u8], known: &Hash) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| match Line::read(line) {
        Line::Chained { previous, .. } => previous.as_ref() == Some(known) || hash(line) == *known,
        Line::Unchained | Line::Unreadable => false,
    })
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
            // What a crash left at the start of a file belongs to no record: the chain continues from the file before.
            None => return (whole && Line::read(before).is_record()).then_some(text),
        }
    }
}
