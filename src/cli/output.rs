//! [`Output`]: all that the commands write. JSON lines when piped; readable and coloured on a terminal.
//!
//! What was asked for goes to standard output, everything about it to standard error, so that a pipe gets the one and a
//! person sees both. Nothing from outside reaches a terminal with its control characters.

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

/// Where commands write.
pub(crate) struct Output {
    stream: anstream::Stdout,
    terminal: bool,
}

impl Output {
    /// Standard output as it is: a terminal or not.
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), stream: anstream::stdout() }
    }

    /// Whether a person reads along.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line of text, such as a JSON text.
    ///
    /// # Errors
    /// The system's; a broken pipe is for `run` to recognise.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        let text = self.on_one_line(text);
        writeln!(self.stream, "{text}")?;
        self.stream.flush()
    }

    /// Text of several lines, as it is.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes())?;
        self.stream.flush()
    }

    /// One envelope, on a line of its own.
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

/// JSON has line breaks between its tokens only, where a space does as well; a terminal gets no other control character
/// either (U+009B begins an escape sequence, and JSON allows it in a string).
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

/// Tells a person something about the work, on standard error.
pub(crate) fn note(text: &str) {
    to_stderr(&format!("{QUIET}{}{QUIET:#}", plain(text)));
}

/// Tells what went wrong, on standard error. A coded error begins with its code, so that scripts can look for it.
pub(crate) fn error(text: &str) {
    let text = plain(text);
    match text.split_once(": ") {
        Some((code, words)) if code.bytes().all(|it| it.is_ascii_uppercase() || it == b'_') => {
            to_stderr(&format!("{WRONG}{code}{WRONG:#}: {words}"));
        }
        _ => to_stderr(&format!("{WRONG}error{WRONG:#}: {text}")),
    }
}

/// Tells what may help, on a line of its own.
pub(crate) fn hint(text: &str) {
    to_stderr(&format!("{MARK}hint{MARK:#}: {}", plain(text)));
}

/// Whether standard error shows colours: a terminal does, unless its user wants none.
pub(crate) fn colours() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// Error texts may come from another program, and this one's terminal is not theirs.
fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_control() && it != '\n' { ' ' } else { it }).collect()
}

fn to_stderr(line: &str) {
    // If standard error is gone there is nobody left to tell.
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
