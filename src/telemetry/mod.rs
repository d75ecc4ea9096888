//! Logging: where lines go, and which.
//!
//! Lines go to standard error; standard output belongs to the commands. Lines of the `log` crate are not taken up,
//! whatever the filter says: tungstenite writes whole messages there, passwords included.

mod limit;

pub use limit::LogLimit;

use std::io::{self, IsTerminal, Write as _};

use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The crates that write log lines, besides this one.
const CRATES: &[&str] =
    &["switchboard_client", "h2", "hyper", "hyper_util", "reqwest", "rustls", "tokio", "tonic", "tower"];

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for a collector.
    Json,
}

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
        "'{word}' in the log filter is neither a level (off, error, warn, info, debug, trace) nor a part of this \
         program, such as 'switchboard::router'"
    )]
    Word {
        /// The word.
        word: String,
    },
    /// Logging has already started.
    #[error(transparent)]
    Again(#[from] SetGlobalDefaultError),
}

/// Logs the lines that the filter lets through, until the process ends.
pub fn start(filter: &str, format: Format) -> Result<(), TelemetryError> {
    check(filter)?;
    let filter =
        EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    // Not `init`, which takes up the lines of the `log` crate.
    match format {
        Format::Text => tracing::subscriber::set_global_default(lines.finish())?,
        Format::Json => tracing::subscriber::set_global_default(lines.json().finish())?,
    }
    Ok(())
}

/// Prints an error in the JSON format of log lines, when logging has not started.
pub fn print_error(message: &str) {
    let line = json!({ "level": "ERROR", "fields": { "message": message }, "target": "switchboard" });
    writeln!(io::stderr(), "{line}").ok();
}

/// Refuses unknown words: `EnvFilter` takes every word for a target, which then matches nothing.
fn check(filter: &str) -> Result<(), TelemetryError> {
    for directive in filter.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let (target, level) =
            directive.split_once('=').map_or((directive, None), |(target, level)| (target, Some(level)));
        // `target[span{field=value}]=level`, which only those write who have read the documentation of `EnvFilter`.
        if directive.contains('[') {
            continue;
        }
        let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
        let word = match level {
            Some(level) if !is_level(level) => level,
            Some(_) if is_part(target) => continue,
            None if is_level(target) || is_part(target) => continue,
            Some(_) | None => target,
        };
        return Err(TelemetryError::Word { word: word.to_owned() });
    }
    Ok(())
}

/// Returns whether a target can have log lines: a crate, or a module of this one.
fn is_part(target: &str) -> bool {
    let mut names = target.split("::");
    let (first, second) = (names.next().unwrap_or_default(), names.next());
    if first != env!("CARGO_CRATE_NAME") {
        return CRATES.contains(&first);
    }
    let modules = include_str!("../lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    second.is_none_or(|second| modules.into_iter().any(|module| module == second))
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
            "hyper=trace, warn",
            "2",
            "switchboard::router::index=trace",
            "[span]=debug",
        ] {
            assert!(check(filter).is_ok(), "{filter}");
        }
        for (filter, unknown) in [
            ("verbose", "verbose"),
            ("info,switchbord=debug", "switchbord"),
            ("switchboard::ruter=debug", "switchboard::ruter"),
            ("switchboard=loud", "loud"),
        ] {
            let TelemetryError::Word { word } = check(filter).unwrap_err() else { panic!("{filter}") };
            assert_eq!(word, unknown, "{filter}");
        }
    }
}
