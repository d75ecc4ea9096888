//! Logging in by JWT bearer (RFC 7523, RS256) or client credentials. [`Grant`] writes the form that is sent. [`Token`]
//! is the checked answer: a token is sent to an allowed host or nowhere.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::private_key;
use super::response::{Value, objects, value};
use crate::config;
use crate::http::{self, BaseUrl, encode};
use crate::store;

/// The path of the token endpoint.
pub(super) const TOKEN_PATH: &str = "/services/oauth2/token";

/// The lifetime of an assertion. Salesforce accepts at most 5 minutes, and a clock may be off by 3.
const ASSERTION_LIFE: Duration = Duration::from_mins(2);

/// A key of the configuration whose value cannot be used. `serve` ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct SetupError {
    key: &'static str,
    message: String,
}

impl SetupError {
    /// An error of a key.
    pub(super) fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }

    /// The key of the configuration.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// An error of a file that a key names.
    pub(super) fn file(key: &'static str, path: &Path, message: impl fmt::Display) -> Self {
        Self::new(key, format!("{}: {message}", path.display()))
    }
}

/// A client for an org's server, by the keys of `[salesforce]`.
pub(super) fn connect(org: &config::Salesforce, server: &BaseUrl) -> Result<http::Client, SetupError> {
    http::Client::new(options(org, server))
        .map_err(|error| unconnectable("salesforce.ca_file", org.ca_file.as_deref(), &error))
}

/// The same over HTTP/2 only.
pub(super) fn connect_http2(org: &config::Salesforce, server: &BaseUrl) -> Result<http::Client, SetupError> {
    http::Client::http2(options(org, server))
        .map_err(|error| unconnectable("salesforce.ca_file", org.ca_file.as_deref(), &error))
}

fn options<'a>(org: &'a config::Salesforce, server: &'a BaseUrl) -> http::Options<'a> {
    http::Options { server, ca_file: org.ca_file.as_deref(), insecure_http: org.insecure_http }
}

/// Translates the error of an HTTP client into one of a configuration key.
pub(super) fn unconnectable(key: &'static str, ca_file: Option<&Path>, error: &http::SetupError) -> SetupError {
    match (error, ca_file) {
        (http::SetupError::CaFile(why), Some(path)) => SetupError::file(key, path, why),
        (http::SetupError::CaFile(_) | http::SetupError::Tls(_), _) => SetupError::new(key, error.to_string()),
    }
}

/// The proof for a login.
pub(super) enum Grant {
    /// Logs in as a user, with a private key whose certificate the app has.
    JwtBearer { key: Box<RsaKeyPair>, client_id: String, username: String, audience: String },
    /// Logs in as the app, with its secret.
    ClientCredentials { client_id: String, secret: SecretString },
}

impl Grant {
    /// Reads the files that the configuration names.
    pub(super) fn read(org: &config::Salesforce) -> Result<Self, SetupError> {
        if let Some((key, message)) = org.lacks().first() {
            return Err(SetupError::new(key, *message));
        }
        let client_id = org.client_id.clone().unwrap_or_default();
        if let Some(path) = &org.client_secret_file {
            let secret = read_secret("salesforce.client_secret_file", path)?;
            return Ok(Self::ClientCredentials { client_id, secret });
        }
        Ok(Self::JwtBearer {
            key: Box::new(read_key(org.private_key_file.as_deref().unwrap_or(Path::new("")))?),
            client_id,
            username: org.username.clone().unwrap_or_default(),
            audience: org.audience.clone().unwrap_or_else(|| org.login_url.clone()),
        })
    }

    /// Writes the form that requests a token. `now` is in seconds since 1970.
    pub(super) fn form(&self, now: u64) -> Result<Zeroizing<String>, ring::error::Unspecified> {
        Ok(Zeroizing::new(match self {
            Self::ClientCredentials { client_id, secret } => {
                let secret = Zeroizing::new(encode(secret.expose_secret()));
                format!("grant_type=client_credentials&client_id={}&client_secret={}", encode(client_id), *secret)
            }
            Self::JwtBearer { key, client_id, username, audience } => {
                let exp = now.saturating_add(ASSERTION_LIFE.as_secs());
                let claims = Claims { iss: client_id, sub: username, aud: audience, exp };
                let assertion = Zeroizing::new(sign(key, &claims)?);
                format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={}", *assertion)
            }
        }))
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
}

fn sign(key: &RsaKeyPair, claims: &Claims<'_>) -> Result<String, ring::error::Unspecified> {
    let claims = serde_json::to_vec(claims).map_err(|_| ring::error::Unspecified)?;
    let mut assertion = URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256"}"#);
    assertion.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut assertion);
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), assertion.as_bytes(), &mut signature)?;
    assertion.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut assertion);
    Ok(assertion)
}

/// The consumer secret in the file that a key names.
pub(super) fn read_secret(key: &'static str, path: &Path) -> Result<SecretString, SetupError> {
    let text = store::read_secret(path).map_err(|error| SetupError::file(key, path, error))?;
    let secret = text.trim();
    if secret.is_empty() || secret.chars().any(char::is_control) {
        return Err(SetupError::file(key, path, "must hold the consumer secret, one line"));
    }
    Ok(SecretString::from(secret))
}

fn read_key(path: &Path) -> Result<RsaKeyPair, SetupError> {
    const KEY: &str = "salesforce.private_key_file";
    let bytes = store::read_secret_bytes(path).map_err(|error| SetupError::file(KEY, path, error))?;
    private_key::read(&bytes).map_err(|instead| SetupError::file(KEY, path, instead))
}

