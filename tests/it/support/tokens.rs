//! Tokens and the `[[applications]]` that they prove.

use sha2::{Digest, Sha256};

/// The token of a source; a recognisable text, so that a test can look for it where it must not be.
pub(crate) fn token_of(source: &str) -> String {
    format!("token-that-proves-{source}-and-is-secret")
}

/// One `[[applications]]` of a configuration file: `user` is `None` for a service, `more` are further lines.
pub(crate) fn application(source: &str, user: Option<&str>, more: &str) -> String {
    let whose = user.map_or_else(|| "service = true".to_owned(), |user| format!("user = \"{user}\""));
    let hash = hex::encode(Sha256::digest(token_of(source)));
    format!("[[applications]]\nsource = \"{source}\"\n{whose}\ntoken_sha256 = \"{hash}\"\n{more}\n")
}
