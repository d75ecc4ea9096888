//! [`try_config`]: opens everything that the broker would open at start, and changes nothing. `switchboard check` reports
//! what cannot be used; a start does the same first, so the two cannot differ.

use std::fmt;
use std::io;

use secrecy::SecretString;

use super::listener;
use super::tls::Tls;
use super::wiring;
use crate::audit::Audit;
use crate::config::{Config, Store};
use crate::credentials::{Directory, Settings};
use crate::salesforce::{Org, SetupError};
use crate::store::{FolderLock, try_folder};

/// Something that a key of the configuration names and that cannot be used.
#[derive(Debug)]
pub struct Unusable {
    key: &'static str,
    message: String,
}

impl Unusable {
    pub(super) fn new(key: &'static str, message: impl fmt::Display) -> Self {
        Self { key, message: message.to_string() }
    }

    /// The key, or the table that it is in.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// What is wrong, and with which file.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<&SetupError> for Unusable {
    fn from(error: &SetupError) -> Self {
        Self::new(error.key(), error.message())
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Everything that cannot be used; never empty.
#[derive(Debug)]
pub struct UnusableList(Vec<Unusable>);

impl UnusableList {
    /// In the order in which the broker would need them.
    pub fn list(&self) -> &[Unusable] {
        &self.0
    }
}

impl From<Unusable> for UnusableList {
    fn from(unusable: Unusable) -> Self {
        Self(vec![unusable])
    }
}

impl fmt::Display for UnusableList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, unusable) in self.0.iter().enumerate() {
            write!(f, "{}{unusable}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnusableList {}

/// Tries the listeners' addresses, the data folder, the credential store and its key, the audit log, and every key,
/// secret and certificate that the configuration names. An address or a data folder that another program uses is not an
/// error: that may be the broker whose restart is being prepared. Blocks on the disk.
///
/// # Errors
/// Everything that cannot be used.
pub fn try_config(config: &Config, credentials_key: Option<SecretString>) -> Result<(), UnusableList> {
    let mut found = addresses(config);
    match try_folder(&config.data_dir) {
        Ok(()) => found.extend(data_folder(config, credentials_key)),
        // Its files would only repeat it.
        Err(error) => found.push(Unusable::new("data_dir", error)),
    }
    found.extend(Tls::open(&config.tls).err());
    if wiring::needs_org(config)
        && let Err(error) = Org::open(&config.salesforce)
    {
        found.push(Unusable::from(&error));
    }
    if let Err(errors) = wiring::verifier(config) {
        found.extend(errors.list().iter().map(Unusable::from));
    }
    if found.is_empty() { Ok(()) } else { Err(UnusableList(found)) }
}

/// Addresses that this machine does not have, or whose port this user may not have.
fn addresses(config: &Config) -> Vec<Unusable> {
    let plain = config.listen.iter().filter(|address| !(config.listen_is_default && address.is_ipv6()));
    let tried = plain.map(|address| ("listen", *address)).chain(config.tls.addresses());
    let refused = tried.filter_map(|(key, address)| Some((key, address, listener::bind(address).err()?)));
    refused
        .filter(|(_, _, error)| error.kind() != io::ErrorKind::AddrInUse)
        .map(|(key, address, error)| Unusable::new(key, format!("could not listen on {address}: {error}")))
        .collect()
}

fn data_folder(config: &Config, credentials_key: Option<SecretString>) -> Vec<Unusable> {
    let lock = FolderLock::try_open(&config.data_dir).err().map(|error| error.to_string());
    let audit = config.credentials.audit_required.then(|| Audit::try_open(&config.data_dir).err()).flatten();
    let audit = audit.map(|error| error.to_string());
    let mut found: Vec<_> =
        [lock, audit].into_iter().flatten().map(|message| Unusable::new("data_dir", message)).collect();
    if config.credentials.store == Store::Directory
        && let Err(error) = Directory::try_open(&Settings::new(config, credentials_key))
    {
        found.push(Unusable::new("credentials", error));
    }
    found
}
