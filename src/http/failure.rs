//! [`Failure`]: why a request got no complete answer.

use std::error::Error;

/// Why a request got no complete answer. Texts name the last cause, and never a URL, which may contain a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The answer is larger than the caller allows.
    TooLarge,
    /// TLS failed while the connection was set up, so nothing was sent. Repeating the request does not help.
    Tls(String),
    /// There was no connection, so nothing was sent.
    Unconnected(String),
    /// The connection broke, by TLS or otherwise, and the request may have arrived.
    Broken(String),
}

impl Failure {
    /// The failure of a request of ours among the causes of an error of another library.
    pub(crate) fn find_in(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<reqwest::Error>() {
                return Some(Self::of(found));
            }
            cause = error.source();
        }
        None
    }

    fn of(error: &reqwest::Error) -> Self {
        let cause = last_cause(error);
        match error {
            _ if error.is_connect() && is_tls(error) => Self::Tls(cause),
            _ if error.is_connect() => Self::Unconnected(cause),
            _ => Self::Broken(cause),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::of(&error)
    }
}

/// Returns whether TLS failed. An I/O error may hold its cause inside, outside the chain of sources.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || match inside {
            Some(inside) => is_tls(inside),
            None => error.source().is_some_and(is_tls),
        }
}

/// The last of an error's causes, which is the most specific.
pub(super) fn last_cause(error: &reqwest::Error) -> String {
    let mut last: &dyn Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    if last.is::<reqwest::Error>() { "the connection failed".to_owned() } else { last.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, KeyPair};
    use reqwest::Method;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::http::{BaseUrl, Client, Options, send};

    /// Sends a request to a server that reads it and then breaks TLS. The client trusts the server, or does not.
    async fn failure(trusts: bool) -> Failure {
        let folder = tempfile::tempdir().unwrap();
        let certificate = || {
            let key = KeyPair::generate().unwrap();
            (CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap(), key)
        };
        let (own, key) = certificate();
        let trusted = if trusts { own.pem() } else { certificate().0.pem() };
        std::fs::write(folder.path().join("ca.pem"), trusted).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return };
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0, "the request arrived");
            stream.get_mut().0.write_all(&[0xff; 64]).await.unwrap();
        };
        let ca_file = folder.path().join("ca.pem");
        let server_url = BaseUrl::parse(&url).unwrap();
        let client =
            Client::new(Options { server: &server_url, ca_file: Some(&ca_file), insecure_http: false }).unwrap();
        let (answer, ()) = tokio::join!(send(client.request(Method::POST, url)), server);
        answer.err().unwrap()
    }

    #[tokio::test]
    async fn tls_that_fails_after_the_request_was_sent_leaves_it_open_whether_it_arrived() {
        let failure = failure(true).await;
        assert!(matches!(failure, Failure::Broken(_)), "{failure:?}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_trusted_got_no_request() {
        let failure = failure(false).await;
        assert!(matches!(failure, Failure::Tls(_)), "{failure:?}");
    }
}
