//! [`Output`]: the output of the commands. JSON lines when piped; readable and coloured on a terminal.
//!
//! Results go to standard output, notes and errors to standard error, so that a pipe gets only results. Control
//! characters from outside never reach a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};

use switchboard_client::Message;

const TRIPLE: Style = Style::new().bold();
const SOURCE: Style = AnsiColor::Cyan.on_default();
const MARK: Style = AnsiColor::Yellow.on_default();
const WRONG: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();

/// Standard output.
pub(crate) struct Output {
    stream: anstream::Stdout,
    terminal: bool,
}

impl Output {
    /// Finds out whether standard output is a terminal.
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), stream: anstream::stdout() }
    }

    /// Returns whether standard output is for a person.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes as into a pipe from now on.
    pub(crate) fn as_json(&mut self) {
        self.terminal = false;
    }

    /// Writes one line of text, such as JSON.
    ///
    /// # Errors
    /// Those of the system. `run` recognises a broken pipe.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        let text = self.on_one_line(text);
        writeln!(self.stream, "{text}")?;
        self.stream.flush()
    }

    /// Writes text of several lines as it is.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes())?;
        self.stream.flush()
    }

    /// Writes one envelope on a line.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) fn envelope(&mut self, message: &Message) -> io::Result<()> {
        if !self.terminal {
            return self.line(message.text());
        }
        let triple = self.on_one_line(&message.triple().to_string()).into_owned();
        let mut line = format!("{TRIPLE}{triple}{TRIPLE:#}");
        // Writing to a string cannot fail.
        if let Some(source) = message.source() {
            write!(line, "  {SOURCE}{}{SOURCE:#}", self.on_one_line(source)).ok();
        }
        if let Some(user) = message.user() {
            write!(line, " {QUIET}for {}{QUIET:#}", self.on_one_line(user)).ok();
        }
        if message.retained() {
            write!(line, "  {MARK}retained{MARK:#}").ok();
        }
        if let Some(payload) = message.payload() {
            write!(line, "  {}", self.on_one_line(payload)).ok();
        }
        writeln!(self.stream, "{line}")?;
        self.stream.flush()
    }

    fn on_one_line<'t>(&self, text: &'t str) -> Cow<'t, str> {
        one_line(text, self.terminal)
    }
}

/// Returns a number with its noun, such as "1 user" or "2 users".
pub(crate) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Returns rows as lines, with each column as wide as its longest cell.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Returns JSON text on one line. JSON has line breaks only between tokens, where a space means the same. For a terminal,
/// other control characters are escaped too: JSON allows U+009B in a string, and it begins an escape sequence.
pub(crate) fn one_line(text: &str, for_terminal: bool) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' => line.push(' '),
            _ if for_terminal && character.is_control() => {
                // Writing to a string cannot fail.
                write!(line, "\\u{:04x}", u32::from(character)).ok();
            }
            _ => line.push(character),
        }
    }
    Cow::Owned(line)
}

/// Writes a note to standard error.
pub(crate) fn note(text: &str) {
    to_stderr(&format!("{QUIET}{}{QUIET:#}", plain(text)));
}

/// Writes an error to standard error. If it has a code, the line begins with that, so that scripts can find it.
pub(crate) fn error(text: &str) {
    let text = plain(text);
    match text.split_once(": ") {
        Some((code, words)) if code.bytes().all(|it| it.is_ascii_uppercase() || it == b'_') => {
            to_stderr(&format!("{WRONG}{code}{WRONG:#}: {words}"));
        }
        _ => to_stderr(&format!("{WRONG}error{WRONG:#}: {text}")),
    }
}

/// Writes a hint to standard error.
pub(crate) fn hint(text: &str) {
    to_stderr(&format!("{MARK}hint{MARK:#}: {}", plain(text)));
}

/// Returns whether standard error shows colours.
pub(crate) fn colours() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// Returns text without control characters, because errors can come from another program.
fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_control() && it != '\n' { ' ' } else { it }).collect()
}

fn to_stderr(line: &str) {
    // A closed standard error is not an error.
    writeln!(anstream::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_json_on_one_line_and_a_terminal_no_control_character() {
        let text = "{\n\t\"title\": \"\u{9b}31m\"\r\n}";
        assert_eq!(one_line(text, false), "{ \t\"title\": \"\u{9b}31m\"  }");
        assert_eq!(one_line(text, true), "{ \\u0009\"title\": \"\\u009b31m\"  }");
        assert!(matches!(one_line("{\"a\":1}", true), Cow::Borrowed(_)));
    }
}
