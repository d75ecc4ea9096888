//! [`Signer`]: signs tokens as an issuer does, and writes its key in the forms that issuers publish.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use serde_json::{Value, json};

/// Two RSA keys, so that no test has to make one.
pub(crate) const RSA: &str = include_str!("../salesforce/key.pem");
pub(crate) const OTHER_RSA: &str = include_str!("../../../crates/salesforce-stand-in/src/org_key.pem");

/// A key that signs tokens.
pub(crate) enum Signer {
    /// A shared secret.
    Secret(Vec<u8>),
    /// A key pair.
    Pair(Box<KeyPair>),
}

impl Signer {
    /// Returns a signer with a shared secret.
    pub(crate) fn secret(secret: &[u8]) -> Self {
        Self::Secret(secret.to_vec())
    }

    /// Returns a signer with an RSA key.
    pub(crate) fn rsa(pem: &str) -> Self {
        Self::Pair(Box::new(KeyPair::from_pem_and_sign_algo(pem, &PKCS_RSA_SHA256).unwrap()))
    }

    /// Returns a signer with a new key that fits this algorithm.
    pub(crate) fn new(algorithm: &str) -> Self {
        Self::Pair(Box::new(match algorithm {
            "ES256" => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            "ES384" => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            "EdDSA" => KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            _ => return Self::rsa(RSA),
        }))
    }

    fn pair(&self) -> &KeyPair {
        match self {
            Self::Pair(pair) => pair,
            Self::Secret(_) => panic!("a secret has no public key"),
        }
    }

    /// Returns the public key in PEM.
    pub(crate) fn public_pem(&self) -> String {
        self.pair().public_key_pem()
    }

    /// Returns the private key in PEM.
    pub(crate) fn private_pem(&self) -> String {
        self.pair().serialize_pem()
    }

    /// Returns the public key as a key set has it, with these other members; `null` takes one out.
    pub(crate) fn jwk(&self, more: Value) -> Value {
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (pair, raw) = (self.pair(), self.pair().public_key_raw());
        let mut jwk = if pair.is_compatible(&PKCS_RSA_SHA256) {
            let key = RsaKeyPair::from_pkcs8(&pair.serialize_der()).unwrap();
            let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
            json!({ "kty": "RSA", "n": part(&public.n), "e": part(&public.e) })
        } else if pair.is_compatible(&PKCS_ED25519) {
            json!({ "kty": "OKP", "crv": "Ed25519", "x": part(raw) })
        } else {
            let (x, y) = raw[1..].split_at(raw.len() / 2);
            let curve = if x.len() == 32 { "P-256" } else { "P-384" };
            json!({ "kty": "EC", "crv": curve, "x": part(x), "y": part(y) })
        };
        let Value::Object(more) = more else { panic!("an object") };
        jwk.as_object_mut().unwrap().extend(more);
        jwk.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        jwk
    }

    /// Signs claims with a header that names the algorithm.
    pub(crate) fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.sign(algorithm, &json!({ "alg": algorithm }).to_string(), &claims.to_string())
    }

    /// Signs claims with a header that names the algorithm and a key.
    pub(crate) fn token_by(&self, algorithm: &str, id: &str, claims: &Value) -> String {
        self.sign(algorithm, &json!({ "alg": algorithm, "kid": id }).to_string(), &claims.to_string())
    }

    /// Signs just these texts by this algorithm, whatever the header says.
    pub(crate) fn sign(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", part(header.as_bytes()), part(claims.as_bytes()));
        format!("{signed}.{}", part(&self.signature(algorithm, signed.as_bytes())))
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let pair = match self {
            Self::Secret(secret) => {
                return hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec();
            }
            Self::Pair(pair) => pair.serialize_der(),
        };
        let random = SystemRandom::new();
        let curve = match algorithm {
            "ES256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            "ES384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
            "EdDSA" => {
                return Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pair).unwrap().sign(message).as_ref().to_vec();
            }
            _ => return rsa_signature(algorithm, &pair, message),
        };
        EcdsaKeyPair::from_pkcs8(curve, &pair, &random).unwrap().sign(&random, message).unwrap().as_ref().to_vec()
    }
}

fn rsa_signature(algorithm: &str, pair: &[u8], message: &[u8]) -> Vec<u8> {
    let padding: &'static dyn RsaEncoding = match algorithm {
        "RS256" => &RSA_PKCS1_SHA256,
        "RS384" => &RSA_PKCS1_SHA384,
        "RS512" => &RSA_PKCS1_SHA512,
        "PS256" => &RSA_PSS_SHA256,
        "PS384" => &RSA_PSS_SHA384,
        "PS512" => &RSA_PSS_SHA512,
        other => panic!("nobody signs by {other}"),
    };
    let key = RsaKeyPair::from_pkcs8(pair).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}
