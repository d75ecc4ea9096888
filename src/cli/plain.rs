//! Plain text to standard output, from commands that print once and end.

use std::io::{ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;

/// The exit code when standard output takes nothing.
const FAILED: u8 = 1;

/// Prints a text that ends its own lines. A reader that went away is not an error: it has what it wanted.
pub(crate) fn print(text: &str) -> ExitCode {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &format!("cannot write to standard output: {error}")),
    }
}

/// Says on standard error why the command ends with this code.
pub(crate) fn fail(code: u8, message: &str) -> ExitCode {
    // Where even standard error is closed, the code has to say it all.
    drop(writeln!(stderr(), "error: {message}"));
    ExitCode::from(code)
}
