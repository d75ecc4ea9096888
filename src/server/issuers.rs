//! The issuers of `[auth.jwt.NAME]`, with the keys that their files hold, and what fetches the keys of others.
//!
//! A reload compares each issuer with the one before it ([`Known`]). If what its tokens prove has changed, the sessions that
//! they have proved need new ones.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::key_fetch::KeyFetch;
use super::trial::Unusable;
use crate::auth::{ClaimRules, FetchedKeys, Issuer, IssuerKeys, Issuers, KeySet, Keys, Roles};
use crate::config::{Config, JwtIssuer, KeysFrom};
use crate::http::SetupError;
use crate::short_text::without_mark;
use crate::store::{read_regular, read_secret_bytes};

/// Issuers, and what keeps their keys fresh.
pub(super) struct Opened {
    pub(super) issuers: Issuers,
    /// What the next reload compares them with.
    pub(super) known: Vec<Known>,
    /// What fetches keys.
    pub(super) fetches: Vec<KeyFetch>,
}

/// An issuer that is in force.
pub(super) struct Known {
    configured: JwtIssuer,
    keys: KnownKeys,
}

/// Where the keys of an issuer that is in force are from.
enum KnownKeys {
    /// A file with this digest.
    File([u8; 32]),
    /// They are fetched.
    Fetched(Arc<FetchedKeys>),
}

impl Known {
    /// Returns whether a token that proves a session at one of the two issuers proves it at the other: they differ neither in
    /// keys, `issuer`, `audience` and `require`, nor in the claims that say who a session is.
    fn proves_like(&self, other: &Self) -> bool {
        let (own, others) = (&self.configured, &other.configured);
        let (claims, other_claims) = (&own.claims, &others.claims);
        let paths = |claims: &ClaimRules| {
            let ClaimRules { user, service, source, roles, .. } = claims;
            [user, service, source, roles].map(Clone::clone)
        };
        self.has_keys_of(other)
            && own.rules.issuers == others.rules.issuers
            && have_same(&own.rules.audience, &others.rules.audience)
            && have_same(&claims.require, &other_claims.require)
            && paths(claims) == paths(other_claims)
    }

    fn has_keys_of(&self, other: &Self) -> bool {
        let same_key = self.configured.keys.key() == other.configured.keys.key();
        let same_source = match (&self.keys, &other.keys) {
            (KnownKeys::File(digest), KnownKeys::File(other)) => digest == other,
            (KnownKeys::Fetched(_), KnownKeys::Fetched(_)) => self.url() == other.url(),
            (KnownKeys::File(_), KnownKeys::Fetched(_)) | (KnownKeys::Fetched(_), KnownKeys::File(_)) => false,
        };
        same_key && same_source
    }

    /// When its keys were last fetched, with its name.
    pub(super) fn fetched(&self) -> Option<(&str, std::time::Instant)> {
        match &self.keys {
            KnownKeys::Fetched(keys) => keys.fetched().map(|at| (self.configured.name.as_str(), at)),
            KnownKeys::File(_) => None,
        }
    }

    fn url(&self) -> Option<&str> {
        match &self.configured.keys {
            KeysFrom::Url { url, .. } => Some(url),
            KeysFrom::Set(_) | KeysFrom::PublicKey(_) | KeysFrom::Secret(_) => None,
        }
    }
}

/// Whether two lists have the same entries, in any order.
fn have_same<T: PartialEq>(own: &[T], others: &[T]) -> bool {
    own.iter().all(|it| others.contains(it)) && others.iter().all(|it| own.contains(it))
}

/// Returns the names of the issuers that a reload keeps, but not what their tokens prove.
pub(super) fn changed(before: &[Known], now: &[Known]) -> Vec<String> {
    let same_name = |name: &str| before.iter().find(|old| old.configured.name == name);
    let changed = now.iter().filter(|new| same_name(&new.configured.name).is_some_and(|old| !old.proves_like(new)));
    changed.map(|issuer| issuer.configured.name.clone()).collect()
}

