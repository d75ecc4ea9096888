//! [`Folder`]: an authority of this machine and a certificate that it has signed, as four files.
//!
//! A renewal keeps the key of the server, so that it replaces one file at once: certificate and key never disagree, also
//! after a crash.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::authority::{self, Key};
use super::{Host, Leaf, LeafError};
use crate::store::{
    create_new, create_readable, make_private_folder, read_regular, read_secret, replace_like, resolve,
};

/// The file of the authority's certificate.
const AUTHORITY: &str = "ca.pem";

/// The file of the authority's key.
const AUTHORITY_KEY: &str = "ca.key";

/// The shortest life of a new certificate.
const LIFE_MIN: Duration = Duration::from_hours(24);

/// A folder with `ca.pem`, `ca.key`, `cert.pem` and `key.pem`. Only their owner may read the keys.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// Why certificates cannot be made, read or renewed: what is wrong and what to do. Holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FolderError(String);

impl FolderError {
    fn file(path: &Path, fault: impl fmt::Display) -> Self {
        Self(format!("{}: {fault}", path.display()))
    }
}

impl From<rcgen::Error> for FolderError {
    fn from(error: rcgen::Error) -> Self {
        Self(format!("the certificate cannot be made: {error}"))
    }
}

impl From<LeafError> for FolderError {
    fn from(error: LeafError) -> Self {
        Self(error.to_string())
    }
}

impl Folder {
    /// The folder at this path, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.0.join(AUTHORITY)
    }

    /// The key of the authority.
    pub fn authority_key(&self) -> PathBuf {
        self.0.join(AUTHORITY_KEY)
    }

    /// The certificate of the server.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("cert.pem")
    }

    /// The key of the server.
    pub fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    /// Makes an authority for these hosts, and a certificate for them that is valid for `life`. `machine` is the name of
    /// this computer, by which a person recognises the authority in a list of trusted ones.
    ///
    /// # Errors
    /// One of the files exists, or cannot be written. Then there are no new files.
    pub fn create(&self, now: SystemTime, machine: &str, hosts: &[Host], life: Duration) -> Result<Leaf, FolderError> {
        let paths = [self.authority_key(), self.authority(), self.key(), self.certificate()];
        if let Some(path) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(FolderError::file(
                path,
                "the file exists, and nothing was changed: 'switchboard cert renew' renews a certificate, and --out names \
                 another folder for a new one",
            ));
        }
        let (authority_key, key) = (authority::new_key()?, authority::new_key()?);
        let authority = authority::make(now, machine, hosts, &authority_key)?;
        let issuer = Issuer::from_ca_cert_der(authority.der(), &*authority_key)?;
        let certificate = authority::sign(now, life, hosts, &*key, &issuer)?;
        let leaf = Leaf::read_der(certificate.der())?;
        make_private_folder(&self.0).map_err(|error| FolderError::file(&self.0, error))?;
        let contents = [pem(&authority_key), public(authority.pem()), pem(&key), public(certificate.pem())];
        let is_key = [true, false, true, false];
        for (at, ((path, contents), is_key)) in paths.iter().zip(&contents).zip(is_key).enumerate() {
            let create = if is_key { create_new } else { create_readable };
            if let Err(error) = create(path, contents.as_bytes()) {
                for made in paths.iter().take(at) {
                    std::fs::remove_file(made).ok();
                }
                return Err(FolderError::file(path, error));
            }
        }
        Ok(leaf)
    }

    /// Replaces the certificate of the server by one with the same names, the same key and as long a life, signed by the
    /// same authority, but not beyond the end of that.
    pub fn renew(&self, now: SystemTime) -> Result<Leaf, FolderError> {
        renew(now, &self.certificate(), &self.authority(), &self.authority_key())
    }

    /// Reads the certificate of the server.
    pub fn read(&self) -> Result<Leaf, FolderError> {
        read(&self.certificate()).map(|(_, leaf)| leaf)
    }

    /// Reads the certificate of the authority, and returns its DER too.
    pub fn read_authority(&self) -> Result<(Vec<u8>, Leaf), FolderError> {
        read(&self.authority()).map(|(der, leaf)| (der.to_vec(), leaf))
    }
}

