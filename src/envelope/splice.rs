//! [`Splice`]: an envelope as it leaves, with the broker's fields in and the client's own out.
//!
//! The payload and every unknown field leave byte for byte as they came: what is kept is copied, never re-serialised.

use std::ops::Range;

use smallvec::SmallVec;

use super::{Envelope, Field, Frame};

/// Room for what a request usually gets: source, user, two ids, a number.
const ADDED_BYTES: usize = 192;

/// What shall differ between an envelope and the frame that leaves for it.
pub struct Splice<'e> {
    envelope: &'e Envelope<'e>,
    cuts: SmallVec<[Range<usize>; 4]>,
    /// On the heap: a splice is moved by each step of its making, and most events add nothing.
    added: Vec<u8>,
    secret: bool,
}

impl<'e> Splice<'e> {
    /// The envelope as it came.
    #[must_use]
    pub fn new(envelope: &'e Envelope<'_>) -> Self {
        Self { envelope, cuts: SmallVec::new(), added: Vec::new(), secret: false }
    }

    /// The frame's bytes are to be zeroised after use.
    #[must_use]
    pub fn secret(mut self, secret: bool) -> Self {
        self.secret = secret;
        self
    }

    /// Takes a field out, wherever it stands and however its key is escaped; nothing where it is absent.
    #[must_use]
    pub fn cut(mut self, field: Field) -> Self {
        if let Some(span) = self.envelope.span(field) {
            let place = self.cuts.iter().position(|cut| cut.start > span.start).unwrap_or(self.cuts.len());
            self.cuts.insert(place, span);
        }
        self
    }

    /// Adds a string field at the end. `key` needs no escaping.
    #[must_use]
    pub fn string(mut self, key: &'static str, value: &str) -> Self {
        self.key(key);
        write_string(&mut self.added, value);
        self
    }

    /// Adds a number field at the end.
    #[must_use]
    pub fn number(mut self, key: &'static str, value: u64) -> Self {
        self.key(key);
        self.added.extend_from_slice(value.to_string().as_bytes());
        self
    }

    /// Adds a field that is `true` at the end.
    #[must_use]
    pub fn flag(mut self, key: &'static str) -> Self {
        self.key(key);
        self.added.extend_from_slice(b"true");
        self
    }

    fn key(&mut self, key: &'static str) {
        if self.added.is_empty() {
            self.added.reserve(ADDED_BYTES);
        }
        self.added.extend_from_slice(b",\"");
        self.added.extend_from_slice(key.as_bytes());
        self.added.extend_from_slice(b"\":");
    }

    /// The frame that leaves.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let text = self.envelope.text;
        let mut out = Frame::buffer(text.len() + self.added.len());
        let start = out.len();
        let mut from = 0;
        for cut in &self.cuts {
            append(&mut out, start, text.get(from..cut.start).unwrap_or_default());
            from = cut.end;
        }
        append(&mut out, start, text.get(from..self.envelope.body_end).unwrap_or_default());
        out.extend_from_slice(&self.added);
        out.push(b'}');
        Frame::finish(out, self.secret)
    }
}

/// Appends what stands between two cuts. Where the first member was cut out, the comma after it goes too.
fn append(out: &mut Vec<u8>, start: usize, piece: &str) {
    let nothing_yet = out.get(start..).unwrap_or_default().trim_ascii() == b"{";
    let piece = if nothing_yet { piece.trim_ascii_start().strip_prefix(',').unwrap_or(piece) } else { piece };
    out.extend_from_slice(piece.as_bytes());
}

/// Writes a JSON string. Most names need no escape, and are copied whole.
fn write_string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.extend_from_slice(value.as_bytes());
    } else {
        for ch in value.chars() {
            match ch {
                '"' | '\\' => out.extend_from_slice(&[b'\\', ch as u8]),
                ch if ch < ' ' => out.extend_from_slice(format!("\\u{:04x}", u32::from(ch)).as_bytes()),
                ch => out.extend_from_slice(ch.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    out.push(b'"');
}
