//! [`Client`]: sends requests; [`Answer`]: what is received.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, RequestBuilder};
use zeroize::{Zeroize, Zeroizing};

use super::failure::{Failure, last_cause};
use super::url::BaseUrl;
use crate::short_text::without_mark;
use crate::wiped::Wiped;

/// The time limit for setting up a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);

/// The size in bytes of the first buffer for an answer of unknown length.
const BODY_BYTES_FIRST: usize = 4096;

/// How often an HTTP/2 connection is pinged, and how long it may take to answer: a stream may be silent for minutes, and a
/// firewall on the way may drop it without telling either side.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(20);

/// What a client needs to know of the server.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    /// The server. On loopback no proxy is used.
    pub(crate) server: &'a BaseUrl,
    /// Certificates in PEM that are trusted beside the system's roots.
    pub(crate) ca_file: Option<&'a Path>,
    /// Whether `http://` is allowed.
    pub(crate) insecure_http: bool,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The file of [`Options::ca_file`] cannot be used; says why, without its path.
    #[error("{0}")]
    CaFile(String),
    /// TLS cannot be set up.
    #[error("TLS cannot begin: {0}")]
    Tls(String),
}

/// Sends requests to one server. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Client(reqwest::Client);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(..)")
    }
}

impl Client {
    /// A client for HTTP/1.1 and, where TLS negotiates it, HTTP/2.
    pub(crate) fn new(options: Options<'_>) -> Result<Self, SetupError> {
        Self::build(builder(options)?)
    }

    /// A client for HTTP/2 only, which notices a connection that died silently.
    pub(crate) fn http2(options: Options<'_>) -> Result<Self, SetupError> {
        Self::build(
            builder(options)?
                .http2_prior_knowledge()
                .http2_keep_alive_interval(PING_EVERY)
                .http2_keep_alive_timeout(PING_ANSWER)
                .http2_keep_alive_while_idle(true),
        )
    }

    fn build(builder: reqwest::ClientBuilder) -> Result<Self, SetupError> {
        builder.build().map(Self).map_err(|error| SetupError::Tls(last_cause(&error)))
    }

    /// Begins a request.
    pub(crate) fn request(&self, method: Method, url: String) -> RequestBuilder {
        self.0.request(method, url)
    }

    /// Sends a request that another library has built.
    pub(crate) async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response, reqwest::Error> {
        self.0.execute(request).await
    }
}

/// Sends a request and reads the head of the answer.
pub(crate) async fn send(request: RequestBuilder) -> Result<Answer, Failure> {
    Ok(Answer(request.send().await?))
}

/// An answer whose body has not been read yet.
pub(crate) struct Answer(reqwest::Response);

impl Answer {
    /// The status code.
    pub(crate) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// The headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// How long the server asks to be left alone (Retry-After): seconds, or a date, which is compared with the answer's own.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let text = |name| self.headers().get(name).and_then(|value| value.to_str().ok());
        let asked = text(RETRY_AFTER)?.trim();
        if let Ok(seconds) = asked.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok())?;
        httpdate::parse_http_date(asked).ok()?.duration_since(now).ok()
    }

    /// Reads the next part of a body that need not end; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        Ok(self.0.chunk().await?)
    }

    /// Reads the body to its end, or fails with [`Failure::TooLarge`].
    pub(crate) async fn body(mut self, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let length = self.0.content_length().and_then(|length| usize::try_from(length).ok());
        let mut body = Wiped::with_capacity(length.unwrap_or(BODY_BYTES_FIRST).min(bytes_max));
        while let Some(mut chunk) = self.0.chunk().await?.map(Bytes::try_into_mut) {
            let fits = body.push(chunk.as_ref().map_or_else(AsRef::as_ref, AsRef::as_ref), bytes_max);
            if let Ok(own) = &mut chunk {
                own.as_mut().zeroize();
            }
            if !fits {
                return Err(Failure::TooLarge);
            }
        }
        Ok(body.into_bytes())
    }
}

fn builder(options: Options<'_>) -> Result<reqwest::ClientBuilder, SetupError> {
    // It fails if a provider is installed already, which is then the same one.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("switchboard/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .https_only(!options.insecure_http);
    if options.server.is_loopback() {
        builder = builder.no_proxy();
    }
    if let Some(path) = options.ca_file {
        let unusable = |error: io::Error| SetupError::CaFile(error.to_string());
        if !fs::metadata(path).map_err(unusable)?.is_file() {
            // A pipe could keep the start waiting for ever.
            return Err(SetupError::CaFile("it is not a regular file".to_owned()));
        }
        let text = fs::read(path).map_err(unusable)?;
        let none = || SetupError::CaFile("must hold certificates in PEM".to_owned());
        let certificates = reqwest::Certificate::from_pem_bundle(without_mark(&text)).map_err(|_| none())?;
        if certificates.is_empty() {
            return Err(none());
        }
        builder = builder.tls_certs_merge(certificates);
    }
    Ok(builder)
}
