//! [`Kept`]: what a history holds that a cluster would not use. [`set_aside`] gives the file another name.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::Look;
use super::repair::free_name;
use super::start::HistorySettings;
use crate::store::{FolderLock, StoreError, exists};

/// How much a history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Logs, those without events included.
    pub logs: usize,
    /// Events in them.
    pub events: usize,
    /// Retained values.
    pub values: usize,
}

impl Kept {
    /// Whether it holds anything.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// Gives the history of a data folder another name, which says what became of it and when: no broker uses it any more. Returns
/// its path; `None` if there is no history.
///
/// # Errors
/// The file cannot be renamed.
pub fn set_aside(settings: &HistorySettings, became: &str, _alone: &FolderLock) -> Result<Option<PathBuf>, StoreError> {
    let path = settings.file();
    if !exists(&path)? {
        return Ok(None);
    }
    // No other process takes the name in between: this one has the folder alone.
    let aside = free_name(&path, became, |from, to| match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    });
    aside.map(Some).map_err(|error| StoreError::file(&path, "cannot be renamed", &error))
}

impl Look<'_> {
    /// Returns how much the history holds.
    ///
    /// # Errors
    /// The file is damaged, has another key, or cannot be read.
    pub fn kept(&self) -> Result<Kept, StoreError> {
        let mut kept = Kept::default();
        self.count(&mut kept)?;
        Ok(kept)
    }
}
