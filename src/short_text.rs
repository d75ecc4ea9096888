//! A short text from a file, a variable or standard input: a password, a token, a secret, a key, PEM. Editors and shells
//! put a byte order mark in front of it and a line end behind it, which are not part of it.

/// Removes a byte order mark and one line end: LF, CRLF or CR.
pub(crate) fn trim(text: &str) -> &str {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Removes a byte order mark from the bytes of a file.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK.as_bytes()).unwrap_or(bytes)
}

const MARK: &str = "\u{feff}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_and_one_line_end_are_removed() {
        for (text, expected) in [
            ("s3cret", "s3cret"),
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            ("s3cret\r", "s3cret"),
            ("\u{feff}s3cret\r\n", "s3cret"),
            ("\u{feff}\u{feff}s3cret", "\u{feff}s3cret"),
            ("s3cret\n\n", "s3cret\n"),
            ("s3cret\n\r\n", "s3cret\n"),
            (" s3cret ", " s3cret "),
            ("\u{feff}\n", ""),
            ("", ""),
        ] {
            assert_eq!(trim(text), expected, "{text:?}");
        }
        assert_eq!(without_mark("\u{feff}-----BEGIN\n".as_bytes()), b"-----BEGIN\n");
        assert_eq!(without_mark(b"-----BEGIN\n"), b"-----BEGIN\n");
    }
}
