//! [`TokenTable`]: static tokens of `[[applications]]`, known by their hash only.

use std::collections::HashMap;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{AuthError, Claim, Identity, Proof, Proved, Review, Verification, Verifier, ready};

/// The SHA-256 of a token's text. Tokens are random 256-bit values, so a plain hash serves: there is nothing to guess.
#[must_use]
pub fn hash_token(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}

/// Which source and identity each token proves.
#[derive(Debug, Default)]
pub struct TokenTable {
    // Looked up by hash, so the time it takes says nothing about the token.
    by_hash: HashMap<[u8; 32], Vec<(String, Identity)>>,
}

impl TokenTable {
    /// Adds a row. One token may prove several sources.
    pub fn insert(&mut self, token_sha256: [u8; 32], source: String, identity: Identity) {
        self.by_hash.entry(token_sha256).or_default().push((source, identity));
    }

    pub(super) fn find(&self, claim: &Claim) -> Result<Identity, AuthError> {
        let Some(token) = &claim.token else {
            return Err(AuthError::Unauthenticated(
                "data.token is missing: this broker asks for a token; 'switchboard token new' makes one".into(),
            ));
        };
        let Some(rows) = self.by_hash.get(&hash_token(token)) else {
            return Err(AuthError::Unauthenticated(
                "the token is not known: compare its hash with token_sha256 in [[applications]]".into(),
            ));
        };
        rows.iter().find(|(source, _)| *source == claim.source).map(|(_, identity)| identity.clone()).ok_or(
            AuthError::Forbidden("the token is good for another source than this one; see [[applications]]".into()),
        )
    }
}

impl Verifier for TokenTable {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        ready(self.find(&claim))
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        let Proof::Token(hash) = proved.proof else { return Review::End };
        let rows = self.by_hash.get(hash).into_iter().flatten();
        let same = |row: &&(String, Identity)| row.0 == proved.source && row.1.principal == *proved.principal;
        rows.into_iter().find(same).map_or(Review::End, |(_, identity)| Review::Keep(identity.permissions.clone()))
    }
}
