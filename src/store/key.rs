//! [`KeySource`]: where the operator's key is. Makes the first key.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{Key, StoreError, exists};
use crate::short_text;

/// The environment variable that may contain the key instead of a file.
pub const KEY_VARIABLE: &str = "SWITCHBOARD_CREDENTIALS_KEY";

/// Where the key is that seals the stores of a data folder.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// `credentials.key` in the data folder; made at first use.
    DataFolder,
    /// The file of `credentials.key_file`; made at first use.
    File(PathBuf),
    /// The text of [`KEY_VARIABLE`].
    Text(SecretString),
}

impl KeySource {
    /// Returns where the key is. A text of [`KEY_VARIABLE`] takes precedence over the key files.
    pub fn new(key_file: Option<PathBuf>, key_variable: Option<SecretString>) -> Self {
        match (key_variable, key_file) {
            (Some(text), _) => Self::Text(text),
            (None, Some(path)) => Self::File(path),
            (None, None) => Self::DataFolder,
        }
    }

    /// Returns the key's file, if it is in one.
    pub(crate) fn file(&self, data_dir: &Path) -> Option<PathBuf> {
        match self {
            Self::DataFolder => Some(data_dir.join("credentials.key")),
            Self::File(path) => Some(path.clone()),
            Self::Text(_) => None,
        }
    }

    /// Reads the key; `None` if its file does not exist.
    pub(crate) fn read(&self, data_dir: &Path) -> Result<Option<Key>, StoreError> {
        if let Self::Text(text) = self {
            return Key::parse(short_text::trim(text.expose_secret())).map(Some).ok_or_else(|| {
                StoreError::unusable(format!("{KEY_VARIABLE} has to hold 64 hexadecimal digits, and does not"))
            });
        }
        match self.file(data_dir) {
            Some(path) if exists(&path)? => Key::read(&path).map(Some),
            _ => Ok(None),
        }
    }

    /// Reads the key of a file that exists, and that an error calls `what`.
    pub(crate) fn read_for(&self, data_dir: &Path, what: &str, file: &Path) -> Result<Key, StoreError> {
        self.read(data_dir)?.ok_or_else(|| {
            StoreError::unusable(format!(
                "{}: the key file is missing, though {what} {} exists; put the key back from its backup: no new key can \
                 open this store",
                self.describe(data_dir),
                file.display()
            ))
        })
    }

    /// The error of a key that does not open a file, which it calls `what`.
    pub(crate) fn wrong_for(&self, data_dir: &Path, what: &str, file: &Path) -> StoreError {
        StoreError::unusable(format!(
            "{}: the key of {} is not the one that {what} was made with; put the right key back",
            file.display(),
            self.describe(data_dir)
        ))
    }

    /// Reads the key, or makes one and writes its file.
    pub(crate) fn read_or_make(&self, data_dir: &Path) -> Result<Key, StoreError> {
        match (self.read(data_dir)?, self.file(data_dir)) {
            (None, Some(path)) => {
                let key = Key::generate()?;
                key.write_new(None, &path)?;
                tracing::info!(path = %path.display(), "a key for the credential store was made");
                Ok(key)
            }
            (Some(key), _) => Ok(key),
            (None, None) => Err(StoreError::unusable(format!("{KEY_VARIABLE} is empty"))),
        }
    }

    /// Returns what an error calls the key: its file or its variable.
    pub(crate) fn describe(&self, data_dir: &Path) -> String {
        self.file(data_dir).map_or_else(|| KEY_VARIABLE.to_owned(), |path| path.display().to_string())
    }
}