fn pem(key: &Key) -> Zeroizing<String> {
    Zeroizing::new(key.serialize_pem())
}

fn public(text: String) -> Zeroizing<String> {
    Zeroizing::new(text)
}

/// Renews the certificate in a file if its warning is due and the authority that signed it is in the same folder, with its
/// key. Returns the new certificate, or `None` if there is nothing to renew.
pub fn renew_if_due(now: SystemTime, certificate: &Path) -> Result<Option<Leaf>, FolderError> {
    // The files are beside the certificate itself, wherever a link to it is.
    let certificate = resolve(certificate);
    let authority_key = certificate.with_file_name(AUTHORITY_KEY);
    if !authority_key.exists() || !read(&certificate)?.1.is_warning_due(now) {
        return Ok(None);
    }
    renew(now, &certificate, &certificate.with_file_name(AUTHORITY), &authority_key).map(Some)
}

fn renew(now: SystemTime, path: &Path, authority_path: &Path, key_path: &Path) -> Result<Leaf, FolderError> {
    let ((old_der, old), (authority_der, authority_facts)) = (read(path)?, read(authority_path)?);
    let key = read_secret(key_path).map_err(|error| FolderError::file(key_path, error))?;
    let key = KeyPair::from_pem(&key)
        .map(Zeroizing::new)
        .map_err(|_| FolderError::file(key_path, "this is not a private key in PEM"))?;
    let (old_certificate, authority) = (parse(path, &old_der)?, parse(authority_path, &authority_der)?);
    if authority.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&*key) {
        return Err(FolderError::file(key_path, format_args!("this is not the key of {}", authority_path.display())));
    }
    if old_certificate.issuer() != authority.subject()
        || old_certificate.verify_signature(Some(authority.public_key())).is_err()
    {
        return Err(FolderError::file(path, format_args!("it was not signed by {}", authority_path.display())));
    }
    let left = authority_facts.not_after.duration_since(now).unwrap_or_default();
    if left < LIFE_MIN {
        return Err(FolderError::file(
            authority_path,
            "the authority ends within a day: make a new one in another folder with 'switchboard cert new --out DIR'",
        ));
    }
    let life = old.not_after.duration_since(old.not_before).unwrap_or_default().min(left);
    let hosts = old.names.iter().map(|name| name.parse()).collect::<Result<Vec<Host>, _>>();
    let hosts = hosts.map_err(|error| FolderError::file(path, error))?;
    let issuer = Issuer::from_ca_cert_der(&authority_der, &*key)?;
    let server_key = SubjectPublicKeyInfo::from_der(old_certificate.public_key().raw)?;
    let new = authority::sign(now, life, &hosts, &server_key, &issuer)?;
    replace_like(path, new.pem().as_bytes()).map_err(|error| FolderError::file(path, error))?;
    Ok(Leaf::read_der(new.der())?)
}

/// Reads the first certificate of a file.
fn read(path: &Path) -> Result<(CertificateDer<'static>, Leaf), FolderError> {
    let pem = read_regular(path).map_err(|error| FolderError::file(path, error))?;
    let leaf = Leaf::read_pem(&pem).map_err(|error| FolderError::file(path, error))?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|_| FolderError::file(path, "it is not PEM"))?;
    Ok((der, leaf))
}

fn parse<'d>(path: &Path, der: &'d CertificateDer<'_>) -> Result<X509Certificate<'d>, FolderError> {
    let parsed = X509Certificate::from_der(der);
    parsed.map(|(_, certificate)| certificate).map_err(|_| FolderError::file(path, "the certificate cannot be read"))
}
