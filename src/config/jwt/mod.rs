//! `[auth.jwt.NAME]`: issuers of JWTs. What the program relies on ([`JwtIssuer`]), and what several issuers need together.
//!
//! `keys` has the keys. `draft` is a table while it is read, and the rules between its keys.

mod draft;
mod keys;

pub(crate) use draft::Draft;
pub(crate) use keys::ISSUER_KEYS;

use std::path::PathBuf;
use std::time::Duration;

use super::file::quoted;
use super::mistake::Place;
use crate::auth::{ClaimRules, JwtRules};

/// The tables.
pub(crate) const ISSUERS: &str = "auth.jwt";

/// `[auth.jwt.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtIssuer {
    /// NAME, as logs show it.
    pub name: String,
    /// What a token has to be.
    pub rules: JwtRules,
    /// What its claims mean.
    pub claims: ClaimRules,
    /// Where the keys come from.
    pub keys: KeysFrom,
    /// Its tokens are good for calls over HTTP.
    pub over_http: bool,
}

/// Where the keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysFrom {
    /// `jwks_url`: a key set that is fetched.
    Url {
        /// The address; a [`PageUrl`](crate::http::PageUrl).
        url: String,
        /// `ca_file`: certificates that are trusted beside the system's roots.
        ca_file: Option<PathBuf>,
        /// `refresh`: how often it is fetched.
        refresh: Duration,
    },
    /// `jwks_file`: a key set.
    Set(PathBuf),
    /// `key_file`: public keys in PEM.
    PublicKey(PathBuf),
    /// `secret_file`: a secret that the issuer shares.
    Secret(PathBuf),
}

impl JwtIssuer {
    /// Returns its table, as documents and messages write it: `auth.jwt.NAME`.
    #[must_use]
    pub fn table(&self) -> String {
        format!("{ISSUERS}.{}", quoted(&self.name))
    }
}

impl KeysFrom {
    /// The key that names the source.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Url { .. } => "jwks_url",
            Self::Set(_) => "jwks_file",
            Self::PublicKey(_) => "key_file",
            Self::Secret(_) => "secret_file",
        }
    }
}

/// The issuers that have something in common with an earlier one, or lack what several issuers need: table, key and why.
pub(crate) fn conflicts(issuers: &[(JwtIssuer, Place, bool)]) -> Vec<(&Place, String, &'static str)> {
    let mut found = Vec::new();
    for (at, (issuer, place, names_users)) in issuers.iter().enumerate() {
        let earlier = issuers.iter().take(at);
        if earlier.clone().any(|(other, ..)| other.rules.issuers == issuer.rules.issuers) {
            let message = "is also the issuer of another table: each needs its own";
            found.push((place, format!("{ISSUERS}.{}.issuer", issuer.name), message));
        }
        if issuers.len() > 1 && !names_users {
            let message = "is missing: with several issuers, each names the users that it may prove, or [\"*\"]";
            found.push((place, format!("{ISSUERS}.{}.users", issuer.name), message));
        }
    }
    found
}

/// Warns about settings that are valid but probably a mistake.
pub(crate) fn warnings(issuers: &[JwtIssuer]) -> Vec<String> {
    let mut warnings = Vec::new();
    for JwtIssuer { name, claims, .. } in issuers {
        let required = |wanted: &str| claims.require.iter().any(|(path, _)| path.to_string() == wanted);
        if claims.user.as_ref().is_some_and(|path| path.to_string() == "email") && !required("email_verified") {
            warnings.push(format!(
                "{ISSUERS}.{name}.user is \"email\", and require has no email_verified: at some issuers users can write any \
                 address there"
            ));
        }
    }
    warnings
}
