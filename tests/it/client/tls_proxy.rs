//! A TLS proxy in front of a broker, with a certificate authority that no machine trusts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Runs until it is dropped.
pub(crate) struct TlsProxy {
    address: SocketAddr,
    folder: TempDir,
    _tasks: JoinSet<()>,
}

impl TlsProxy {
    /// Passes connections on to this address. Its certificate is for the name `localhost` only.
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, authority) = certificates();
        std::fs::write(folder.path().join("ca.pem"), authority).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // A client that does not trust the certificate ends the handshake.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut broker = TcpStream::connect(upstream).await.unwrap();
                    copy_bidirectional(&mut stream, &mut broker).await.ok();
                });
            }
        });
        Self { address, folder, _tasks: tasks }
    }

    /// The URL of the broker behind it.
    pub(crate) fn url(&self) -> String {
        format!("wss://localhost:{}/ws", self.address.port())
    }

    /// The certificate authority, in PEM.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

/// Returns the server's configuration, and the certificate authority in PEM.
fn certificates() -> (ServerConfig, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (config, authority_certificate.pem())
}
