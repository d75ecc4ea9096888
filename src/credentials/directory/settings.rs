//! [`Settings`]: where the store and its key are. Makes the first key.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::DirectoryError;
use super::cipher::Key;
use crate::config::Config;
use crate::short_text;
use crate::store::exists;

/// The environment variable that may contain the key instead of a file.
pub const KEY_VARIABLE: &str = "SWITCHBOARD_CREDENTIALS_KEY";

/// Where the store is, and its key.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the store, the key unless it is elsewhere, and the locks.
    pub data_dir: PathBuf,
    /// Where the key is.
    pub key: KeySource,
}

/// Where the key is.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// `credentials.key` in the data folder; made at first use.
    DataFolder,
    /// The file of `credentials.key_file`; made at first use.
    File(PathBuf),
    /// The text of [`KEY_VARIABLE`].
    Text(SecretString),
}

impl Settings {
    /// The configured values. A key in the environment takes precedence over the key files.
    pub fn new(config: &Config, key_variable: Option<SecretString>) -> Self {
        let file = config.credentials.key_file.clone();
        Self {
            data_dir: config.data_dir.clone(),
            key: match (key_variable, file) {
                (Some(text), _) => KeySource::Text(text),
                (None, Some(path)) => KeySource::File(path),
                (None, None) => KeySource::DataFolder,
            },
        }
    }

    pub(super) fn store(&self) -> PathBuf {
        self.data_dir.join("credentials.redb")
    }

    pub(super) fn key_file(&self) -> Option<PathBuf> {
        match &self.key {
            KeySource::DataFolder => Some(self.data_dir.join("credentials.key")),
            KeySource::File(path) => Some(path.clone()),
            KeySource::Text(_) => None,
        }
    }

    /// The key; `None` if its file does not exist.
    pub(super) fn key(&self) -> Result<Option<Key>, DirectoryError> {
        if let KeySource::Text(text) = &self.key {
            return Key::parse(short_text::trim(text.expose_secret())).map(Some).ok_or_else(|| {
                DirectoryError::new(format!("{KEY_VARIABLE} has to hold 64 hexadecimal digits, and does not"))
            });
        }
        match self.key_file() {
            Some(path) if exists(&path)? => Key::read(&path).map(Some),
            _ => Ok(None),
        }
    }

    /// The key of a store that exists.
    pub(super) fn key_of(&self, store: &Path) -> Result<Key, DirectoryError> {
        self.key()?.ok_or_else(|| {
            DirectoryError::new(format!(
                "{}: the key file is missing, though the credential store {} exists; put the key back from its backup: \
                 no new key can open this store",
                self.describe_key(),
                store.display()
            ))
        })
    }

    /// The error of a key that does not open a store.
    pub(super) fn wrong_key(&self, store: &Path) -> DirectoryError {
        DirectoryError::new(format!(
            "{}: the key of {} is not the one that this credential store was made with; put the right key back",
            store.display(),
            self.describe_key()
        ))
    }

    pub(super) fn key_or_new(&self) -> Result<Key, DirectoryError> {
        match (self.key()?, self.key_file()) {
            (None, Some(path)) => {
                let key = Key::generate()?;
                key.write_new(None, &path)?;
                tracing::info!(path = %path.display(), "a key for the credential store was made");
                Ok(key)
            }
            (Some(key), _) => Ok(key),
            (None, None) => Err(DirectoryError::new(format!("{KEY_VARIABLE} is empty"))),
        }
    }

    pub(super) fn describe_key(&self) -> String {
        self.key_file().map_or_else(|| KEY_VARIABLE.to_owned(), |path| path.display().to_string())
    }
}
