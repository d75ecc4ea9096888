//! [`Tls`]: encryption for `wss://`, by rustls with ring. Without the feature `tls`, `wss://` is refused.

#[cfg(feature = "tls")]
pub(super) use with_tls::Tls;
#[cfg(not(feature = "tls"))]
pub(super) use without_tls::Tls;

#[cfg(feature = "tls")]
mod with_tls {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use rustls::ClientConfig;
    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls_platform_verifier::Verifier;
    use tokio_rustls::TlsConnector;

    use crate::Error;
    use crate::endpoint::ByteStream;

    /// TLS to one host. Cheap to clone.
    #[derive(Clone)]
    pub(crate) struct Tls {
        connector: TlsConnector,
        server: ServerName<'static>,
    }

    impl Tls {
        /// Prepares TLS to a host, which trusts the platform's root certificates and those in `ca_file`.
        pub(crate) fn new(host: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
            let server = ServerName::try_from(host.to_owned())
                .map_err(|_| Error::Invalid(format!("'{host}' is not a host name that a certificate can have")))?;
            let roots = ca_file.map_or_else(|| Ok(Vec::new()), certificates)?;
            let config = config(roots).map_err(|error| Error::Invalid(format!("TLS cannot be used: {error}")))?;
            Ok(Self { connector: TlsConnector::from(Arc::new(config)), server })
        }

        /// Encrypts a stream.
        pub(crate) async fn wrap(&self, stream: Box<dyn ByteStream>) -> io::Result<Box<dyn ByteStream>> {
            let stream = self.connector.connect(self.server.clone(), stream).await?;
            Ok(Box::new(stream))
        }
    }

    fn config(roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            // Only by name: this verifier asks the platform.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // A WebSocket begins with HTTP/1.1; a proxy might choose HTTP/2.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
        let wrong = |why: String| Error::Invalid(format!("the CA file {} {why}", path.display()));
        let pem = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        // Windows editors put a byte order mark in front.
        let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&pem);
        let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let certificates = read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
        if certificates.is_empty() {
            return Err(wrong("has no certificate in PEM".into()));
        }
        Ok(certificates)
    }
}

#[cfg(not(feature = "tls"))]
mod without_tls {
    use std::io;
    use std::path::Path;

    use crate::Error;
    use crate::endpoint::ByteStream;

    /// Never made.
    #[derive(Clone)]
    pub(crate) enum Tls {}

    impl Tls {
        pub(crate) fn new(_host: &str, _ca_file: Option<&Path>) -> Result<Self, Error> {
            Err(Error::Invalid("wss:// needs the feature 'tls' of switchboard-client".into()))
        }

        #[expect(clippy::unused_async, reason = "the same signature as with TLS")]
        pub(crate) async fn wrap(&self, _stream: Box<dyn ByteStream>) -> io::Result<Box<dyn ByteStream>> {
            match *self {}
        }
    }
}
