//! Assertions: parses a JSON Web Token and verifies its RS256 signature with a client's certificate.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use serde_json::{Map, Value};
use webpki::EndEntityCert;
use webpki::ring::RSA_PKCS1_2048_8192_SHA256;

/// A parsed token, not yet verified.
pub(super) struct Assertion<'t> {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    signed: &'t str,
    signature: Vec<u8>,
}

impl<'t> Assertion<'t> {
    /// Parses a token; `None` if it is not a JWT.
    pub(super) fn read(token: &'t str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part| serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self { header: object(header)?, claims: object(claims)?, signed, signature })
    }

    /// A claim that is text.
    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// Its audience.
    pub(super) fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// When it expires, since 1970: a number, or a number in a string as simple-salesforce sends it.
    pub(super) fn ends(&self) -> Option<Duration> {
        let seconds = match self.claims.get("exp")? {
            Value::String(text) => text.parse().ok()?,
            other => other.as_f64()?,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Whether it was signed by RS256 with the key of this certificate.
    pub(super) fn signed_by(&self, certificate: &CertificateDer<'_>) -> bool {
        self.header.get("alg").and_then(Value::as_str) == Some("RS256")
            && EndEntityCert::try_from(certificate).is_ok_and(|it| {
                it.verify_signature(RSA_PKCS1_2048_8192_SHA256, self.signed.as_bytes(), &self.signature).is_ok()
            })
    }
}

/// Checks that a certificate can be read, as an org does when one is uploaded.
pub(super) fn usable(certificate: &CertificateDer<'_>) -> Result<(), webpki::Error> {
    EndEntityCert::try_from(certificate).map(|_| ())
}
