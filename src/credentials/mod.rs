//! CTI credentials of agents: who may fetch them, where they come from, and a record of every fetch.
//!
//! [`FetchCredentials`] answers `Salesforce/User/FetchCredentials`. It asks a [`Source`], of which [`Directory`], the
//! embedded encrypted file, is one; the room uses no other. [`Audit`] writes one line for each fetch.

mod audit;
mod directory;
mod exchange;
mod fetch;
mod source;

pub use audit::{Audit, Requester, Rotation};
pub use directory::{
    Directory, DirectoryError, Entry, FieldFault, Import, KEY_VARIABLE, KeySource, RowFault, Settings, read_import,
};
pub use fetch::FetchCredentials;
pub use source::{Credentials, Found, Source};
