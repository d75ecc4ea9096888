//! [`Lines`]: where something is in a text; [`Unreadable`]: the lines that are not TOML.

use std::collections::HashSet;
use std::path::Path;

use super::mistake::{Mistake, Place};
use super::syntax;

/// The lines that are not TOML.
pub(super) struct Unreadable {
    pub(super) lines: HashSet<usize>,
    /// One for each line.
    pub(super) mistakes: Vec<Mistake>,
    /// The first header `[applications]`, if such headers repeat keys.
    pub(super) single: Option<Place>,
}

impl Unreadable {
    pub(super) fn find(errors: &[toml::de::Error], lines: &Lines<'_>) -> Self {
        let mut found = Self { lines: HashSet::new(), mistakes: Vec::new(), single: None };
        let applications = if errors.is_empty() { None } else { lines.single_applications() };
        for error in errors {
            let start = error.span().map_or(0, |span| span.start);
            let line = lines.line_of(start);
            match &applications {
                Some((first, tables)) if error.message() == "duplicate key" && tables.contains(&line) => {
                    found.single = Some(lines.place(*first));
                }
                _ if found.lines.insert(line) => {
                    // The error's own display would quote the line.
                    let message = syntax::explain(lines.text_of(line), error.message());
                    found.mistakes.push(Mistake { place: lines.place(start), key: None, message, nearest: None });
                }
                _ => {}
            }
        }
        found
    }
}

/// Bytes from one mark of [`Lines`] to the next.
const MARK_BYTES: usize = 1024;

/// Turns byte offsets into lines and columns.
pub(super) struct Lines<'a> {
    text: &'a str,
    path: &'a Path,
    /// Where each line begins.
    starts: Vec<usize>,
    /// The number of characters before each [`MARK_BYTES`] bytes. A text can be one line of many MiB in which every value
    /// has a place, so columns are not counted from the beginning of the line.
    marks: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str, path: &'a Path) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let marks = text.as_bytes().chunks(MARK_BYTES).scan(0, |characters, part| {
            *characters += count_characters(part);
            Some(*characters)
        });
        let marks = std::iter::once(0).chain(marks).collect();
        Self { text, path, marks, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The number of characters before an offset.
    fn characters_before(&self, offset: usize) -> usize {
        self.marks.get(offset / MARK_BYTES).copied().unwrap_or_default() + count_characters(self.since_mark(offset))
    }

    /// The bytes from the last mark to an offset.
    fn since_mark(&self, offset: usize) -> &[u8] {
        self.text.as_bytes().get(offset - offset % MARK_BYTES..offset).unwrap_or_default()
    }

    /// The number of the line of an offset, from 1.
    fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).max(1)
    }

    fn text_of(&self, line: usize) -> &str {
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default().trim_end()
    }

    /// If there is a header `[applications]`, where the first one begins, and the lines of all tables of applications, with
    /// one bracket or two.
    fn single_applications(&self) -> Option<(usize, HashSet<usize>)> {
        let mut first = None;
        let mut tables = HashSet::new();
        let mut inside = false;
        for (line, start) in (1..).zip(&self.starts) {
            let text = self.text_of(line);
            if syntax::is_header(text) {
                let single = syntax::is_single_applications(text);
                inside = single || text.trim_start().starts_with("[[applications]]");
                if single {
                    first.get_or_insert(*start);
                }
            }
            if inside {
                tables.insert(line);
            }
        }
        first.map(|first| (first, tables))
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.line_of(offset);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        // An offset inside a character or after the end counts as the line's first column.
        let offset = if self.text.is_char_boundary(offset) { offset } else { start };
        let column = self.characters_before(offset) - self.characters_before(start) + 1;
        Place::File { path: self.path.to_owned(), at: Some((line, column)) }
    }
}

/// Counts the characters that begin in a part of a text.
fn count_characters(part: &[u8]) -> usize {
    const CONTINUES: u8 = 0b1000_0000;
    part.iter().filter(|byte| **byte & 0b1100_0000 != CONTINUES).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, offset: usize) -> Option<(usize, usize)> {
        match Lines::new(text, Path::new("f.toml")).place(offset) {
            Place::File { at, .. } => at,
            Place::Variable(_) | Place::Flag(_) => None,
        }
    }

    #[test]
    fn a_column_counts_characters() {
        let text = format!("a = 1\n{}b", "\u{e9}".repeat(3000));
        assert_eq!(place(&text, 4), Some((1, 5)));
        assert_eq!(place(&text, 6 + 2 * 1500), Some((2, 1501)));
        assert_eq!(place(&text, 6 + 2 * 1500 + 1), Some((2, 1)), "inside a character");
        assert_eq!(place(&text, text.len()), Some((2, 3002)));
        assert_eq!(place(&text, text.len() + 1), Some((2, 1)));
        assert_eq!(place("", 0), Some((1, 1)));
        assert_eq!(place(&"x".repeat(MARK_BYTES), MARK_BYTES), Some((1, MARK_BYTES + 1)));
    }

    /// Ten thousand applications in one line have some 60,000 places. If each were counted from the beginning of the line,
    /// that would be 10^11 bytes.
    #[test]
    fn a_place_in_a_long_line_looks_at_few_bytes() {
        let text = "x".repeat(4 << 20);
        let lines = Lines::new(&text, Path::new("f.toml"));
        let most = (0..text.len()).step_by(997).map(|offset| lines.since_mark(offset).len()).max();
        assert!(most.is_some_and(|most| most < MARK_BYTES), "{most:?}");
        assert_eq!(place(&text, text.len() - 1), Some((1, text.len())));
    }
}
