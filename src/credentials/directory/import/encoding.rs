//! The encodings of an import: UTF-8 with or without a byte order mark, and UTF-16 with one, which Excel calls "Unicode
//! Text".

use std::ops::Deref;

use zeroize::Zeroizing;

use crate::short_text::without_mark;

/// A file without its byte order mark, in UTF-8 unless it was in an encoding that is not known.
pub(super) enum Decoded<'a> {
    AsItIs(&'a [u8]),
    FromUtf16(Zeroizing<String>),
}

impl Deref for Decoded<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::AsItIs(bytes) => bytes,
            Self::FromUtf16(text) => text.as_bytes(),
        }
    }
}

/// Decodes UTF-16, which is recognised by its byte order mark. Leaves anything else as it is.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded<'_>, String> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return Ok(Decoded::AsItIs(without_mark(bytes))),
    };
    let broken = || "the file begins as UTF-16 and is not valid UTF-16; save it as UTF-8".to_owned();
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(broken());
    }
    // A unit of UTF-16 takes at most three bytes in UTF-8, so the buffer never moves.
    let mut text = Zeroizing::new(String::with_capacity(units.len() * 3));
    for character in char::decode_utf16(units.iter().skip(1).map(|bytes| unit(*bytes))) {
        text.push(character.map_err(|_| broken())?);
    }
    Ok(Decoded::FromUtf16(text))
}
