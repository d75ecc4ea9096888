//! [`TokenTable`]: what proves the rows of `[[applications]]`: static tokens, known by their hash only, and client
//! certificates.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{
    AuthError, CertificateName, Claim, ClientCertificate, Ends, Identity, Proof, Verification, Verifier, ready,
};

/// The SHA-256 of a token's text. Tokens are random 256-bit values, so a plain hash serves: there is nothing to guess.
#[must_use]
pub fn hash_token(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}

/// Which source and identity each token and each certificate proves.
#[derive(Debug, Default)]
pub struct TokenTable {
    // Looked up by hash, so the time it takes says nothing about the token.
    by_hash: HashMap<[u8; 32], Vec<(String, Identity)>>,
    by_certificate: HashMap<CertificateName, Vec<(String, Identity)>>,
}

impl TokenTable {
    /// Adds a row. One token may prove several sources.
    pub fn insert(&mut self, token_sha256: [u8; 32], source: String, identity: Identity) {
        self.by_hash.entry(token_sha256).or_default().push((source, identity));
    }

    /// Adds a row that a client certificate proves. One certificate may prove several sources.
    pub fn insert_certificate(&mut self, name: CertificateName, source: String, identity: Identity) {
        self.by_certificate.entry(name).or_default().push((source, identity));
    }

    pub(super) fn find(&self, claim: &Claim) -> Result<Identity, AuthError> {
        let token = match (&claim.token, &claim.certificate) {
            (Some(token), _) => token,
            (None, Some(certificate)) => return self.find_by_certificate(&claim.source, certificate),
            (None, None) => {
                return Err(AuthError::Unauthenticated(
                    "data.token is missing: this broker asks for a token; 'switchboard token new' makes one".into(),
                ));
            }
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

    fn find_by_certificate(&self, source: &str, certificate: &Arc<ClientCertificate>) -> Result<Identity, AuthError> {
        let mut is_known = false;
        for (of, identity) in certificate.names().filter_map(|name| self.by_certificate.get(&name)).flatten() {
            is_known = true;
            if of == source {
                let proof = Proof::Certificate(Arc::clone(certificate));
                let ends = Ends::At { expires: certificate.not_after, leeway: Duration::ZERO };
                return Ok(Identity { proof, ends, ..identity.clone() });
            }
        }
        Err(match is_known {
            true => AuthError::Forbidden(
                "the client certificate is good for another source than this one; see [[applications]]".into(),
            ),
            false => AuthError::Unauthenticated(
                "the client certificate is not known: no certificate_sha256 or certificate in [[applications]] is its \
                 SHA-256 or its subject; or send a token"
                    .into(),
            ),
        })
    }
}

impl Verifier for TokenTable {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        ready(self.find(&claim))
    }
}
