//! [`Splice`]: the text of an envelope as it leaves, with fields of the broker added and fields of the client cut out.
//!
//! The payload and every unknown field leave byte for byte as they were received. They are copied, never re-serialised.

use std::fmt::Write;
use std::ops::Range;

use smallvec::SmallVec;

use super::key::Key;
use super::{Envelope, Field};

/// The usual length of the fields that are added to a request: source, user, two ids, a number.
const ADDED_BYTES: usize = 192;

/// An envelope and the changes to make to its text.
pub struct Splice<'e> {
    envelope: &'e Envelope<'e>,
    cuts: SmallVec<[Range<usize>; 4]>,
    /// On the heap, because each method moves the splice, and most events add nothing.
    added: String,
    secret: bool,
}

impl<'e> Splice<'e> {
    /// Returns a splice that only removes `once`, which never leaves the broker.
    #[must_use]
    pub fn new(envelope: &'e Envelope<'_>) -> Self {
        let mut splice = Self { envelope, cuts: SmallVec::new(), added: String::new(), secret: false };
        if !envelope.spans.others.is_empty() {
            splice.cut_other(Key::Once.name());
        }
        splice
    }

    /// Sets whether the bytes of the text that leaves must be zeroised after use.
    #[must_use]
    pub fn secret(mut self, secret: bool) -> Self {
        self.secret = secret;
        self
    }

    /// Cuts a field out, if it is there, wherever it is and however its key is escaped.
    #[must_use]
    pub fn cut(mut self, field: Field) -> Self {
        if let Some(span) = self.envelope.span(field) {
            self.cut_span(span);
        }
        self
    }

    /// Cuts out `once`, or a field that was `null`.
    #[cold]
    fn cut_other(&mut self, key: &str) {
        let others = &self.envelope.spans.others;
        if let Some((_, span)) = others.iter().find(|(other, _)| other.name() == key) {
            self.cut_span(span.clone());
        }
    }

    fn cut_span(&mut self, span: Range<usize>) {
        let place = self.cuts.iter().position(|cut| cut.start > span.start).unwrap_or(self.cuts.len());
        self.cuts.insert(place, span);
    }

    /// Adds a string field at the end, in place of one that was `null`. `key` needs no escaping.
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
        if !self.envelope.spans.others.is_empty() {
            self.cut_other(key);
        }
        self.added += ",\"";
        self.added += key;
        self.added += "\":";
    }

    /// Returns whether the bytes of the text that leaves must be zeroised after use.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Passes the text that leaves to `write`, in pieces, so that it is copied only once.
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
            // If the first member was cut out, the comma after it is dropped, too.
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

/// Writes a JSON string. Most names need no escape and are copied whole.
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
