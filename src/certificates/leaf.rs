//! [`Leaf`]: the names, the dates and the fingerprint of a certificate.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// The longest time before its end in which a certificate is warned of.
const WARNING_MAX: Duration = Duration::from_hours(30 * 24);

/// What is known of a certificate without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The DNS names and addresses that it is valid for, in its own order.
    pub names: Vec<String>,
    /// The beginning of its life.
    pub not_before: SystemTime,
    /// The end of its life.
    pub not_after: SystemTime,
    /// SHA-256 of the DER.
    pub sha256: [u8; 32],
}

/// Why a text or bytes are not a certificate. Quotes nothing of them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// It has no PEM block of a certificate.
    #[error("there is no certificate in it: a PEM file has a line 'BEGIN CERTIFICATE'")]
    Absent,
    /// The block is not a certificate.
    #[error("its first certificate cannot be read")]
    Malformed,
}

impl Leaf {
    /// Reads the first certificate of a PEM text, which is that of the server or client itself in a chain.
    pub fn read_pem(pem: &[u8]) -> Result<Self, LeafError> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| LeafError::Absent)?;
        Self::read_der(&der)
    }

    /// Reads a certificate in DER.
    pub fn read_der(der: &[u8]) -> Result<Self, LeafError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| LeafError::Malformed)?;
        if !rest.is_empty() {
            return Err(LeafError::Malformed);
        }
        let validity = certificate.validity();
        Ok(Self {
            names: names(&certificate)?,
            not_before: time(validity.not_before)?,
            not_after: time(validity.not_after)?,
            sha256: Sha256::digest(der).into(),
        })
    }

    /// Returns when less than a third of its life is left, but at most 30 days: from then on it should be renewed.
    pub fn warning_due(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after.checked_sub((life / 3).min(WARNING_MAX)).unwrap_or(self.not_before)
    }

    /// Returns whether it should be renewed.
    pub fn is_warning_due(&self, now: SystemTime) -> bool {
        now > self.warning_due()
    }
}

/// The DNS names and addresses of the extension for subject alternative names. Other kinds are not names of a server.
fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, LeafError> {
    let extension = certificate.subject_alternative_name().map_err(|_| LeafError::Malformed)?;
    let names = extension.into_iter().flat_map(|extension| &extension.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn time(time: ASN1Time) -> Result<SystemTime, LeafError> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    };
    time.ok_or(LeafError::Malformed)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn certificate(names: &[&str]) -> rcgen::Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_certificate_is_read_from_the_first_block_of_a_chain() {
        let (first, second) = (certificate(&["localhost", "127.0.0.1", "::1"]), certificate(&["other.example"]));
        let leaf = Leaf::read_pem((first.pem() + &second.pem()).as_bytes()).unwrap();
        assert_eq!(leaf.names, ["localhost", "127.0.0.1", "::1"]);
        let day = |text| humantime::parse_rfc3339(text).unwrap();
        assert_eq!(leaf.not_before, day("2026-01-01T00:00:00Z"));
        assert_eq!(leaf.not_after, day("2027-01-01T00:00:00Z"));
        assert_eq!(leaf.sha256, <[u8; 32]>::from(Sha256::digest(first.der())));
        assert_eq!(Leaf::read_der(first.der()), Ok(leaf));
        assert_eq!(Leaf::read_der(certificate(&[]).der()).unwrap().names, [""; 0]);
    }

    #[test]
    fn what_is_not_a_certificate_is_refused() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        for (text, error) in [
            ("", LeafError::Absent),
            ("certificate", LeafError::Absent),
            (key.as_str(), LeafError::Absent),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", LeafError::Malformed),
        ] {
            assert_eq!(Leaf::read_pem(text.as_bytes()), Err(error), "{text}");
        }
        let der = certificate(&["localhost"]).der().to_vec();
        assert_eq!(Leaf::read_der(&[der.as_slice(), b"x"].concat()), Err(LeafError::Malformed));
        assert_eq!(Leaf::read_der(&der[..der.len() - 1]), Err(LeafError::Malformed));
    }

    #[test]
    fn the_warning_is_due_in_the_last_third_of_a_life_and_in_its_last_30_days() {
        let not_before = SystemTime::UNIX_EPOCH;
        for (life, due) in [(3, 2), (90, 60), (91, 61), (397, 367), (3650, 3620), (0, 0)] {
            let leaf = Leaf { names: Vec::new(), not_before, not_after: not_before + DAY * life, sha256: [0; 32] };
            // A third of 91 days is a little over 30 days.
            let due = not_before + DAY * due;
            assert_eq!(leaf.warning_due(), due, "{life}");
            assert!(!leaf.is_warning_due(due) && leaf.is_warning_due(due + Duration::from_secs(1)), "{life}");
        }
    }
}
