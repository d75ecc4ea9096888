//! JSON Web Tokens (RFC 7519) by RS256, and by nothing else: [`Jwt`] is one taken apart and not yet believed, [`JwtRules`]
//! believe it or say why not.
//!
//! The header decides nothing: `alg` has to say RS256, and no key is found by `kid`, `jku`, `jwk` or `x5c`. The signature
//! is checked before a claim is read. Who issues a token, and what its claims mean, is for others to say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::Value;
use webpki::RawPublicKeyEntity;
use webpki::ring::RSA_PKCS1_2048_8192_SHA256;
use zeroize::Zeroizing;

use super::AuthError;

/// Longer tokens are not looked at.
const TOKEN_BYTES_MAX: usize = 8192;

/// Keys in one file: a roll-over needs two.
const KEYS_MAX: usize = 8;

/// An RSA key of 2048 bits takes 294 bytes in DER, one of 1024 bits 162.
const KEY_BYTES_MIN: usize = 290;

/// What a JWT has to be, to be believed.
pub struct JwtRules {
    /// The keys, any of which may have signed it.
    pub keys: JwtKeys,
    /// What `iss` may be.
    pub issuers: Vec<String>,
    /// What `aud` has to be, or to contain.
    pub audience: String,
    /// How far the clock of the one who signs may be off.
    pub clock_skew: Duration,
    /// How long it may be good for.
    pub lifetime: Duration,
}

impl JwtRules {
    /// The claims of a token, if it is to be believed; `now` since 1970.
    ///
    /// # Errors
    /// The first rule that it breaks, in words that teach and never quote.
    pub fn check(&self, now: Duration, token: &str) -> Result<Claims, AuthError> {
        let jwt = Jwt::read(token).map_err(refuse)?;
        let claims = jwt.claims_signed_by(&self.keys).map_err(refuse)?;
        self.parties(&claims).and_then(|()| self.times(now, &claims)).map_err(refuse)?;
        Ok(claims)
    }

    fn parties(&self, claims: &Claims) -> Result<(), &'static str> {
        if !claims.text("iss").is_some_and(|issuer| self.issuers.iter().any(|it| it == issuer)) {
            return Err("the JWT's 'iss' is another than the configured one: it comes from another org");
        }
        let for_us = match claims.0.0.get("aud") {
            Some(Value::String(audience)) => *audience == self.audience,
            Some(Value::Array(several)) => several.iter().any(|it| it.as_str() == Some(&self.audience)),
            _ => false,
        };
        if for_us {
            Ok(())
        } else {
            Err("the JWT's 'aud' is another than the configured one: it is for another application")
        }
    }

    fn times(&self, now: Duration, claims: &Claims) -> Result<(), &'static str> {
        let latest = now.saturating_add(self.clock_skew);
        let ends = claims.time("exp")?.ok_or("the JWT has no 'exp': it must say until when it is good")?;
        let issued = claims.time("iat")?;
        if ends.saturating_add(self.clock_skew) <= now {
            return Err("the JWT has expired: get a new one for each connection; if it is new, a clock is wrong");
        }
        if claims.time("nbf")?.is_some_and(|it| it > latest) || issued.is_some_and(|it| it > latest) {
            return Err("the JWT is from the future ('nbf' or 'iat'): the broker's clock, or the signer's, is wrong");
        }
        let life = issued.map_or(Duration::ZERO, |issued| ends.saturating_sub(issued));
        if ends > latest.saturating_add(self.lifetime) || life > self.lifetime.saturating_add(self.clock_skew) {
            return Err("the JWT is good for too long: let it end ('exp') within the configured lifetime");
        }
        Ok(())
    }
}

fn refuse(why: &'static str) -> AuthError {
    AuthError::Unauthenticated(why.into())
}

/// The claims of a token that was believed.
pub struct Claims(Object);

impl Claims {
    /// A claim that is a text, and not an empty one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.text(name)
    }

    /// A claim that is a time since 1970; an error where it is something else.
    fn time(&self, name: &str) -> Result<Option<Duration>, &'static str> {
        let Some(value) = self.0.0.get(name) else { return Ok(None) };
        let time = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        time.map(Some).ok_or("a time of the JWT ('exp', 'nbf', 'iat') is not a number of seconds since 1970")
    }
}

/// A token in its parts, not yet believed.
pub struct Jwt<'t> {
    header: Object,
    /// Header and claims as they came, which is what was signed.
    signed: &'t str,
    claims: &'t str,
    signature: Zeroizing<Vec<u8>>,
}

