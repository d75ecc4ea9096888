//! What is printed for arguments that are not a command line: help, the version, or a mistake with a tip that helps.

use std::borrow::Cow;
use std::ffi::OsString;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{CommandLine, Exit, serve};
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
/// wrong for the value of an option, and where options follow.
fn tip(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(option))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let at = words.iter().position(|word| word.starts_with(&**option))?;
    let (value, before) = (words.get(at)?, words.get(at.checked_sub(1)?)?);
    if before.strip_prefix("--").is_some_and(|name| takes_value(name, &words)) {
        return Some(format!("a value that begins with '-' is joined to its option: '{before}={value}'"));
    }
    let is_advised = error.get(ContextKind::Suggested).is_some_and(|advice| advice.to_string().contains("-- "));
    is_advised.then(|| format!("a value that begins with '-' is written last, behind '--': '-- {value}'"))
}

/// Returns whether the command of these words has a long option of this name that takes a value.
fn takes_value(name: &str, words: &[Cow<'_, str>]) -> bool {
    let mut whole = CommandLine::command();
    whole.build();
    let mut command = &whole;
    for word in words.iter().skip(1) {
        command = command.find_subcommand(&**word).unwrap_or(command);
    }
    let mut options = command.get_arguments().filter(|argument| argument.get_long() == Some(name));
    options.any(|option| option.get_action().takes_values())
}
