//! [`Scanner`]: reads the members of a JSON object in one pass, checks the grammar (RFC 8259), and builds nothing.
//!
//! `serde_json`'s raw values take four times the instructions, most of them for buffers and errors that an envelope does
//! not need. The scanner accepts the same texts, which a test shows with mutated ones, and counts nesting brackets in the
//! same pass. It does not say where or why a text is broken; for that, the caller parses the text with `serde_json`.

/// The text is not a JSON object, or nests too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// A key or a value as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// The text, with a string's quotes.
    pub(super) raw: &'a str,
    /// The offset of its first byte in the whole text.
    pub(super) start: usize,
    /// Whether it is a string without escapes.
    pub(super) is_plain: bool,
}

/// A member of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    pub(super) key: Token<'a>,
    pub(super) value: Token<'a>,
}

/// Reads the members of one object one after the other.
///
/// The functions below pass the unread bytes on as a slice, which stays in registers and is matched without an index.
pub(super) struct Scanner<'a> {
    text: &'a str,
    rest: &'a [u8],
    depth_max: usize,
    /// Whether a member was read.
    begun: bool,
}

impl<'a> Scanner<'a> {
    /// Returns a scanner for a text whose brackets may nest to this level. Those of the object itself are level 1.
    pub(super) fn new(text: &'a str, depth_max: usize) -> Self {
        Self { text, rest: text.as_bytes(), depth_max, begun: false }
    }

    /// Returns the number of bytes that were read.
    pub(super) fn at(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    /// Reads up to the end of the opening brace.
    pub(super) fn open(&mut self) -> Result<(), Broken> {
        match after_space(self.rest) {
            [b'{', rest @ ..] if self.depth_max > 0 => self.rest = rest,
            _ => return Err(Broken),
        }
        Ok(())
    }

    /// Returns the next member, or `None` at the end of the object, which must be the end of the text.
    #[inline]
    pub(super) fn next_member(&mut self) -> Result<Option<Member<'a>>, Broken> {
        let rest = match after_space(self.rest) {
            [b'}', rest @ ..] => return if after_space(rest).is_empty() { Ok(None) } else { Err(Broken) },
            [b',', rest @ ..] if self.begun => after_space(rest),
            rest if !self.begun => rest,
            _ => return Err(Broken),
        };
        self.begun = true;
        let [b'"', inside @ ..] = rest else { return Err(Broken) };
        let (after, is_plain) = string(inside)?;
        let key = self.token(rest, after, is_plain);
        let [b':', rest @ ..] = after_space(after) else { return Err(Broken) };
        let rest = after_space(rest);
        let (after, is_plain) = match rest {
            [b'"', inside @ ..] => string(inside)?,
            _ => (value(rest, self.depth_max - 1)?, false),
        };
        self.rest = after;
        Ok(Some(Member { key, value: self.token(rest, after, is_plain) }))
    }

    /// Returns the text between `rest` and `after`.
    #[inline]
    fn token(&self, rest: &[u8], after: &[u8], is_plain: bool) -> Token<'a> {
        let (start, end) = (self.text.len() - rest.len(), self.text.len() - after.len());
        // Tokens begin and end with ASCII, so the slice always exists.
        Token { raw: self.text.get(start..end).unwrap_or_default(), start, is_plain }
    }
}

fn after_space(mut rest: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\t' | b'\r', after @ ..] = rest {
        rest = after;
    }
    rest
}

