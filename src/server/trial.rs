//! [`try_config`]: opens everything that the broker would open at start, and changes nothing. `switchboard check` reports
//! what cannot be used; a start does the same first, so the two cannot differ.

use std::borrow::Cow;
use std::fmt;
use std::io;

use secrecy::SecretString;

use super::cluster::Unjoined;
use super::listener;
use super::org::needs_org;
use super::same_user::SameUser;
use super::tls::Tls;
use super::wiring;
use crate::audit::Audit;
use crate::config::{Config, ListenAddress, Store};
use crate::credentials::{Directory, Settings};
use crate::salesforce::{Org, SetupError};
use crate::store::history::{HistoryFile, Kept, Look};
use crate::store::{FolderLock, try_folder};
use crate::telemetry::metrics::Metrics;

/// Something that a key of the configuration names and that cannot be used.
#[derive(Debug)]
pub struct Unusable {
    key: Cow<'static, str>,
    message: String,
}

impl Unusable {
    pub(super) fn new(key: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Self {
        Self { key: key.into(), message: message.to_string() }
    }

    /// The key, or the table that it is in.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong, and with which file.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<Vec<Unusable>> for UnusableList {
    fn from(list: Vec<Unusable>) -> Self {
        Self(list)
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

impl IntoIterator for UnusableList {
    type Item = Unusable;
    type IntoIter = std::vec::IntoIter<Unusable>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
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
    let mut found = open_tls(config, credentials_key.clone()).err().map_or_else(Vec::new, |unusable| unusable.0);
    if config.keeps_history()
        && try_folder(&config.data_dir).is_ok()
        && let Err(error) = HistoryFile::try_open(&wiring::history_settings(config, credentials_key))
    {
        let unusable = Unusable::new("data_dir", error);
        // Its key was tried before.
        if !found.iter().any(|it| it.message == unusable.message) {
            found.push(unusable);
        }
    }
    if found.is_empty() { Ok(()) } else { Err(UnusableList(found)) }
}

/// Does the same, except for the records of the history, which a start checks as it opens it. Returns what it has opened for `[tls]`, so
/// that a start uses the files that were tried.
pub(super) fn open_tls(config: &Config, credentials_key: Option<SecretString>) -> Result<Option<Tls>, UnusableList> {
    let mut found = addresses(config);
    found.extend(SameUser::open(config, None).err());
    match try_folder(&config.data_dir) {
        Ok(()) => found.extend(data_folder(config, credentials_key)),
        // Its files would only repeat it.
        Err(error) => found.push(Unusable::new("data_dir", error)),
    }
    let (tls, unusable) = match config.uses_tls().then(|| Tls::open(&config.tls)).transpose() {
        Ok(tls) => (tls, None),
        Err(unusable) => (None, Some(unusable)),
    };
    found.extend(unusable);
    found.extend(files(config));
    if found.is_empty() { Ok(tls) } else { Err(UnusableList(found)) }
}

/// Tries every key, secret and certificate that the configuration names, beside those of `[tls]`.
fn files(config: &Config) -> Vec<Unusable> {
    let mut found = Vec::new();
    if needs_org(config)
        && let Err(error) = Org::open(&config.salesforce)
    {
        found.push(Unusable::from(&error));
    }
    if config.cluster.is_on()
        && let Err(error) = Unjoined::open(config)
    {
        found.push(Unusable::new("cluster", error));
    }
    if let Err(errors) = wiring::verifier(config, &[], &Metrics::default()) {
        found.extend(errors);
    }
    found
}

/// Addresses that this machine does not have, or whose port this user may not have, and paths where no socket can be.
fn addresses(config: &Config) -> Vec<Unusable> {
    let plain = config.listen.iter().map(|address| ("listen", address.clone()));
    let encrypted = config.tls.addresses().map(|(key, address)| (key, address.into()));
    // The default one only warns at start.
    let admin = config.admin.listen.iter().filter(|_| !config.admin.listen_is_default);
    let all = plain.chain(encrypted).chain(admin.map(|address| ("admin.listen", (*address).into())));
    let refused = all.filter_map(|(key, address)| Some((key, address_fault(config, &address)?, address)));
    refused.map(|(key, fault, address)| Unusable::new(key, format!("could not listen on {address}: {fault}"))).collect()
}

/// Why an address cannot be used, if another program is not the reason.
fn address_fault(config: &Config, address: &ListenAddress) -> Option<String> {
    match address {
        ListenAddress::Tcp(address) if config.listen_is_default && address.is_ipv6() => None,
        ListenAddress::Tcp(address) => {
            let error = listener::bind(*address).err()?;
            (error.kind() != io::ErrorKind::AddrInUse).then(|| error.to_string())
        }
        #[cfg(unix)]
        ListenAddress::Unix(path) => match listener::UnixSocket::try_open(path) {
            Ok(()) | Err(listener::UnixError::InUse) => None,
            Err(error) => Some(error.to_string()),
        },
        #[cfg(not(unix))]
        ListenAddress::Unix(_) => Some("this system has no Unix sockets".to_owned()),
    }
}

fn data_folder(config: &Config, credentials_key: Option<SecretString>) -> Vec<Unusable> {
    let lock = FolderLock::try_open(&config.data_dir).err().map(|error| error.to_string());
    let audit = config.credentials.audit_required.then(|| Audit::try_open(&config.data_dir).err()).flatten();
    let audit = audit.map(|error| error.to_string());
    let mut found: Vec<_> =
        [lock, audit].into_iter().flatten().map(|message| Unusable::new("data_dir", message)).collect();
    if config.credentials.store == Store::Directory
        && let Err(error) = Directory::try_open(&Settings::new(config, credentials_key.clone()))
    {
        found.push(Unusable::new("credentials", error));
    }
    if config.keeps_history()
        && let Err(error) = HistoryFile::try_key(&wiring::history_settings(config, credentials_key.clone()))
    {
        found.push(Unusable::new("data_dir", error));
    }
    found.extend(config.cluster.is_on().then(|| left_by_one_broker(config, credentials_key)).flatten());
    found
}

/// Why a node cannot use a data folder: it has what a broker without a cluster has kept there, which no node would find.
fn left_by_one_broker(config: &Config, credentials_key: Option<SecretString>) -> Option<Unusable> {
    const DISCARD: &str = "'switchboard cluster adopt --discard' leaves the file aside";
    const ADOPT: &str = "'switchboard cluster adopt' moves them there";
    let kept = Look::new(&wiring::history_settings(config, credentials_key)).kept();
    let message = match kept {
        Ok(kept) if !kept.any() => return None,
        Ok(Kept { logs, events, values }) => format!(
            "history.redb in {} has what a broker without [cluster] kept: {logs} logs with {events} events, and {values} \
             retained values. A cluster keeps them in JetStream: {ADOPT}, and {DISCARD}",
            config.data_dir.display()
        ),
        Err(error) => format!("{error}; a node does not use it, and {DISCARD}"),
    };
    Some(Unusable::new("data_dir", message))
}
