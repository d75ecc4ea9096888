//! `GET /services/apexrest/switchboard/token`: a JWT that proves the caller, signed with the org's certificate like
//! those of the Apex class `SwitchboardToken`.
//!
//! The key is `org_key.pem`, which is public; its certificate is made at start.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::Method;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::call::Call;
use super::org::State;
use super::reply::{Refusal, Reply};
use super::seed::User;

/// Below `/services/apexrest`.
pub(super) const PATH: [&str; 2] = ["switchboard", "token"];

const ORG_KEY: &str = include_str!("org_key.pem");

/// The lifetime of a token.
const LIFE: Duration = Duration::from_mins(1);

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum GadgetError {
    /// The certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    /// The key could not be read.
    #[error("the stand-in's own key: {0}")]
    Key(ring::error::KeyRejected),
}

/// The org's key, and its certificate.
pub(super) struct Signer {
    key: RsaKeyPair,
    pem: String,
}

impl Signer {
    /// Reads the key, and makes the certificate.
    pub(super) fn new() -> Result<Self, GadgetError> {
        let pair = KeyPair::from_pem_and_sign_algo(ORG_KEY, &PKCS_RSA_SHA256)?;
        let key = RsaKeyPair::from_pkcs8(&pair.serialize_der()).map_err(GadgetError::Key)?;
        let mut certificate = CertificateParams::default();
        certificate.distinguished_name.push(DnType::CommonName, "Switchboard gadgets");
        Ok(Self { key, pem: certificate.self_signed(&pair)?.pem() })
    }

    /// What a broker needs to verify tokens.
    pub(super) fn certificate_pem(&self) -> &str {
        &self.pem
    }

    fn sign(&self, claims: &Value) -> Option<String> {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "RS256" })), part(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).ok()?;
        Some(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Signs for the caller.
pub(super) fn answer(now: Duration, state: &State, user: &User, call: &Call) -> Result<Reply, Refusal> {
    if call.method != Method::GET {
        return Err(Refusal::method("GET"));
    }
    let mut claims = json!({
        "iss": state.organization.id,
        "sub": user.id,
        "aud": state.organization.gadget_audience,
        "iat": now.as_secs(),
        "exp": (now + LIFE).as_secs(),
        "jti": hex::encode(rand::random::<[u8; 16]>()),
        "username": user.username,
    });
    if let (Some(id), Value::Object(claims)) = (&user.federation_id, &mut claims) {
        claims.insert("federation_id".to_owned(), json!(id));
    }
    let token = state.signer.sign(&claims);
    let token = token.ok_or_else(|| Refusal::bad("APEX_ERROR", "System.SecurityException"))?;
    // A method of Apex REST that returns a String answers a JSON string.
    Ok(Reply::ok(&Value::String(token)))
}
