//! The credential store from all sides: as a library (`store`, `rekey`, `erase`), as a handler (`fetch`), from the command line
//! (`command`, `import`), over a socket (`contract`); how many copies of a password there are (`one_buffer`), and where it
//! never is (`secrets`). The audit log: its chain and what finds that it is broken (`audit_chain`), its rotation and files that
//! cannot be rotated or changed (`audit_rotation`), records that cannot be written (`audit_faults`), and what leaves a record
//! (`audit_events`).

mod audit_chain;
mod audit_events;
mod audit_faults;
mod audit_rotation;
mod command;
mod contract;
mod erase;
mod fetch;
mod import;
#[cfg(target_os = "linux")]
pub(crate) mod one_buffer;
mod rekey;
pub(crate) mod secrets;
mod store;

use std::path::Path;

use secrecy::SecretString;
use switchboard::credentials::{Credentials, Directory, Entry, KeySource, Settings};

/// A store with its key in the folder, as without any configuration.
fn settings(folder: &Path) -> Settings {
    Settings { data_dir: folder.to_owned(), key: KeySource::DataFolder }
}

fn entry(user: &str, password: &str) -> Entry {
    let credentials = Credentials {
        username: "1245456".to_owned(),
        password: SecretString::from(password),
        extension: "5051".to_owned(),
        adfs_username: None,
    };
    Entry::new(user.to_owned(), credentials).unwrap()
}

/// A store that holds alice's credentials.
fn store_with_alice(folder: &Path) -> Directory {
    let directory = Directory::open(&settings(folder)).unwrap();
    directory.set(&[entry("alice@example.com", SECRET)]).unwrap();
    directory
}

/// A password that no other text of these tests contains.
const SECRET: &str = "acq@123-never-shown";