/// A session with the org.
pub(super) struct Token {
    /// The bearer token.
    pub(super) secret: SecretString,
    /// The only place it may be sent to.
    pub(super) base: BaseUrl,
    /// The record id of the user that it belongs to, if Salesforce says so.
    pub(super) user: Option<String>,
    /// The org's id, if Salesforce says so.
    pub(super) org: Option<String>,
    /// When it was issued.
    pub(super) since: Instant,
    /// Grows with each login.
    pub(super) number: u64,
}

/// The answer to a login. The client adds the rest of a [`Token`].
pub(super) struct Issued {
    /// `access_token`
    pub(super) secret: SecretString,
    /// `instance_url`, checked.
    pub(super) base: BaseUrl,
    /// The last part of `id`.
    pub(super) user: Option<String>,
    /// The part of `id` before it.
    pub(super) org: Option<String>,
}

/// Reads the answer to a successful login, or says what is wrong with it, for the operator.
pub(super) fn read_token(body: &[u8], org: &config::Salesforce) -> Result<Issued, String> {
    #[derive(Deserialize)]
    struct Places<'a> {
        #[serde(borrow)]
        instance_url: Option<std::borrow::Cow<'a, str>>,
        #[serde(borrow)]
        id: Option<std::borrow::Cow<'a, str>>,
    }
    let unreadable = || "the answer to the login is not a token: is salesforce.login_url right?".to_owned();
    let answer = objects(body).and_then(|mut objects| objects.pop()).ok_or_else(unreadable)?;
    let Some(Value::Text(secret)) = value(&answer, "access_token") else { return Err(unreadable()) };
    if !secret.expose_secret().bytes().all(|it| (0x21..0x7f).contains(&it)) {
        return Err(unreadable());
    }
    let places: Places<'_> = serde_json::from_slice(body).map_err(|_| unreadable())?;
    let base = instance(places.instance_url.as_deref().ok_or_else(unreadable)?, org)?;
    let mut last = places.id.as_deref().unwrap_or_default().rsplit('/').map(config::record_id);
    let (user, org) = (last.next().flatten(), last.next().flatten());
    Ok(Issued { secret, base, user, org })
}

/// Checks the host that Salesforce names for requests. They carry the token, so it must be an allowed one.
fn instance(text: &str, org: &config::Salesforce) -> Result<BaseUrl, String> {
    let base = BaseUrl::parse(text).map_err(|fault| {
        format!("instance_url {fault}: the token was not sent there; salesforce.login_url may be wrong")
    })?;
    if !(base.https || org.insecure_http && base.is_loopback()) {
        return Err("instance_url is not https: the token was not sent there".to_owned());
    }
    let is_name = base.host.parse::<std::net::IpAddr>().is_err();
    let allowed = |pattern: &String| match pattern.strip_prefix('.') {
        Some(_) => is_name && base.host.len() > pattern.len() && base.host.ends_with(pattern.as_str()),
        None => base.host == *pattern,
    };
    if org.instance_hosts.iter().any(allowed) {
        Ok(base)
    } else {
        Err(format!(
            "the login's instance_url is {base}, a host that salesforce.instance_hosts does not have: the token was not sent \
             there. Setup > Company Settings > My Domain shows the org's own; add it if it is yours"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_an_allowed_host_or_nowhere() {
        let strict = config::Salesforce::default();
        let mut local = config::Salesforce { insecure_http: true, ..config::Salesforce::default() };
        local.instance_hosts = vec!["127.0.0.1".to_owned(), "::1".to_owned(), ".acme.example".to_owned()];
        for (org, url, allowed) in [
            (&strict, "https://acme.my.salesforce.com", true),
            (&strict, "https://ACME.my.Salesforce.com:443/", true),
            (&strict, "https://salesforce.com", false),
            (&strict, "https://evilsalesforce.com", false),
            (&strict, "https://a.salesforce.com.evil.example", false),
            (&strict, "https://.salesforce.com", false),
            (&strict, "http://acme.my.salesforce.com", false),
            (&strict, "https://acme.my.salesforce.com@evil.example", false),
            (&strict, "https://evil.example\\.salesforce.com", false),
            (&strict, "https://evil.example#.salesforce.com", false),
            (&strict, "https://127.0.0.1", false),
            (&local, "http://127.0.0.1:8080", true),
            (&local, "http://127.0.0.1:9090", true),
            (&local, "https://[::1]:9090", true),
            (&local, "http://127.1:8080", false),
            (&local, "http://0x7f.0.0.1", false),
            (&local, "http://2130706433", false),
            (&local, "http://127.0.0.2", false),
            (&local, "http://x.acme.example", false),
            (&local, "https://x.acme.example", true),
        ] {
            let body = serde_json::json!({"access_token": "00D!x", "instance_url": url, "id": "https://l/id/00D/005000000000001"});
            let read = read_token(body.to_string().as_bytes(), org);
            assert_eq!(read.is_ok(), allowed, "{url}");
            if url == "https://127.0.0.1" {
                assert!(read.as_ref().is_err_and(|why| why.contains("is https://127.0.0.1, a host that")), "names it");
            }
            if let Ok(issued) = read {
                assert_eq!(issued.user.as_deref(), Some("005000000000001AAA"));
            }
        }
    }

    #[test]
    fn an_answer_that_is_no_token_is_refused() {
        let org = config::Salesforce::default();
        for body in [
            "",
            "null",
            "[]",
            "<html>",
            "{}",
            r#"{"access_token":null}"#,
            r#"{"access_token":"a b","instance_url":"https://a.salesforce.com"}"#,
            r#"{"access_token":"a\r\nX: y","instance_url":"https://a.salesforce.com"}"#,
            r#"{"access_token":"a"}"#,
            r#"{"access_token":"a","instance_url":5}"#,
        ] {
            assert!(read_token(body.as_bytes(), &org).is_err(), "{body}");
        }
    }
}
