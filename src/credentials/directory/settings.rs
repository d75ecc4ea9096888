//! [`Settings`]: where the store and its key are. Makes the first key.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::DirectoryError;
use crate::config::Config;
use crate::store::{Key, KeySource};

/// Where the store is, and its key.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the store, the key unless it is elsewhere, and the locks.
    pub data_dir: PathBuf,
    /// Where the key is.
    pub key: KeySource,
}

impl Settings {
    /// The configured values. A key in the environment takes precedence over the key files.
    pub fn new(config: &Config, key_variable: Option<SecretString>) -> Self {
        let file = config.credentials.key_file.clone();
        Self { data_dir: config.data_dir.clone(), key: KeySource::new(file, key_variable) }
    }

    pub(super) fn store(&self) -> PathBuf {
        self.data_dir.join("credentials.redb")
    }

    pub(super) fn key_file(&self) -> Option<PathBuf> {
        self.key.file(&self.data_dir)
    }

    /// The key; `None` if its file does not exist.
    pub(super) fn key(&self) -> Result<Option<Key>, DirectoryError> {
        Ok(self.key.read(&self.data_dir)?)
    }

    /// The key of a store that exists.
    pub(super) fn key_of(&self, store: &Path) -> Result<Key, DirectoryError> {
        Ok(self.key.read_for(&self.data_dir, "the credential store", store)?)
    }

    /// The error of a key that does not open a store.
    pub(super) fn wrong_key(&self, store: &Path) -> DirectoryError {
        self.key.wrong_for(&self.data_dir, "this credential store", store).into()
    }

    pub(super) fn key_or_new(&self) -> Result<Key, DirectoryError> {
        Ok(self.key.read_or_make(&self.data_dir)?)
    }

    pub(super) fn describe_key(&self) -> String {
        self.key.describe(&self.data_dir)
    }
}
