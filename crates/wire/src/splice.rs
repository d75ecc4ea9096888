//! [`Splice`]: an envelope as it leaves, with the broker's fields in and the client's own out.
//!
//! The payload and every unknown field leave byte for byte as they came: what is kept is copied, never re-serialised.

use std::fmt::Write;
use std::ops::Range;

use smallvec::SmallVec;

use super::{Envelope, Field};

/// Room for what a request usually gets: source, user, two ids, a number.
const ADDED_BYTES: usize = 192;

/// What shall differ between an envelope and the text that leaves for it.
pub struct Splice<'e> {
    envelope: &'e Envelope<'e>,
    cuts: SmallVec<[Range<usize>; 4]>,
    /// On the heap: a splice is moved by each step of its making, and most events add nothing.
    added: String,
    secret: bool,
}

impl<'e> Splice<'e> {
    /// The envelope as it came.
    #[must_use]
    pub fn new(envelope: &'e Envelope<'_>) -> Self {
        Self { envelope, cuts: SmallVec::new(), added: String::new(), secret: false }
    }

    /// The bytes of the text that leaves are to be zeroised after use.
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
        self.added += &value.to_string();
        self
    }

    /// Adds a field that is `true` at the end.
    #[must_use]
    pub fn flag(mut self, key: &'static str) -> Self {
        self.key(key);
        self.added += "true";
        self
    }

    fn key(&mut self, key: &'static str) {
        if self.added.is_empty() {
            self.added.reserve(ADDED_BYTES);
        }
        self.added += ",\"";
        self.added += key;
        self.added += "\":";
    }

    /// Whether the bytes of what leaves are to be zeroised after use.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Hands the text that leaves to `write`, in pieces, so that it is copied once: to where it stays.
    pub fn pieces<T>(&self, write: impl FnOnce(&[&str]) -> T) -> T {
        let (text, end) = (self.envelope.text, self.envelope.body_end);
        if self.cuts.is_empty() {
            // Most events leave as they came.
            let body = text.get(..end).unwrap_or_default();
            return write(&[body, &self.added, "}"]);
        }
        let mut pieces = SmallVec::<[&str; 8]>::new();
        let (mut from, mut nothing_yet) = (0, true);
        for cut in self.cuts.iter().cloned().chain(std::iter::once(end..end)) {
            let piece = text.get(from..cut.start).unwrap_or_default();
            from = cut.end;
            // Where the first member was cut out, the comma after it goes too.
            let piece = match piece.trim_ascii_start().strip_prefix(',') {
                Some(after) if nothing_yet => after,
                _ => piece,
            };
            nothing_yet &= matches!(piece.trim_ascii(), "" | "{");
            pieces.push(piece);
        }
        pieces.extend([self.added.as_str(), "}"]);
        write(&pieces)
    }
}

/// Writes a JSON string. Most names need no escape, and are copied whole.
fn write_string(out: &mut String, value: &str) {
    out.push('"');
    if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        *out += value;
    } else {
        for ch in value.chars() {
            match ch {
                '"' | '\\' => out.extend(['\\', ch]),
                ch if ch < ' ' => write!(out, "\\u{:04x}", u32::from(ch)).unwrap_or_default(),
                ch => out.push(ch),
            }
        }
    }
    out.push('"');
}
