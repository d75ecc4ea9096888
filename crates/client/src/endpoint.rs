//! [`Endpoint`]: the address of a broker, and how a stream to it is opened.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::http::Uri;

use super::Error;
use super::tls::Tls;

/// A stream of bytes to a broker.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// The future of a stream that is being opened.
pub(super) type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send>>;
/// Opens a stream to the broker in place of a TCP connection.
pub(super) type Dial = Arc<dyn Fn() -> Dialling + Send + Sync>;

/// The address of a broker, read from its URL. [`Client`](super::Client) uses it. A program with protocol code of its
/// own can use it to open the stream.
pub struct Endpoint {
    url: String,
    host: String,
    port: u16,
    tls: Option<Tls>,
}

impl Endpoint {
    /// Reads a URL such as `ws://127.0.0.1:7420/ws`. For `wss://`, the platform's root certificates are trusted, and
    /// those in the PEM file `ca_file`.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the URL, or the file, cannot be used.
    pub fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let wrong =
            |what: &str| Error::Invalid(format!("{what}; the address of a broker is like ws://127.0.0.1:7420/ws"));
        let uri: Uri = url.parse().map_err(|_| wrong("the URL cannot be read"))?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(wrong("the URL does not begin with ws:// or wss://")),
        };
        // It would not be sent anywhere, and people put passwords there by mistake.
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("the URL has a user name, which the broker does not use"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("the URL has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match (is_tls, ca_file) {
            (true, _) => Some(Tls::new(&host, ca_file)?),
            (false, None) => None,
            (false, Some(_)) => {
                return Err(Error::Invalid(
                    "a CA file is of no use with ws://, which is not encrypted; write wss://".into(),
                ));
            }
        };
        Ok(Self { url: url.to_owned(), port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }), host, tls })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The host: a name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port of the URL, or the default port of its scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens a TCP connection, and for `wss://` TLS on it. The WebSocket handshake comes next.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn open(&self) -> Result<Box<dyn ByteStream>, Error> {
        self.open_by(None).await
    }

    /// Opens a stream by `dial`, and for `wss://` TLS on it.
    pub(super) async fn open_by(&self, dial: Option<&Dial>) -> Result<Box<dyn ByteStream>, Error> {
        let stream = match dial {
            Some(dial) => dial().await,
            None => self.tcp().await,
        };
        let stream = stream.map_err(|error| self.unreachable(error.kind(), error.to_string()))?;
        match &self.tls {
            None => Ok(stream),
            Some(tls) => {
                let stream = tls.wrap(stream).await;
                stream.map_err(|error| self.unreachable(error.kind(), format!("TLS failed: {error}")))
            }
        }
    }

    async fn tcp(&self) -> io::Result<Box<dyn ByteStream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    /// Returns the error of a connection that was not made.
    pub(super) fn unreachable(&self, kind: io::ErrorKind, reason: String) -> Error {
        Error::Unreachable { address: self.to_string(), reason, kind }
    }
}

/// Host and port.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}
