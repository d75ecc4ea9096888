//! The issuers of `[auth.jwt.NAME]`, with the keys that their files hold, and what fetches the keys of others.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::key_fetch::KeyFetch;
use super::trial::Unusable;
use crate::auth::{FetchedKeys, Issuer, IssuerKeys, Issuers, KeySet, Keys, Roles};
use crate::config::{Config, JwtIssuer, KeysFrom};
use crate::http::SetupError;
use crate::short_text::without_mark;
use crate::store::{read_regular, read_secret_bytes};

/// Issuers, and what keeps their keys fresh.
pub(super) struct Opened {
    pub(super) issuers: Issuers,
    /// The keys that are fetched.
    pub(super) fetched: Vec<Arc<FetchedKeys>>,
    /// What fetches them.
    pub(super) fetches: Vec<KeyFetch>,
}

/// Reads the keys of all issuers. Sends nothing. `before` has the fetched keys of the same issuers before a reload, which
/// stay in use, and are fetched by new tasks from then on: their `ca_file` may have another content.
///
/// # Errors
/// Every file that cannot be used.
pub(super) fn open(config: &Config, before: &[Arc<FetchedKeys>]) -> Result<Opened, Vec<Unusable>> {
    let (mut issuers, mut fetched, mut fetches, mut unusable) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for configured in &config.issuers {
        match keys(configured, before, &mut fetches) {
            Ok(keys) => {
                if let IssuerKeys::Fetched(keys) = &keys {
                    fetched.push(Arc::clone(keys));
                }
                issuers.push(Issuer {
                    name: Arc::from(configured.name.as_str()),
                    rules: configured.rules.clone(),
                    claims: configured.claims.clone(),
                    keys,
                });
            }
            Err((key, why)) => unusable.push(Unusable::new(format!("auth.jwt.{}.{key}", configured.name), why)),
        }
    }
    if !unusable.is_empty() {
        return Err(unusable);
    }
    Ok(Opened { issuers: Issuers::new(issuers, config.row_sources(), roles(config)), fetched, fetches })
}

/// Returns what a session with some roles may do.
fn roles(config: &Config) -> Roles {
    let roles = config.roles.clone();
    Box::new(move |names, principal| roles.permissions(names, principal).map_err(|unknown| unknown.name))
}

/// Why a key of the configuration cannot be used.
type Fault = (&'static str, String);

fn keys(issuer: &JwtIssuer, before: &[Arc<FetchedKeys>], fetches: &mut Vec<KeyFetch>) -> Result<IssuerKeys, Fault> {
    let algorithms = &issuer.rules.algorithms;
    let key = issuer.keys.key();
    let at = |path: &Path, why: &dyn fmt::Display| (key, format!("{}: {why}", path.display()));
    match &issuer.keys {
        KeysFrom::Url { url, ca_file, refresh } => {
            let known = before.iter().find(|keys| keys.issuer() == issuer.name);
            let keys = known.map_or_else(
                || {
                    let (now, name) = (Instant::now().into_std(), Arc::from(issuer.name.as_str()));
                    Arc::new(FetchedKeys::new(now, name, algorithms.clone(), *refresh))
                },
                Arc::clone,
            );
            let fetch = KeyFetch::new(Arc::clone(&keys), url, ca_file.as_deref());
            fetches.push(fetch.map_err(|error| match (error, ca_file) {
                (SetupError::CaFile(why), Some(path)) => ("ca_file", format!("{}: {why}", path.display())),
                (error, _) => (key, error.to_string()),
            })?);
            Ok(IssuerKeys::Fetched(keys))
        }
        KeysFrom::Set(path) => {
            let set = read_regular(path).map_err(|error| at(path, &error))?;
            KeySet::parse(without_mark(&set), algorithms).map(IssuerKeys::Set).map_err(|why| at(path, &why))
        }
        KeysFrom::PublicKey(path) => {
            let pem = read_regular(path).map_err(|error| at(path, &error))?;
            Keys::from_pem(without_mark(&pem), algorithms).map(IssuerKeys::Unnamed).map_err(|why| at(path, &why))
        }
        KeysFrom::Secret(path) => {
            let secret = read_secret_bytes(path).map_err(|error| at(path, &error))?;
            Keys::from_secret(&secret).map(IssuerKeys::Unnamed).map_err(|why| at(path, &why))
        }
    }
}
