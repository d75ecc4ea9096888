//! [`Endpoint`]: the address of a broker, and how a stream to it is opened.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
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
    /// The URL of the WebSocket handshake, from which its `Host` is made.
    handshake_url: String,
    host: String,
    port: u16,
    /// The path of a Unix socket, in place of host and port.
    socket: Option<PathBuf>,
    tls: Option<Tls>,
}

/// The host of a Unix socket.
const LOCALHOST: &str = "localhost";

/// What the URL of a Unix socket begins with.
const UNIX_SCHEME: &str = "ws+unix://";

impl Endpoint {
    /// Reads a URL such as `ws://127.0.0.1:7420/ws`. For `wss://`, the platform's root certificates are trusted, and
    /// those in the PEM file `ca_file`. `ws+unix://PATH:/ws` is a broker that listens on a Unix socket.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the URL, or the file, cannot be used.
    pub fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let wrong =
            |what: &str| Error::Invalid(format!("{what}; the address of a broker is like ws://127.0.0.1:7420/ws"));
        if let Some(rest) = url.strip_prefix(UNIX_SCHEME) {
            return Self::unix(url, rest, ca_file);
        }
        let uri: Uri = url.parse().map_err(|_| wrong("the URL cannot be read"))?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(wrong("the URL does not begin with ws://, wss:// or ws+unix://")),
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
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { url: url.to_owned(), handshake_url: url.to_owned(), host, port, socket: None, tls })
    }

    /// Reads what follows the scheme in `ws+unix://PATH:/ws`.
    fn unix(url: &str, rest: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let wrong = |what: &str| {
            let like = "the address of a Unix socket is like ws+unix:///run/switchboard.sock:/ws";
            Error::Invalid(format!("{what}; {like}"))
        };
        if !cfg!(unix) {
            return Err(Error::Invalid("this system has no Unix sockets".into()));
        }
        if ca_file.is_some() {
            return Err(wrong("a CA file is of no use with a Unix socket, which is not encrypted"));
        }
        let (socket, resource) = rest
            .rsplit_once(":/")
            .filter(|(socket, _)| !socket.is_empty())
            .ok_or_else(|| wrong("the URL does not have the path of a socket, a colon and the path /ws"))?;
        let handshake_url = format!("ws://{LOCALHOST}/{resource}");
        handshake_url.parse::<Uri>().map_err(|_| wrong("the URL cannot be read"))?;
        let (url, host, socket) = (url.to_owned(), LOCALHOST.to_owned(), Some(PathBuf::from(socket)));
        Ok(Self { url, handshake_url, host, port: 80, socket, tls: None })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of the WebSocket handshake on a stream that [`open`](Self::open) returns: that of [`url`](Self::url), or for
    /// a Unix socket one of `localhost`.
    #[must_use]
    pub fn handshake_url(&self) -> &str {
        &self.handshake_url
    }

    /// The path of the Unix socket, if it is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The host: a name, or an address without brackets. For a Unix socket `localhost`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port of the URL, or the default port of its scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens a connection, and for `wss://` TLS on it. The WebSocket handshake comes next, with
    /// [`handshake_url`](Self::handshake_url).
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn open(&self) -> Result<Box<dyn ByteStream>, Error> {
        self.open_by(None).await
    }

    /// Opens a stream by `dial`, and for `wss://` TLS on it.
    pub(super) async fn open_by(&self, dial: Option<&Dial>) -> Result<Box<dyn ByteStream>, Error> {
        let stream = match (dial, &self.socket) {
            (Some(dial), _) => dial().await,
            (None, Some(path)) => unix(path).await,
            (None, None) => self.tcp().await,
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

#[cfg(unix)]
async fn unix(path: &Path) -> io::Result<Box<dyn ByteStream>> {
    Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
}

#[cfg(not(unix))]
async fn unix(_path: &Path) -> io::Result<Box<dyn ByteStream>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Host and port, or the path of the socket.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, socket, .. } = self;
        if let Some(socket) = socket {
            return socket.display().fmt(f);
        }
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}
