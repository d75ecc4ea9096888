//! Logging: where lines go, and which.
//!
//! Lines go to standard error; standard output is a command's own. Lines of the `log` crate are not taken up, whatever
//! the filter says: tungstenite writes whole messages there, passwords included.

use std::io::{self, IsTerminal};

use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for a collector.
    Json,
}

/// Why logging did not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A filter that is none.
    #[error("'{filter}' is no log filter: write a level, or 'switchboard::router=debug,info'")]
    Filter {
        /// What was asked for.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Logging has begun already.
    #[error(transparent)]
    Again(#[from] SetGlobalDefaultError),
}

/// Begins to log what the filter lets through, until the process ends.
pub fn start(filter: &str, format: Format) -> Result<(), TelemetryError> {
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
