//! Logging: where lines go, and which. [`metrics`] counts.
//!
//! Lines go to standard error; standard output belongs to the commands. Lines of the `log` crate are not taken up,
//! whatever the filter says: tungstenite writes whole messages there, passwords included.

mod filter;
mod limit;
pub mod metrics;
pub mod recorder;

pub use filter::set_filter;
pub use limit::LogLimit;

use std::io::{self, IsTerminal, Write as _};
use std::time::SystemTime;

use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::ParseError;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for a collector.
    Json,
}

/// The levels, as an operator writes them.
const LEVELS: &str = "off, error, warn, info, debug, trace";

/// The reason why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("'{filter}' is not a log filter: write a level, or levels for parts: 'switchboard::router=debug,info'")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The filter has a word that is neither a level nor a part of the program.
    #[error(
        "'{word}' in the log filter is neither a level ({LEVELS}) nor a part of this program, such as \
         'switchboard::router'"
    )]
    Word {
        /// The word.
        word: String,
    },
    /// The filter has levels for other programs' parts only, so no line of this program would be logged.
    #[error(
        "the log filter has a level for '{word}', which is not a part of this program, and no general level ({LEVELS}): \
         write one before it, as in 'info,{word}=debug'"
    )]
    Alone {
        /// The part.
        word: String,
    },
    /// Logging has not started.
    #[error("this program does not log")]
    NotStarted,
    /// Logging has already started.
    #[error(transparent)]
    Again(#[from] SetGlobalDefaultError),
}

/// Logs the lines that the filter lets through, until the process ends.
pub fn start(filter: &str, format: Format) -> Result<(), TelemetryError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter::parse(filter)?)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // Not `init`, which takes up the lines of the `log` crate.
    match format {
        Format::Text => {
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            tracing::subscriber::set_global_default(lines.finish())?;
            filter::started(filter, handle);
        }
        Format::Json => {
            let lines = lines.json().with_filter_reloading();
            let handle = lines.reload_handle();
            tracing::subscriber::set_global_default(lines.finish())?;
            filter::started(filter, handle);
            std::panic::set_hook(Box::new(|panic| print_error(&panic.to_string())));
        }
    }
    Ok(())
}

/// Prints an error in the JSON format of log lines, whatever the filter says.
pub fn print_error(message: &str) {
    #[expect(clippy::disallowed_methods, reason = "a log line says the time of day, on which no rule depends")]
    let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let line = json!({
        "timestamp": now, "level": "ERROR", "fields": { "message": message }, "target": "switchboard",
    });
    writeln!(io::stderr(), "{line}").ok();
}

/// Refuses what `EnvFilter` takes for the name of a target that no line has.
///
/// # Errors
/// A word that is neither a level nor a part of this program, or a filter that would turn off all lines of this program
/// without saying `off`.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    let directives: Vec<Directive<'_>> = directives(filter).map(Directive::new).collect();
    let is_general = |directive: &Directive<'_>| directive.target.is_none() && !directive.has_span;
    for Directive { target, level, has_span } in &directives {
        let unknown = |word: &str| Err(TelemetryError::Word { word: word.to_owned() });
        if let Some(level) = level.filter(|level| !is_level(level)) {
            return unknown(level);
        }
        match *target {
            Some(target) if is_ours(target) => {}
            Some(target) if level.is_none() && !has_span || is_nearly_ours(target) => return unknown(target),
            Some(target) if !directives.iter().any(is_general) => {
                return Err(TelemetryError::Alone { word: target.to_owned() });
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// A part of a filter: `level`, `target`, `target=level` or `target[span{field=value}]=level`.
struct Directive<'a> {
    target: Option<&'a str>,
    level: Option<&'a str>,
    has_span: bool,
}

impl<'a> Directive<'a> {
    fn new(text: &'a str) -> Self {
        let Some((target, span)) = text.split_once('[') else {
            return match text.split_once('=') {
                Some((target, level)) => Self { target: Some(target), level: Some(level), has_span: false },
                None if is_level(text) => Self { target: None, level: Some(text), has_span: false },
                None => Self { target: Some(text), level: None, has_span: false },
            };
        };
        let level = span.rsplit_once(']').and_then(|(_, level)| level.strip_prefix('='));
        Self { target: Some(target).filter(|target| !target.is_empty()), level, has_span: true }
    }
}

/// Splits a filter at its commas, except those between the fields of a span.
fn directives(filter: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let parts = filter.split(move |character| {
        match character {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

fn is_level(word: &str) -> bool {
    word.parse::<LevelFilter>().is_ok()
}

/// Returns whether a target can have log lines of this program: the crate, or one of its modules.
fn is_ours(target: &str) -> bool {
    let mut names = target.split("::");
    let (first, second) = (names.next().unwrap_or_default(), names.next());
    let mut modules =
        include_str!("../lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    first == env!("CARGO_CRATE_NAME") && second.is_none_or(|second| modules.any(|module| module == second))
}

/// Returns whether a target was probably meant to be one of ours.
fn is_nearly_ours(target: &str) -> bool {
    let first = target.split("::").next().unwrap_or_default();
    strsim::damerau_levenshtein(first, env!("CARGO_CRATE_NAME")) <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_levels_and_parts_of_the_program() {
        for filter in [
            "info",
            "",
            "OFF",
            "switchboard",
            "switchboard::router=debug,info",
            "switchboard::router::index=trace",
            "hyper=trace, warn",
            "info,hyper=debug,other::part=trace",
            "2",
            "info,[span]=debug",
            "[span{a=1,b=2}]=debug,info",
            "switchboard[span]=debug",
        ] {
            assert!(check_filter(filter).is_ok(), "{filter}");
        }
        for (filter, unknown) in [
            ("warning", "warning"),
            ("verbose", "verbose"),
            ("info,hyper", "hyper"),
            ("info,switchbord=debug", "switchbord"),
            ("info,switchboard::ruter=debug", "switchboard::ruter"),
            ("switchboard=loud", "loud"),
            ("info,[span]=loud", "loud"),
        ] {
            let error = check_filter(filter).unwrap_err();
            assert!(matches!(&error, TelemetryError::Word { word } if word == unknown), "{filter}: {error}");
            assert!(error.to_string().contains(LEVELS), "{error}");
        }
        for filter in ["hyper=debug", "other[span]=debug", "hyper=debug,tokio=info"] {
            let error = check_filter(filter).unwrap_err();
            assert!(matches!(error, TelemetryError::Alone { .. }), "{filter}: {error}");
        }
    }
}
