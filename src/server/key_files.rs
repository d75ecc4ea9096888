//! [`KeyFiles`]: digests of the key files that a configuration names. By them a reload says which files have another content,
//! since nothing in the configuration has changed then.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::org::needs_org;
use crate::config::{Config, KeysFrom, Proofs, Salesforce};

/// Longer files cannot be used, and are not compared any further.
const BYTES_MAX: u64 = 1 << 20;

/// Key files by the keys that name them. `None`: a file cannot be read.
#[derive(Default)]
pub(super) struct KeyFiles(BTreeMap<String, (PathBuf, Option<[u8; 32]>)>);

impl KeyFiles {
    /// Reads the files. Blocks on the disk.
    pub(super) fn read(config: &Config) -> Self {
        let read = |(key, path): (String, &Path)| (key, (path.to_owned(), digest(path)));
        Self(named(config).into_iter().map(read).collect())
    }

    /// Returns the keys that name the same files as before, with another content, or that cannot be read any more.
    pub(super) fn changed_since(&self, before: &Self) -> Vec<String> {
        let is_changed = |key: &str, (path, digest): &(PathBuf, Option<[u8; 32]>)| {
            before.0.get(key).is_some_and(|(old_path, old_digest)| old_path == path && old_digest != digest)
        };
        self.0.iter().filter(|(key, file)| is_changed(key, file)).map(|(key, _)| key.clone()).collect()
    }
}

/// The key files that a reload reads, with the keys that name them.
fn named(config: &Config) -> Vec<(String, &Path)> {
    let Proofs { jwt, introspection, userinfo, .. } = &config.proofs;
    let mut files = Vec::new();
    if config.uses_tls() {
        files.push(("tls.certificate_file".to_owned(), &config.tls.certificate_file));
        files.push(("tls.key_file".to_owned(), &config.tls.key_file));
        files.push(("tls.client_ca_file".to_owned(), &config.tls.client_ca_file));
    }
    if needs_org(config) {
        let Salesforce { private_key_file, client_secret_file, ca_file, .. } = &config.salesforce;
        files.push(("salesforce.private_key_file".to_owned(), private_key_file));
        files.push(("salesforce.client_secret_file".to_owned(), client_secret_file));
        files.push(("salesforce.ca_file".to_owned(), ca_file));
    }
    if let Some(way) = jwt {
        files.push((format!("{}.certificate_file", Proofs::TABLES[0]), &way.certificate_file));
    }
    if let Some(way) = introspection {
        files.push((format!("{}.client_secret_file", Proofs::TABLES[1]), &way.client_secret_file));
        files.push((format!("{}.ca_file", Proofs::TABLES[1]), &way.asked.ca_file));
    }
    if let Some(way) = userinfo {
        files.push((format!("{}.ca_file", Proofs::TABLES[2]), &way.asked.ca_file));
    }
    let mut named: Vec<_> = files.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?))).collect();
    for issuer in &config.issuers {
        let table = issuer.table();
        match &issuer.keys {
            KeysFrom::Url { ca_file, .. } => {
                named.extend(ca_file.as_deref().map(|path| (format!("{table}.ca_file"), path)));
            }
            KeysFrom::Set(path) | KeysFrom::PublicKey(path) | KeysFrom::Secret(path) => {
                named.push((format!("{table}.{}", issuer.keys.key()), path));
            }
        }
    }
    named
}

fn digest(path: &Path) -> Option<[u8; 32]> {
    // The largest size, so that no copy is left in freed memory.
    let length = path.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length.min(BYTES_MAX)).ok()? + 1));
    File::open(path).and_then(|file| file.take(length.min(BYTES_MAX)).read_to_end(&mut bytes)).ok()?;
    Some(Sha256::digest(&*bytes).into())
}
