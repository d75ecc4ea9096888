//! [`Records`]: CSV by RFC 4180, read strictly: a value is what is in the file, or its row is bad.
//!
//! Fields borrow from the file's bytes, so that no copy of a password is left in a buffer.

use secrecy::SecretString;
use zeroize::Zeroizing;

/// What separates the columns of a CSV file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delimiter {
    /// The one that the first line has most of; a comma if it has none.
    #[default]
    Auto,
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// A tab.
    Tab,
}

impl Delimiter {
    fn byte(self, bytes: &[u8]) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
            Self::Auto => most_frequent(first_line(bytes)),
        }
    }
}

/// The first line that is not empty.
fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| matches!(byte, b'\n' | b'\r')).find(|line| !line.is_empty()).unwrap_or_default()
}

fn most_frequent(line: &[u8]) -> u8 {
    let mut quoted = false;
    let mut found = [(b'\t', 0), (b';', 0), (b',', 0)];
    for byte in line {
        quoted ^= *byte == b'"';
        for (delimiter, count) in &mut found {
            *count += usize::from(!quoted && delimiter == byte);
        }
    }
    // The last of several maxima, so that a comma wins a tie.
    found.into_iter().max_by_key(|(_, count)| *count).map_or(b',', |(delimiter, _)| delimiter)
}

/// The records of a file, the first line included.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The number of the line at `at`, as an editor counts: LF, CRLF and CR each end a line.
    line: u64,
    delimiter: u8,
}

/// A record: one line, or several if a quoted field has line ends.
pub(super) struct Record<'a> {
    /// The line on which it begins.
    pub(super) line: u64,
    pub(super) fields: Vec<Field<'a>>,
}

/// A field as it is in the file.
pub(super) struct Field<'a> {
    /// Without the quotes around it; quotes inside are doubled.
    raw: &'a [u8],
    quotes: Quotes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    Around,
    /// There is text after the closing quote.
    TextAfter,
    /// There is white space before the opening quote.
    BlankBefore,
    /// There is no closing quote.
    NeverClosed,
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8], delimiter: Delimiter) -> Self {
        Self { bytes, at: 0, line: 1, delimiter: delimiter.byte(bytes) }
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Moves over a line end, if there is one, and counts it.
    fn skip_line_end(&mut self) -> bool {
        let length = match (self.byte(), self.bytes.get(self.at + 1)) {
            (Some(b'\r'), Some(b'\n')) => 2,
            (Some(b'\r' | b'\n'), _) => 1,
            _ => return false,
        };
        self.at += length;
        self.line += 1;
        true
    }

    fn field(&mut self) -> Field<'a> {
        if self.byte() == Some(b'"') { self.quoted_field() } else { self.plain_field() }
    }

    fn plain_field(&mut self) -> Field<'a> {
        let raw = self.up_to_separator();
        let quotes = match raw.trim_ascii_start() {
            [b'"', ..] => Quotes::BlankBefore,
            _ => Quotes::None,
        };
        Field { raw, quotes }
    }

    fn up_to_separator(&mut self) -> &'a [u8] {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte != self.delimiter && !matches!(byte, b'\r' | b'\n')) {
            self.at += 1;
        }
        self.since(start)
    }

    fn quoted_field(&mut self) -> Field<'a> {
        self.at += 1;
        let start = self.at;
        loop {
            match (self.byte(), self.bytes.get(self.at + 1)) {
                (None, _) => return Field { raw: self.since(start), quotes: Quotes::NeverClosed },
                (Some(b'"'), Some(b'"')) => self.at += 2,
                (Some(b'"'), _) => break,
                (Some(_), _) => {
                    if !self.skip_line_end() {
                        self.at += 1;
                    }
                }
            }
        }
        let raw = self.since(start);
        self.at += 1;
        let quotes = if self.up_to_separator().is_empty() { Quotes::Around } else { Quotes::TextAfter };
        Field { raw, quotes }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        self.byte()?;
        let line = self.line;
        let mut fields = vec![self.field()];
        while self.byte() == Some(self.delimiter) {
            self.at += 1;
            fields.push(self.field());
        }
        self.skip_line_end();
        Some(Record { line, fields })
    }
}