/// Returns the bytes after a value. Its brackets may nest to this level.
fn value(mut rest: &[u8], depth_max: usize) -> Result<&[u8], Broken> {
    let mut nest = Nest::default();
    loop {
        // A value begins here.
        let after = match rest {
            [b'"', inside @ ..] => string(inside)?.0,
            [open @ (b'{' | b'['), inside @ ..] => {
                if nest.depth == depth_max {
                    return Err(Broken);
                }
                let is_object = *open == b'{';
                nest.push(is_object);
                match after_space(inside) {
                    // The bracket is closed below.
                    end @ [b'}' | b']', ..] => end,
                    inside if is_object => {
                        rest = key(inside)?;
                        continue;
                    }
                    inside => {
                        rest = inside;
                        continue;
                    }
                }
            }
            [b'-', digits @ ..] | digits @ [b'0'..=b'9', ..] => number(digits)?,
            [b't', b'r', b'u', b'e', after @ ..]
            | [b'f', b'a', b'l', b's', b'e', after @ ..]
            | [b'n', b'u', b'l', b'l', after @ ..] => after,
            _ => return Err(Broken),
        };
        rest = after;
        // A value has ended: brackets close, or another value follows.
        loop {
            if nest.depth == 0 {
                return Ok(rest);
            }
            match after_space(rest) {
                [b',', after @ ..] => {
                    let after = after_space(after);
                    rest = if nest.is_object() { key(after)? } else { after };
                    break;
                }
                [close @ (b'}' | b']'), after @ ..] if nest.is_object() == (*close == b'}') => {
                    nest.pop();
                    rest = after;
                }
                _ => return Err(Broken),
            }
        }
    }
}

/// Returns the bytes after a key and its colon.
fn key(rest: &[u8]) -> Result<&[u8], Broken> {
    let [b'"', inside @ ..] = rest else { return Err(Broken) };
    let [b':', rest @ ..] = after_space(string(inside)?.0) else { return Err(Broken) };
    Ok(after_space(rest))
}

/// Returns the bytes after a string, and whether it has no escapes. `rest` begins after the opening quote.
#[inline]
fn string(rest: &[u8]) -> Result<(&[u8], bool), Broken> {
    match after_plain(rest) {
        [b'"', after @ ..] => Ok((after, true)),
        rest => end_of_string(rest),
    }
}

/// Does the same from the first escape, or from the last bytes of the text.
fn end_of_string(mut rest: &[u8]) -> Result<(&[u8], bool), Broken> {
    let mut is_plain = true;
    loop {
        rest = match after_plain(rest) {
            [b'"', after @ ..] => return Ok((after, is_plain)),
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', after @ ..] => after,
            // A lone surrogate passes. It matters only when the string is decoded.
            [b'\\', b'u', a, b, c, d, after @ ..] if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) => after,
            [..b' ' | b'\\', ..] | [] => return Err(Broken),
            // Fewer than eight bytes are left.
            [_, after @ ..] => {
                rest = after;
                continue;
            }
        };
        is_plain = false;
    }
}

/// Skips bytes that are neither special nor the end of the string: chunks first, then eight at a time.
#[inline]
fn after_plain(mut rest: &[u8]) -> &[u8] {
    while let Some((eight, after)) = rest.split_first_chunk() {
        match special(u64::from_le_bytes(*eight)) {
            0 => rest = after_plain_chunks(after),
            bits => return rest.get(bits.trailing_zeros() as usize / 8..).unwrap_or_default(),
        }
    }
    rest
}

/// Skips chunks without a special byte. The fixed size lets the compiler use vector instructions.
#[inline]
fn after_plain_chunks(mut rest: &[u8]) -> &[u8] {
    while let Some((chunk, after)) = rest.split_first_chunk::<32>() {
        // With a lazy `||`, the compiler would not use vector instructions.
        let is_special = |byte: &u8| u8::from(*byte < b' ') | u8::from(*byte == b'"') | u8::from(*byte == b'\\');
        if chunk.iter().fold(0, |found, byte| found | is_special(byte)) != 0 {
            break;
        }
        rest = after;
    }
    rest
}

/// Returns the high bit of each byte that ends or breaks a string, or begins an escape. Bits above the lowest one that is
/// set can be wrong, because a subtraction borrows from the byte above.
fn special(eight: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let is = |byte: u8| (eight ^ (ONES * u64::from(byte))).wrapping_sub(ONES);
    let is_control = eight.wrapping_sub(ONES * u64::from(b' '));
    (is(b'"') | is(b'\\') | is_control) & !eight & (ONES << 7)
}

