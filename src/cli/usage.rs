//! What is printed for arguments that are not a command line: help, the version, or a mistake with a tip that helps.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Exit, serve};
use crate::telemetry;

/// Prints the error of the parser, and returns the exit code. `serve` has JSON lines on standard error if it is told so.
pub(super) fn print(mut error: clap::Error, arguments: &[OsString]) -> u8 {
    let exit = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
    if let Some(tip) = tip(&error, arguments) {
        error.remove(ContextKind::Suggested);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    if error.use_stderr()
        && arguments.get(1).is_some_and(|command| command == "serve")
        && serve::asks_for_json(arguments)
    {
        telemetry::print_error(error.to_string().trim());
    } else {
        // A closed pipe is not an error.
        error.print().ok();
    }
    exit
}

/// Returns a tip about a value that begins with `-` and was taken for an option. The parser's own advice, `-- VALUE`, is
/// wrong for the value of an option.
fn tip(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidArg) else { return None };
    let at = arguments.iter().position(|argument| argument.to_str().is_some_and(|text| text.starts_with(&**value)))?;
    let before = at.checked_sub(1).and_then(|before| arguments.get(before)).and_then(|before| before.to_str())?;
    (before.starts_with("--") && !before.contains('=')).then(|| {
        let value = arguments.get(at).map(|value| value.to_string_lossy()).unwrap_or_default();
        format!("a value that begins with '-' is joined to its option: '{before}={value}'")
    })
}
