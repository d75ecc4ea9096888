//! A certificate authority that is made at start, and a server certificate of it. Its key is never written to disk.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    /// The server's side of TLS.
    #[error(transparent)]
    Server(#[from] rustls::Error),
}

/// The acceptor, and the authority that clients have to trust.
pub(super) struct Authority {
    pub(super) acceptor: TlsAcceptor,
    pub(super) pem: String,
}

/// Makes an authority, and a certificate for loopback and this address.
pub(super) fn authority(address: IpAddr) -> Result<Authority, TlsError> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "Salesforce stand-in");
    let authority_key = KeyPair::generate()?;
    let pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !names.contains(&address.to_string()) {
        names.push(address.to_string());
    }
    let mut server = CertificateParams::new(names)?;
    // OpenSSL, and so Python, refuses a certificate that does not name its issuer's key.
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &issuer)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Authority { acceptor: TlsAcceptor::from(Arc::new(config)), pem })
}
