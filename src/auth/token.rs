//! [`TokenTable`]: what proves the rows of `[[applications]]`: static tokens, known by their hash only, and client
//! certificates.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::call::for_sessions_only;
use super::{
    AuthError, CallClaim, CallError, Caller, CertificateName, Claim, ClientCertificate, Ends, Identity, Proof, Proved,
    Review, Verification, Verifier, ready,
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
    /// The sources for which a token is good for calls over HTTP.
    calls: HashMap<[u8; 32], Vec<String>>,
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

    /// Makes a token good for calls over HTTP as this source, too.
    pub fn allow_calls(&mut self, token_sha256: [u8; 32], source: String) {
        self.calls.entry(token_sha256).or_default().push(source);
    }

    /// Returns who makes a call; `None` if no row has its token.
    pub(super) fn find_caller(&self, call: &CallClaim) -> Result<Option<Caller>, CallError> {
        let hash = hash_token(&call.token);
        let Some(rows) = self.by_hash.get(&hash) else { return Ok(None) };
        let sources = self.calls.get(&hash).map(Vec::as_slice).unwrap_or_default();
        let source = match (&call.source, sources) {
            (_, []) => return Err(for_sessions_only()),
            (None, [source]) => source,
            (None, _) => return Err(CallError::SourceMissing),
            (Some(named), _) if sources.contains(named) => named,
            (Some(named), _) if rows.iter().any(|(source, _)| source == named) => return Err(for_sessions_only()),
            (Some(_), _) => return Err(CallError::SourceMismatch),
        };
        let row = rows.iter().find(|(of, _)| of == source);
        Ok(row.map(|(source, identity)| Caller { source: source.clone(), identity: identity.clone() }))
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

    fn review(&self, proved: &Proved<'_>) -> Review {
        let same = |row: &&(String, Identity)| row.0 == proved.source && row.1.principal == *proved.principal;
        let row = match proved.proof {
            Proof::Token(hash) => self.by_hash.get(hash).into_iter().flatten().find(same),
            Proof::Certificate(certificate) => {
                certificate.names().filter_map(|name| self.by_certificate.get(&name)).flatten().find(same)
            }
            Proof::Nothing | Proof::Issuer(_) | Proof::Salesforce(_) => None,
        };
        row.map_or(Review::End, |(_, identity)| Review::Keep(identity.permissions.clone()))
    }
}
