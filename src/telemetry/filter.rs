//! [`set_filter`]: which lines are logged can change while the program runs.

use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use super::{TelemetryError, check_filter};

/// The filter of this program, once logging has started. It belongs to the global subscriber, so it is global too.
static FILTER: OnceLock<Filter> = OnceLock::new();

struct Filter {
    text: Mutex<String>,
    replace: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
}

/// Reads a filter.
pub(super) fn parse(text: &str) -> Result<EnvFilter, TelemetryError> {
    check_filter(text)?;
    let filter =
        EnvFilter::try_new(text).map_err(|source| TelemetryError::Filter { filter: text.to_owned(), source })?;
    // The client of NATS says at level info what the cluster says in words of its own.
    Ok(match "async_nats=warn".parse() {
        Ok(quieter) if !text.contains("async_nats") && text != "off" => filter.add_directive(quieter),
        Ok(_) | Err(_) => filter,
    })
}

/// Notes the filter with which logging has started.
pub(super) fn started<S: 'static>(text: &str, handle: Handle<EnvFilter, S>) {
    let replace = Box::new(move |filter| handle.reload(filter).is_ok());
    FILTER.set(Filter { text: Mutex::new(text.to_owned()), replace }).ok();
}

/// Logs the lines that another filter lets through, from now on. Returns the filter before.
///
/// # Errors
/// The filter cannot be read, or logging has not started.
pub fn set_filter(text: &str) -> Result<String, TelemetryError> {
    let filter = parse(text)?;
    let own = FILTER.get().ok_or(TelemetryError::NotStarted)?;
    let mut current = own.text.lock();
    if !(own.replace)(filter) {
        return Err(TelemetryError::NotStarted);
    }
    Ok(std::mem::replace(&mut *current, text.to_owned()))
}
