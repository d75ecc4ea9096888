//! Certificates on disk for a broker, and clients over TLS that share no code with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Broker, secret_file, within};

/// A certificate authority that no machine trusts.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("authority {}", hex::encode(&key.public_key_raw()[..8]));
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Its certificate, in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for the name `localhost` and the address 127.0.0.1.
    pub(crate) fn issue(&self) -> Issued {
        self.issue_with(|_| {})
    }

    /// The same with these changes.
    pub(crate) fn issue_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A folder with the files of `[tls]`.
pub(crate) struct TlsFiles {
    folder: TempDir,
    pub(crate) authority: Authority,
}

impl TlsFiles {
    pub(crate) fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap(), authority: Authority::new() };
        std::fs::write(files.path("ca.pem"), files.authority.pem()).unwrap();
        files.write(&files.authority.issue());
        files
    }

    /// Replaces the broker's certificate and key.
    pub(crate) fn write(&self, issued: &Issued) {
        std::fs::write(self.path("cert.pem"), &issued.certificate).unwrap();
        secret_file(self.path("key.pem"), &issued.key);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A table `[tls]` with these further lines.
    pub(crate) fn table(&self, more: &str) -> String {
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| self.path(name));
        format!("[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n{more}\n")
    }

    /// A broker in open mode with a TLS listener, and its URL.
    pub(crate) async fn broker(&self, more: &str) -> (Broker, String) {
        let mut broker = Broker::open_with(&self.table(&format!("listen = ['127.0.0.1:0']\n{more}"))).await;
        let url = broker.next_url().await;
        (broker, url)
    }

    /// What a client needs that trusts the authority, and shows this certificate if there is one.
    pub(crate) fn client(&self, shows: Option<&Issued>) -> ClientConfig {
        self.client_of(rustls::ALL_VERSIONS, shows)
    }

    /// The same with these versions of TLS only.
    pub(crate) fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shows: Option<&Issued>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        match shows {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }
}

/// The address in a URL.
pub(crate) fn address_of(url: &str) -> SocketAddr {
    let address = url.split("://").nth(1).and_then(|rest| rest.strip_suffix("/ws"));
    address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {url}"))
}

/// Connects and shakes hands.
pub(crate) async fn connect(url: &str, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = within("a connection", TcpStream::connect(address_of(url))).await.unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    within("a TLS handshake", connector.connect(ServerName::try_from("localhost").unwrap(), stream)).await
}
