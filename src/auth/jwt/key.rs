//! [`VerifyingKey`]: a public key or a shared secret that may have signed a token; [`Keys`]: several.

use jsonwebtoken::{Algorithm, DecodingKey};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{AlgorithmIdentifier, CertificateDer, alg_id};
use zeroize::Zeroizing;

use super::der;

/// Keys in one file: a roll-over needs two.
const KEYS_MAX: usize = 8;

/// The sizes of RSA keys in bits: the smallest that is still safe, and the largest that ring verifies.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The shortest shared secret, in bytes (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// What kind of key it is, which decides the algorithms that it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::auth) enum KeyKind {
    /// A shared secret.
    Secret,
    /// RSA.
    Rsa,
    /// An elliptic curve, P-256.
    P256,
    /// An elliptic curve, P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// Returns whether a signature of this algorithm can be verified with such a key.
    pub(in crate::auth) fn fits(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Secret => algorithm == Algorithm::HS256,
            Self::Rsa => matches!(
                algorithm,
                Algorithm::RS256
                    | Algorithm::RS384
                    | Algorithm::RS512
                    | Algorithm::PS256
                    | Algorithm::PS384
                    | Algorithm::PS512
            ),
            Self::P256 => algorithm == Algorithm::ES256,
            Self::P384 => algorithm == Algorithm::ES384,
            Self::Ed25519 => algorithm == Algorithm::EdDSA,
        }
    }
}

/// A key that may have signed a token. It does not print.
#[derive(Clone)]
pub(in crate::auth) struct VerifyingKey {
    /// Its name in a key set.
    pub(in crate::auth) id: Option<String>,
    /// The only algorithm that it is for, if the key set says so.
    algorithm: Option<Algorithm>,
    kind: KeyKind,
    key: DecodingKey,
}

impl VerifyingKey {
    /// An RSA key, by modulus and exponent.
    pub(in crate::auth) fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        (RSA_BITS.contains(&bits) && !e.is_empty())
            .then(|| Self::new(KeyKind::Rsa, DecodingKey::from_rsa_raw_components(n, e)))
    }

    /// A point of an elliptic curve, in the uncompressed form, or an Ed25519 key.
    pub(in crate::auth) fn point(kind: KeyKind, point: &[u8]) -> Option<Self> {
        let (len, key) = match kind {
            KeyKind::P256 => (65, DecodingKey::from_ec_der(point)),
            KeyKind::P384 => (97, DecodingKey::from_ec_der(point)),
            KeyKind::Ed25519 => (32, DecodingKey::from_ed_der(point)),
            KeyKind::Secret | KeyKind::Rsa => return None,
        };
        (point.len() == len).then(|| Self::new(kind, key))
    }

    fn new(kind: KeyKind, key: DecodingKey) -> Self {
        Self { id: None, algorithm: None, kind, key }
    }

    /// The same key with what a key set says of it.
    pub(in crate::auth) fn named(self, id: Option<String>, algorithm: Option<Algorithm>) -> Self {
        Self { id, algorithm, ..self }
    }

    /// Returns whether it verifies signatures of this algorithm.
    pub(in crate::auth) fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind.fits(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// The key for the library.
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.key
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The keys of a file, any of which may have signed. They have no names.
#[derive(Clone)]
pub struct Keys(Vec<VerifyingKey>);

impl Keys {
    /// Reads certificates and public keys in PEM. Only the key of a certificate is used. It is trusted because it is
    /// configured, so neither its dates nor its issuer are checked. One of the algorithms has to fit each key.
    ///
    /// # Errors
    /// What is wrong, without a word of the text.
    pub fn from_pem(pem: &[u8], algorithms: &[Algorithm]) -> Result<Self, &'static str> {
        const UNREADABLE: &str = "must hold a certificate or a public key in PEM";
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| UNREADABLE)?;
            let der = Zeroizing::new(der);
            keys.push(match kind {
                SectionKind::Certificate => of_certificate(&der).ok_or(UNREADABLE)?,
                SectionKind::PublicKey => der.to_vec(),
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    return Err("holds a private key: the broker needs the public key alone");
                }
                _ => return Err(UNREADABLE),
            });
        }
        if keys.is_empty() {
            return Err(UNREADABLE);
        }
        if keys.len() > KEYS_MAX {
            return Err("must hold at most 8 keys: those that sign, without the certificates above them");
        }
        let keys: Option<Vec<_>> = keys.iter().map(|der| of_public_key(der)).collect();
        let keys = keys.ok_or("must hold RSA keys of 2048 to 8192 bits, or keys of P-256, P-384 or Ed25519")?;
        if keys.iter().all(|key| algorithms.iter().any(|algorithm| key.fits(*algorithm))) {
            Ok(Self(keys))
        } else {
            Err("holds a key that fits none of the configured algorithms")
        }
    }

    /// Takes a shared secret, which is all bytes of a file but one line end.
    ///
    /// # Errors
    /// What is wrong, without a word of the secret.
    pub fn from_secret(bytes: &[u8]) -> Result<Self, &'static str> {
        let secret = bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(bytes);
        if secret.windows(10).any(|it| it == b"-----BEGIN") {
            return Err("holds PEM: a public key is not secret, and a private key belongs to the issuer alone");
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err("must hold at least 32 bytes: a shorter secret can be guessed");
        }
        let key = DecodingKey::from_secret(secret).map_err(|_| "must hold at least 32 bytes")?;
        Ok(Self(vec![VerifyingKey::new(KeyKind::Secret, key)]))
    }

    /// The keys that an algorithm fits.
    pub(super) fn fitting(&self, algorithm: Algorithm) -> Vec<&VerifyingKey> {
        self.0.iter().filter(|key| key.fits(algorithm)).collect()
    }
}

/// Returns the public key of a certificate, in DER.
fn of_certificate(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = CertificateDer::from(der);
    webpki::anchor_from_trusted_cert(&certificate).ok().map(|anchor| webpki::spki_for_anchor(&anchor).to_vec())
}

/// Reads a public key in DER (RFC 5280, `SubjectPublicKeyInfo`).
fn of_public_key(der: &[u8]) -> Option<VerifyingKey> {
    let (algorithm, key) = der::public_key(der)?;
    let is = |id: AlgorithmIdentifier| id.as_ref() == algorithm;
    if is(alg_id::RSA_ENCRYPTION) {
        let (n, e) = der::rsa_components(key)?;
        return VerifyingKey::rsa(n, e);
    }
    let kind = if is(alg_id::ECDSA_P256) {
        KeyKind::P256
    } else if is(alg_id::ECDSA_P384) {
        KeyKind::P384
    } else if is(alg_id::ED25519) {
        KeyKind::Ed25519
    } else {
        return None;
    };
    VerifyingKey::point(kind, key)
}
