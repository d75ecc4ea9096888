//! The HTTP below [`Client`](super::client::Client): how connections are made, what their failures mean, and bodies that
//! leave nothing behind.

use std::fs;
use std::time::Duration;

use zeroize::Zeroizing;

use super::fault::{Fault, Verdict};
use super::oauth::SetupError;
use crate::config::{self, BaseUrl};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);

/// The largest answer that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A client for an org: TLS with the system's roots and the configured ones, no redirects; on loopback no proxy either.
pub(super) fn http(org: &config::Salesforce, login: &BaseUrl) -> Result<reqwest::Client, SetupError> {
    finish(builder(org, login)?)
}

/// What [`http`] makes a client of, for those who have more to say about it.
pub(super) fn builder(org: &config::Salesforce, host: &BaseUrl) -> Result<reqwest::ClientBuilder, SetupError> {
    // Another room may have named the same one before.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("switchboard/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .https_only(!org.insecure_http);
    if host.is_loopback() {
        builder = builder.no_proxy();
    }
    if let Some(path) = &org.ca_file {
        const KEY: &str = "salesforce.ca_file";
        let text = fs::read(path).map_err(|error| SetupError::file(KEY, path, error))?;
        let none = "must hold certificates in PEM";
        let certificates =
            reqwest::Certificate::from_pem_bundle(&text).map_err(|_| SetupError::file(KEY, path, none))?;
        if certificates.is_empty() {
            return Err(SetupError::file(KEY, path, none));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    Ok(builder)
}

/// Makes the client.
pub(super) fn finish(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, SetupError> {
    builder.build().map_err(|error| SetupError::new("salesforce", format!("TLS cannot begin: {}", causes(&error))))
}

/// What a request that got no whole answer means.
pub(super) fn failed(error: &reqwest::Error) -> Verdict {
    const AGENT: &str = "Salesforce cannot be reached just now; try again in a moment";
    let causes = causes(error);
    if is_tls(error) {
        return Verdict::Final(Fault::unavailable(
            AGENT,
            format!(
                "TLS failed ({causes}): a proxy that looks into TLS needs its certificate in salesforce.ca_file; else the \
                 name in salesforce.login_url is wrong"
            ),
        ));
    }
    Verdict::Again(Fault::unavailable(
        AGENT,
        format!("{causes}: name resolution, a firewall or a proxy (HTTPS_PROXY) on the way, or status.salesforce.com"),
    ))
}

/// Whether TLS said no, which a repetition does not change. An I/O error may hold the cause inside, out of the chain.
pub(super) fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || match inside {
            Some(inside) => is_tls(inside),
            None => error.source().is_some_and(is_tls),
        }
}

/// The last of an error's causes, which says most. No URL: it holds a user.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    if last.is::<reqwest::Error>() { "the connection failed".to_owned() } else { last.to_string() }
}

/// A body as it grows. What it grows out of is zeroised.
pub(super) struct Body(Zeroizing<Vec<u8>>);

impl Body {
    /// With room for what was announced.
    pub(super) fn for_length(length: Option<u64>) -> Self {
        let length = length.and_then(|it| usize::try_from(it).ok()).unwrap_or(4096);
        Self(Zeroizing::new(Vec::with_capacity(length.min(BODY_BYTES_MAX))))
    }

    /// Says whether it fits.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let length = self.0.len() + bytes.len();
        if length > BODY_BYTES_MAX {
            return false;
        }
        if length > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity((length * 2).min(BODY_BYTES_MAX)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        true
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_grows_to_its_limit_and_no_further() {
        let mut body = Body::for_length(Some(u64::MAX));
        assert!(body.push(&[1; 5000]) && body.push(&vec![2; BODY_BYTES_MAX - 5000]));
        assert!(!body.push(&[3]) && body.0.len() == BODY_BYTES_MAX);
        let mut body = Body::for_length(None);
        assert!((0..100).all(|_| body.push(&[1; 100])) && *body.0 == [1; 10_000]);
    }
}