impl Record<'_> {
    /// Returns whether no field has a value.
    pub(super) fn is_blank(&self) -> bool {
        self.fields.iter().all(|field| {
            matches!(field.quotes, Quotes::None | Quotes::Around)
                && std::str::from_utf8(field.raw).is_ok_and(|text| text.trim().is_empty())
        })
    }
}

impl Field<'_> {
    /// Returns the value, or what is wrong with the field.
    pub(super) fn text(&self) -> Result<SecretString, &'static str> {
        let as_text = |bytes| std::str::from_utf8(bytes).map(SecretString::from).map_err(|_| "is not UTF-8");
        match self.quotes {
            Quotes::None => as_text(self.raw),
            Quotes::Around if !self.raw.contains(&b'"') => as_text(self.raw),
            Quotes::Around => {
                // No longer than the field, so the buffer never moves.
                let mut bytes = Zeroizing::new(Vec::with_capacity(self.raw.len()));
                let mut rest = self.raw;
                while let Some(at) = rest.iter().position(|byte| *byte == b'"') {
                    let (before, after) = rest.split_at(at + 1);
                    bytes.extend_from_slice(before);
                    rest = after.get(1..).unwrap_or_default();
                }
                bytes.extend_from_slice(rest);
                as_text(bytes.as_slice())
            }
            Quotes::TextAfter => Err("has text after its closing quote; a quote inside quotes is written twice"),
            Quotes::BlankBefore => Err("has white space before its opening quote"),
            Quotes::NeverClosed => {
                Err("has an opening quote that is never closed, so the rest of the file belongs to it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn read(text: &str, delimiter: Delimiter) -> Vec<(u64, Vec<Result<String, &'static str>>)> {
        let text_of = |field: &Field<'_>| field.text().map(|text| text.expose_secret().to_owned());
        let records = Records::new(text.as_bytes(), delimiter);
        records.map(|record| (record.line, record.fields.iter().map(text_of).collect())).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_by_the_rfc_is_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a,;\"\r\n\t ä]{0,6}", 2..5), 0..6),
            delimiter in prop::sample::select(vec![Delimiter::Comma, Delimiter::Semicolon, Delimiter::Tab]),
            end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let separator = char::from(delimiter.byte(b"")).to_string();
            let mut text = String::new();
            for row in &rows {
                let fields: Vec<_> = row.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
                text += &(fields.join(&separator) + end);
            }
            let found: Vec<Vec<_>> =
                read(&text, delimiter).into_iter().map(|(_, fields)| fields.into_iter().map(Result::unwrap).collect()).collect();
            prop_assert_eq!(found, rows);
        }

        #[test]
        fn any_text_is_read_to_its_end(text in "[a,;\"\r\n\t ]{0,40}") {
            let records = read(&text, Delimiter::Auto);
            prop_assert!(records.len() <= text.len());
        }
    }

    #[test]
    fn the_separator_is_the_most_frequent_one_of_the_first_line() {
        for (line, expected) in [
            ("a,b,c\n;;;;", b','),
            ("a;b;c", b';'),
            ("\r\n\na\tb\tc", b'\t'),
            ("\"a,b,c\";d", b';'),
            ("a,b;c", b','),
            ("a", b','),
            ("", b','),
        ] {
            assert_eq!(Delimiter::Auto.byte(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["a", "\"b", "b\"", "", "c"].join(end);
            let lines: Vec<_> = read(&text, Delimiter::Comma).into_iter().map(|(line, _)| line).collect();
            assert_eq!(lines, [1, 2, 4, 5], "{end:?}");
        }
    }
}