/// Reads the keys of all issuers. Sends nothing. `before` has the issuers before a reload. Keys that were fetched from the
/// same address stay in use, and are fetched by new tasks from then on: their `ca_file` may have another content.
///
/// # Errors
/// Every file that cannot be used.
pub(super) fn open(config: &Config, before: &[Known]) -> Result<Opened, Vec<Unusable>> {
    let (mut issuers, mut known, mut fetches, mut unusable) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for configured in &config.issuers {
        match keys(configured, before, &mut fetches) {
            Ok((keys, from)) => {
                known.push(Known { configured: configured.clone(), keys: from });
                issuers.push(Issuer {
                    name: Arc::from(configured.name.as_str()),
                    rules: configured.rules.clone(),
                    claims: configured.claims.clone(),
                    keys,
                    over_http: configured.over_http,
                });
            }
            Err((key, why)) => unusable.push(Unusable::new(format!("{}.{key}", configured.table()), why)),
        }
    }
    if !unusable.is_empty() {
        return Err(unusable);
    }
    Ok(Opened { issuers: Issuers::new(issuers, config.row_sources(), roles(config)), known, fetches })
}

/// Returns what a session with some roles may do.
fn roles(config: &Config) -> Roles {
    let roles = config.roles.clone();
    Box::new(move |names, principal| roles.permissions(names, principal).map_err(|unknown| unknown.name))
}

/// Why a key of the configuration cannot be used.
type Fault = (&'static str, String);

fn keys(issuer: &JwtIssuer, before: &[Known], fetches: &mut Vec<KeyFetch>) -> Result<(IssuerKeys, KnownKeys), Fault> {
    let algorithms = &issuer.rules.algorithms;
    let key = issuer.keys.key();
    let at = |path: &Path, why: &dyn fmt::Display| (key, format!("{}: {why}", path.display()));
    match &issuer.keys {
        KeysFrom::Url { url, ca_file, refresh } => {
            let now = Instant::now().into_std();
            let keys = match fetched_from(url, &issuer.name, before) {
                Some(keys) if keys.has(algorithms, *refresh) => Arc::clone(keys),
                Some(keys) => Arc::new(keys.continued(now, algorithms.clone(), *refresh)),
                None => Arc::new(FetchedKeys::new(now, Arc::from(&*issuer.name), algorithms.clone(), *refresh)),
            };
            let fetch = KeyFetch::new(Arc::clone(&keys), url, ca_file.as_deref());
            fetches.push(fetch.map_err(|error| match (error, ca_file) {
                (SetupError::CaFile(why), Some(path)) => ("ca_file", format!("{}: {why}", path.display())),
                (error, _) => (key, error.to_string()),
            })?);
            Ok((IssuerKeys::Fetched(Arc::clone(&keys)), KnownKeys::Fetched(keys)))
        }
        KeysFrom::Set(path) => {
            let set = read_regular(path).map_err(|error| at(path, &error))?;
            let keys = KeySet::parse(without_mark(&set), algorithms).map_err(|why| at(path, &why))?;
            Ok((IssuerKeys::Set(keys), digest(&set)))
        }
        KeysFrom::PublicKey(path) => {
            let pem = read_regular(path).map_err(|error| at(path, &error))?;
            let keys = Keys::from_pem(without_mark(&pem), algorithms).map_err(|why| at(path, &why))?;
            Ok((IssuerKeys::Unnamed(keys), digest(&pem)))
        }
        KeysFrom::Secret(path) => {
            let secret = read_secret_bytes(path).map_err(|error| at(path, &error))?;
            let keys = Keys::from_secret(&secret).map_err(|why| at(path, &why))?;
            Ok((IssuerKeys::Unnamed(keys), digest(&secret)))
        }
    }
}

fn digest(file: &[u8]) -> KnownKeys {
    KnownKeys::File(Sha256::digest(file).into())
}

/// Returns the keys that the issuer with this name has fetched from this address.
fn fetched_from<'k>(url: &str, issuer: &str, before: &'k [Known]) -> Option<&'k Arc<FetchedKeys>> {
    let known = before.iter().find(|known| known.configured.name == issuer && known.url() == Some(url))?;
    match &known.keys {
        KnownKeys::Fetched(keys) => Some(keys),
        KnownKeys::File(_) => None,
    }
}