impl<'t> Jwt<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// Why it is not a JWT that could be accepted.
    pub fn read(token: &'t str) -> Result<Self, &'static str> {
        const SHAPE: &str = "the token is not a JWT: three parts in base64url without '=', with a dot between each two";
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long: a JWT may have 8192 bytes");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(SHAPE)?;
        let (header, claims) = signed.split_once('.').filter(|(_, claims)| !claims.contains('.')).ok_or(SHAPE)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map(Zeroizing::new).map_err(|_| SHAPE);
        let (header, signature) = (decode(header)?, decode(signature)?);
        let header =
            serde_json::from_slice(&header).map_err(|_| "the JWT's header is not a JSON object, or has a key twice")?;
        Ok(Self { header, signed, claims, signature })
    }

    /// A text of the header, which nobody has proved.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<&str> {
        self.header.text(name)
    }

    fn claims_signed_by(&self, keys: &JwtKeys) -> Result<Claims, &'static str> {
        if self.header.text("alg") != Some("RS256") {
            return Err("the JWT's 'alg' is not RS256: nothing else is believed, 'none' least of all");
        }
        if self.header.0.contains_key("crit") {
            return Err("the JWT's header has 'crit', which asks for something that this broker does not have");
        }
        if !keys.signed(self.signed.as_bytes(), &self.signature) {
            return Err(
                "the JWT's signature fits none of the configured certificates: another key signed it, or it was \
                        changed on its way",
            );
        }
        let claims = URL_SAFE_NO_PAD.decode(self.claims).map(Zeroizing::new).ok();
        let claims = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
        claims.map(Claims).ok_or("the JWT's claims are not a JSON object in base64url, or have a key twice")
    }
}

/// A JSON object in which no key occurs twice: parsers disagree on which one counts, and an attacker would use that.
struct Object(BTreeMap<String, Value>);

impl Object {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Object, A::Error> {
                let mut object = BTreeMap::new();
                while let Some((name, value)) = members.next_entry()? {
                    if object.insert(name, value).is_some() {
                        return Err(A::Error::custom("a key occurs twice"));
                    }
                }
                Ok(Object(object))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The public keys that may have signed.
pub struct JwtKeys(Vec<SubjectPublicKeyInfoDer<'static>>);

impl JwtKeys {
    /// Reads certificates and public keys in PEM. Only the key of a certificate is used. It is trusted because it is
    /// configured, so neither its dates nor its issuer are checked.
    ///
    /// # Errors
    /// What is wrong, without a word of the text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        const UNREADABLE: &str = "must hold a certificate or a public key in PEM";
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| UNREADABLE)?;
            let der = Zeroizing::new(der);
            keys.push(match kind {
                SectionKind::Certificate => key_of(&CertificateDer::from(der.as_slice())).ok_or(UNREADABLE)?,
                SectionKind::PublicKey => SubjectPublicKeyInfoDer::from(der.to_vec()),
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    return Err("holds a private key: the broker needs the certificate alone, and nobody else the key");
                }
                _ => return Err(UNREADABLE),
            });
        }
        if keys.is_empty() {
            return Err(UNREADABLE);
        }
        if keys.len() > KEYS_MAX {
            return Err("must hold at most 8 certificates: those that sign, without the chain above them");
        }
        if keys.iter().all(usable) {
            Ok(Self(keys))
        } else {
            Err("must hold certificates of RSA keys of 2048 bits or more")
        }
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.iter().any(|key| verify(key, message, signature).is_ok())
    }
}

fn key_of(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    webpki::anchor_from_trusted_cert(certificate).ok().map(|anchor| webpki::spki_for_anchor(&anchor))
}

/// Whether it is an RSA key that could ever fit a signature.
fn usable(key: &SubjectPublicKeyInfoDer<'_>) -> bool {
    // Only for a key of this kind is a bad signature the thing that is wrong.
    key.len() >= KEY_BYTES_MIN && verify(key, b"", &[0; 256]) == Err(webpki::Error::InvalidSignatureForPublicKey)
}

fn verify(key: &SubjectPublicKeyInfoDer<'_>, message: &[u8], signature: &[u8]) -> Result<(), webpki::Error> {
    RawPublicKeyEntity::try_from(key)?.verify_signature(RSA_PKCS1_2048_8192_SHA256, message, signature)
}
