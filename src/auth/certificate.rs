//! [`ClientCertificate`]: what a client showed in its TLS handshake, and how a row of `[[applications]]` names it.

use std::time::SystemTime;

/// A client's certificate, which an authority of `tls.client_ca_file` vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// The subject as text. `None` if it has an attribute that a row cannot name.
    pub subject: Option<Box<str>>,
    /// SHA-256 of the certificate in DER.
    pub sha256: [u8; 32],
    /// The end of its life.
    pub not_after: SystemTime,
    /// The certificate in DER, followed by those of authorities that the client sent.
    pub chain: Box<[Box<[u8]>]>,
}

/// How a row names a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// By its subject, as [`ClientCertificate::subject`] has it.
    Subject(Box<str>),
    /// By the SHA-256 of its DER.
    Sha256([u8; 32]),
}

impl ClientCertificate {
    /// Returns the names by which a row can mean it.
    pub fn names(&self) -> impl Iterator<Item = CertificateName> {
        let subject = self.subject.clone().map(CertificateName::Subject);
        std::iter::once(CertificateName::Sha256(self.sha256)).chain(subject)
    }
}
