//! CTI credentials of agents: who may fetch them, where they come from, and a record of every fetch.
//!
//! [`FetchCredentials`] answers `Salesforce/User/FetchCredentials`. It asks a [`Source`], of which [`Directory`], the
//! embedded encrypted file, is one; the room uses no other.

mod directory;
mod exchange;
mod fetch;
mod source;

pub use crate::store::{KEY_VARIABLE, KeySource};
pub use directory::{
    Change, Delimiter, Directory, DirectoryError, Entry, FieldFault, Import, OldRecords, PASSWORD_BYTES_MAX, Rekeyed,
    RowMessage, Settings, has_blank_end, read_import,
};
pub use fetch::FetchCredentials;
pub use source::{Credentials, Found, Source};
