//! Files on disk: private to their owner, written atomically, locked, and redb databases.
//!
//! The room does not know what the files hold: names of files and tables are arguments. `history` alone has tables of its own.
//! Everything here may block.

mod access;
mod database;
mod files;
pub mod history;
mod key;
mod lock;
mod quiet;
mod replaced;
mod sealing;
mod secret;
mod trial;

pub(crate) use database::Database;
use files::{Readers, open_to_others};
pub(crate) use files::{
    beside, create_like, create_new, create_readable, create_whole, exists, make_folder, make_private_folder,
    open_or_create, open_regular, open_to_append, publish, read_regular, replace, replace_like, resolve,
};
pub use key::{KEY_VARIABLE, KeySource};
pub use lock::FolderLock;
pub(crate) use lock::lock_changes;
#[cfg(test)]
pub(crate) use quiet::catch_quietly;
pub(crate) use quiet::is_quiet;
pub(crate) use replaced::Replaced;
pub(crate) use sealing::{Cipher, KEY_CHECK, Key};
pub(crate) use secret::{
    SecretError, read_group_secret, read_group_secret_bytes, read_secret, read_secret_bytes, read_secret_or_pipe,
};
pub(crate) use trial::{try_file, try_folder, try_linked_file, try_lock_file, try_new_file, try_new_name};

use std::fmt;
use std::path::Path;
use std::time::Duration;

/// How long a process waits for another one that is creating or writing the same file.
const WAIT: Duration = Duration::from_secs(10);

/// How often it tries again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why a file or a folder cannot be used: its path, what is wrong with it, and what to do. Holds no secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The content of a file makes no sense; nothing was changed.
    #[error("{0}")]
    Damaged(String),
    /// Anything else.
    #[error("{0}")]
    Unusable(String),
}

impl StoreError {
    fn unusable(words: impl Into<String>) -> Self {
        Self::Unusable(words.into())
    }

    fn file(path: &Path, what: &str, cause: &dyn fmt::Display) -> Self {
        Self::Unusable(format!("{}: {what}: {cause}", path.display()))
    }
}
