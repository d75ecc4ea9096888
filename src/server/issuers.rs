//! The issuers of `[auth.jwt.NAME]`, with the keys that their files hold.

use std::path::Path;
use std::sync::Arc;

use super::trial::Unusable;
use crate::auth::{Issuer, IssuerKeys, Issuers, KeySet, Keys, Roles};
use crate::config::{Config, JwtIssuer, KeysFrom};
use crate::short_text::without_mark;
use crate::store::{read_regular, read_secret_bytes};

/// Reads the keys of all issuers. Sends nothing.
///
/// # Errors
/// Every file that cannot be used.
pub(super) fn open(config: &Config) -> Result<Issuers, Vec<Unusable>> {
    let (mut issuers, mut unusable) = (Vec::new(), Vec::new());
    for configured in &config.issuers {
        match keys(configured) {
            Ok(keys) => issuers.push(Issuer {
                name: Arc::from(configured.name.as_str()),
                rules: configured.rules.clone(),
                claims: configured.claims.clone(),
                keys,
            }),
            Err(why) => {
                unusable.push(Unusable::new(format!("auth.jwt.{}.{}", configured.name, configured.keys.key()), why));
            }
        }
    }
    if unusable.is_empty() { Ok(Issuers::new(issuers, config.row_sources(), roles(config))) } else { Err(unusable) }
}

/// Returns what a session with some roles may do.
fn roles(config: &Config) -> Roles {
    let roles = config.roles.clone();
    Box::new(move |names, principal| roles.permissions(names, principal).map_err(|unknown| unknown.name))
}

fn keys(issuer: &JwtIssuer) -> Result<IssuerKeys, String> {
    let algorithms = &issuer.rules.algorithms;
    let at = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    match &issuer.keys {
        KeysFrom::PublicKey(path) => {
            let pem = read_regular(path).map_err(|error| at(path, &error))?;
            Keys::from_pem(without_mark(&pem), algorithms).map(IssuerKeys::Unnamed).map_err(|why| at(path, &why))
        }
        KeysFrom::Secret(path) => {
            let secret = read_secret_bytes(path).map_err(|error| at(path, &error))?;
            Keys::from_secret(&secret).map(IssuerKeys::Unnamed).map_err(|why| at(path, &why))
        }
        KeysFrom::Set(path) => {
            let set = read_regular(path).map_err(|error| at(path, &error))?;
            KeySet::parse(without_mark(&set), algorithms).map(IssuerKeys::Set).map_err(|why| at(path, &why))
        }
    }
}