/// Returns the bytes after a number. `rest` begins after its sign.
fn number(rest: &[u8]) -> Result<&[u8], Broken> {
    let mut rest = match rest {
        [b'0', after @ ..] => after,
        _ => digits(rest)?,
    };
    if let [b'.', after @ ..] = rest {
        rest = digits(after)?;
    }
    if let [b'e' | b'E', b'+' | b'-', after @ ..] | [b'e' | b'E', after @ ..] = rest {
        rest = digits(after)?;
    }
    Ok(rest)
}

/// Returns the bytes after one or more digits.
fn digits(rest: &[u8]) -> Result<&[u8], Broken> {
    let [b'0'..=b'9', after @ ..] = rest else { return Err(Broken) };
    let mut rest = after;
    while let [b'0'..=b'9', after @ ..] = rest {
        rest = after;
    }
    Ok(rest)
}

/// The open brackets, one bit for each: 1 is a brace.
#[derive(Default)]
struct Nest {
    depth: usize,
    /// The innermost ones, up to 64.
    inner: u64,
    /// The ones outside of them, in groups of 64.
    outer: Vec<u64>,
}

impl Nest {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.inner);
        }
        self.inner = self.inner << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.inner >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.inner = self.outer.pop().unwrap_or_default();
        }
    }

    fn is_object(&self) -> bool {
        self.inner & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{RngExt, SeedableRng};
    use serde::de::{Deserializer, MapAccess, Visitor};
    use serde_json::value::RawValue;

    use super::*;

    /// Keys and values as they are written, and the offset at which each value ends. `None` if the text is broken.
    type Read = Option<Vec<(String, String, usize)>>;

    fn scanned(text: &str, depth_max: usize) -> Read {
        let mut scanner = Scanner::new(text, depth_max);
        scanner.open().ok()?;
        let mut members = Vec::new();
        while let Some(Member { key, value }) = scanner.next_member().ok()? {
            for token in [key, value] {
                let string = token.raw.starts_with('"') && !token.raw.contains('\\');
                assert_eq!(token.is_plain, string, "{text}");
                assert_eq!(text.get(token.start..token.start + token.raw.len()), Some(token.raw), "{text}");
            }
            members.push((key.raw.to_owned(), value.raw.to_owned(), scanner.at()));
        }
        Some(members)
    }

    /// Reads the same with the raw values of `serde_json`.
    struct Witness<'t>(&'t str);

    impl<'de> Visitor<'de> for Witness<'de> {
        type Value = Vec<(String, String, usize)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                let end = value.get().as_ptr() as usize - self.0.as_ptr() as usize + value.get().len();
                members.push((key.get().to_owned(), value.get().to_owned(), end));
            }
            Ok(members)
        }
    }

    fn witnessed(text: &str, depth_max: usize) -> Read {
        let mut json = serde_json::Deserializer::from_str(text);
        let members = json.deserialize_map(Witness(text)).ok()?;
        json.end().ok()?;
        // The text is valid, so brackets can be counted outside of strings.
        let (mut depth, mut deepest, mut in_string, mut bytes) = (0_usize, 0, false, text.bytes());
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => in_string = !in_string,
                b'\\' => drop(bytes.next()),
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => depth -= 1,
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        (deepest <= depth_max).then_some(members)
    }

    #[track_caller]
    fn check(text: &str) {
        for depth_max in [0, 1, 2, 3, 5, 64, 65, 66, 128, usize::MAX] {
            assert_eq!(scanned(text, depth_max), witnessed(text, depth_max), "{text:?}, {depth_max} levels");
        }
    }

    const TEXTS: &[&str] = &[
        r#"{"channel":"Phone","topic":"Call","subtopic":"Ringing","source":"softphone","data":{"n":-1.5e+3,"x":[]}}"#,
        r#" { "a" : [ 1 , 0 , -0.0 , 1E5 , {} , { "b" : null } , true , false ] , "c\u00e9\"" : "é😀" } "#,
        r#"{"a":"\\\"\/\b\f\n\r\t\ud800\uDFFF","":"","0123456789012345678901234567890123456789\n":[[[[{}]]]]}"#,
        "\r\n\t{\"a\":\"\u{7f}\u{80}\u{9f} no control character of JSON\"}\n",
        "{\"data\":[{\"a\":[{\"b\":[{\"c\":[[],{},\"\"]}]}]},0.1,123456789,\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"]}",
        "{}",
        "[{}]",
        "\u{feff}{}",
        "null",
    ];

    #[test]
    fn every_prefix_and_every_changed_byte() {
        let alphabet = "\"\\/{}[]:,-+.0159eEutrfalsn \n\t\u{0}\u{1f}\u{7f}é";
        for text in TEXTS {
            check(text);
            for (at, old) in text.char_indices() {
                let (before, after) = (&text[..at], &text[at + old.len_utf8()..]);
                check(before);
                check(&format!("{before}{after}"));
                for new in alphabet.chars() {
                    check(&format!("{before}{new}{after}"));
                    check(&format!("{before}{new}{old}{after}"));
                }
            }
        }
    }

    #[test]
    fn brackets_nest_up_to_the_limit_and_no_further() {
        for levels in (1..=200).chain([1_000, 100_000]) {
            for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":[", "]}]")] {
                let nested = |inner: &str| format!("{{\"d\":{}{inner}{}}}", open.repeat(levels), close.repeat(levels));
                let deepest = 1 + levels * open.matches(['[', '{']).count();
                for text in [nested("0"), nested("\"]}\"")] {
                    assert_eq!(scanned(&text, deepest - 1), None);
                    assert!(scanned(&text, deepest).is_some_and(|members| members.len() == 1));
                }
                let crossed = nested("0").replacen(close, if close == "]" { "}" } else { "]" }, 1);
                assert_eq!(scanned(&crossed, usize::MAX), None);
            }
        }
    }

    /// Cuts, repeats, joins and changes pieces of texts. `SCAN_MUTATIONS` sets how many.
    #[test]
    fn mutated_texts() {
        let mutations = std::env::var("SCAN_MUTATIONS").map_or(20_000, |number| number.parse().unwrap());
        let mut chance = StdRng::seed_from_u64(5);
        let mut texts: Vec<Vec<char>> = TEXTS.iter().map(|text| text.chars().collect()).collect();
        let pieces =
            ["\"", "\\", "\\u12", "{", "}", "[", "]", "[]", ":", ",", "0", "1e", ".5", "-", "null", "tru", "  ", "é"];
        for _ in 0..mutations {
            let mut text = texts.choose(&mut chance).unwrap().clone();
            for _ in 0..chance.random_range(1..4) {
                let from = chance.random_range(0..=text.len());
                let to = chance.random_range(from..=text.len().min(from + 20));
                match chance.random_range(0..4) {
                    0 => drop(text.drain(from..to)),
                    1 => {
                        let piece = text[from..to].to_vec();
                        text.splice(to..to, piece);
                    }
                    2 => drop(text.splice(from..from, pieces.choose(&mut chance).unwrap().chars())),
                    _ => {
                        let other = texts.choose(&mut chance).unwrap();
                        let start = chance.random_range(0..=other.len());
                        text.splice(from.., other[start..].iter().copied());
                    }
                }
            }
            text.truncate(400);
            let whole: String = text.iter().collect();
            check(&whole);
            // Most changes break a text, so the ones that do not are changed further.
            if witnessed(&whole, usize::MAX).is_some() && texts.len() < 1_000 {
                texts.push(text);
            }
        }
    }
}
