//! [`Files`]: the certificate and the private key as they are on disk; [`Files::pair`] checks that they fit each other.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::certificates::Leaf;
use crate::config;
use crate::server::trial::Unusable;
use crate::short_text::without_mark;
use crate::store::{open_regular, read_group_secret_bytes};

pub(super) const CERTIFICATE_FILE: &str = "tls.certificate_file";
pub(super) const KEY_FILE: &str = "tls.key_file";

/// The largest file with certificates: room for some hundred authorities.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// The two files, as they were read.
pub(super) struct Files {
    certificate_file: PathBuf,
    key_file: PathBuf,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    /// Reads both files. Blocks on the disk.
    pub(super) fn read(tls: &config::Tls) -> Result<Self, Unusable> {
        let named = |key, path: &Option<PathBuf>| path.clone().ok_or_else(|| Unusable::new(key, "is missing"));
        let certificate_file = named(CERTIFICATE_FILE, &tls.certificate_file)?;
        let key_file = named(KEY_FILE, &tls.key_file)?;
        let certificate = read_pem(CERTIFICATE_FILE, &certificate_file)?;
        let key = read_group_secret_bytes(&key_file).map_err(|error| wrong(KEY_FILE, &key_file, error))?;
        Ok(Self { certificate_file, key_file, certificate, key })
    }

    /// Returns when the certificate expires; `None` if it does not say so in a way that can be read.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        Leaf::read_pem(without_mark(&self.certificate)).ok().map(|leaf| leaf.not_after)
    }

    /// Returns what differs if the content of a file does.
    pub(super) fn digest(&self) -> [u8; 32] {
        let [certificate, key] = [&self.certificate, &*self.key].map(Sha256::digest);
        Sha256::new().chain_update(certificate).chain_update(key).finalize().into()
    }

    /// Returns the chain and the key, ready for handshakes.
    pub(super) fn pair(&self, provider: &CryptoProvider) -> Result<CertifiedKey, Unusable> {
        let chain = certificates(CERTIFICATE_FILE, &self.certificate_file, &self.certificate)?;
        let wrong_key = |why: String| wrong(KEY_FILE, &self.key_file, why);
        let key = private_key(without_mark(&self.key)).map_err(|why| wrong_key(why.to_owned()))?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            wrong_key(
                "the private key is damaged, or of a kind that this broker cannot use: use RSA of 2048 to 4096 \
                       bits, ECDSA with P-256 or P-384, or Ed25519"
                    .to_owned(),
            )
        })?;
        let belongs_to = chain
            .iter()
            .position(|certificate| CertifiedKey::new(vec![certificate.clone()], key.clone()).keys_match().is_ok());
        match belongs_to {
            Some(0) => Ok(CertifiedKey::new(chain, key)),
            Some(later) => Err(wrong(
                CERTIFICATE_FILE,
                &self.certificate_file,
                format!("the certificate of the key is number {} in the file; it has to be the first", later + 1),
            )),
            None => Err(match CertifiedKey::new(chain, key).keys_match() {
                Err(rustls::Error::InvalidCertificate(error)) => wrong(
                    CERTIFICATE_FILE,
                    &self.certificate_file,
                    format!("the first certificate cannot be read ({error}); it has to be of X.509 version 3"),
                ),
                Ok(()) | Err(_) => wrong_key(format!(
                    "the key does not belong to the certificate in {}; renew or copy both files together",
                    self.certificate_file.display()
                )),
            }),
        }
    }
}

/// Reads a file with certificates.
pub(super) fn read_pem(key: &'static str, path: &Path) -> Result<Vec<u8>, Unusable> {
    let mut bytes = Vec::new();
    let read = open_regular(path).and_then(|file: File| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| wrong(key, path, error))?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(wrong(key, path, "the file is larger than 1 MiB, so it cannot be certificates"));
    }
    Ok(bytes)
}

/// Returns the certificates of a file, in its order. There is at least one.
pub(super) fn certificates(
    key: &'static str,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let bytes = without_mark(bytes);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(wrong(key, path, instead_of_certificate(bytes))),
        Err(error) => Err(wrong(key, path, format!("a certificate in the file is damaged: {error}"))),
    }
}

/// Says what a file without a certificate in PEM contains.
fn instead_of_certificate(bytes: &[u8]) -> &'static str {
    if contains(bytes, "PRIVATE KEY-----") {
        "the file contains a private key and no certificate; certificate_file and key_file may be exchanged"
    } else if contains(bytes, "CERTIFICATE REQUEST-----") {
        "the file contains a certificate signing request; the authority returns the certificate for it"
    } else if bytes.first() == Some(&0x30) {
        "the file is not PEM but DER or PKCS#12; convert it with openssl x509 -inform DER, or openssl pkcs12 -nokeys"
    } else {
        "the file contains no certificate in PEM"
    }
}

fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    if contains(bytes, "ENCRYPTED") {
        return Err("the private key has a passphrase; remove it with openssl pkey -in FILE -out NEWFILE");
    }
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(rustls_pki_types::pem::Error::NoItemsFound) if contains(bytes, "BEGIN CERTIFICATE-----") => {
            Err("the file contains a certificate and no private key; certificate_file and key_file may be exchanged")
        }
        Err(rustls_pki_types::pem::Error::NoItemsFound) if contains(bytes, "OPENSSH PRIVATE KEY") => {
            Err("the private key is in the format of OpenSSH; convert it with ssh-keygen -p -m PKCS8 -f FILE")
        }
        Err(rustls_pki_types::pem::Error::NoItemsFound) if bytes.first() == Some(&0x30) => {
            Err("the file is not PEM but DER or PKCS#12; convert it with openssl pkey -inform DER, or openssl pkcs12 \
                 -nocerts -noenc")
        }
        Err(rustls_pki_types::pem::Error::NoItemsFound) => Err("the file contains no private key in PEM"),
        // The error's own words could quote the file.
        Err(_) => Err("the private key is damaged: it is not PEM from its first line to its last"),
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

pub(super) fn wrong(key: &'static str, path: &Path, why: impl std::fmt::Display) -> Unusable {
    Unusable::new(key, format!("{}: {why}", path.display()))
}
