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
use super::{Host, Leaf};
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

    fn making(fault: &rcgen::Error) -> Self {
        Self(format!("the certificate cannot be made: {fault}"))
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
        let (authority_key, key) =
            authority::new_key().and_then(|first| Ok((first, authority::new_key()?))).map_err(of)?;
        let authority = authority::make(now, machine, hosts, &authority_key).map_err(of)?;
        let issuer = Issuer::from_ca_cert_der(authority.der(), &*authority_key).map_err(of)?;
        let certificate = authority::sign(now, life, hosts, &*key, &issuer).map_err(of)?;
        let leaf = Leaf::read_der(certificate.der()).map_err(|error| FolderError(error.to_string()))?;
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

fn of(error: rcgen::Error) -> FolderError {
    FolderError::making(&error)
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
    let issuer = Issuer::from_ca_cert_der(&authority_der, &*key).map_err(of)?;
    let server_key = SubjectPublicKeyInfo::from_der(old_certificate.public_key().raw).map_err(of)?;
    let new = authority::sign(now, life, &hosts, &server_key, &issuer).map_err(of)?;
    replace_like(path, new.pem().as_bytes()).map_err(|error| FolderError::file(path, error))?;
    Leaf::read_der(new.der()).map_err(|error| FolderError(error.to_string()))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, DnType, IsCa, SanType};
    use rustls_pki_types::{ServerName, UnixTime};
    use webpki::{EndEntityCert, KeyUsage};

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000
    }

    fn hosts(names: &[&str]) -> Vec<Host> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn made(names: &[&str], days: u32) -> (tempfile::TempDir, Folder) {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(parent.path().join("tls"));
        folder.create(now(), "desk", &hosts(names), DAY * days).unwrap();
        (parent, folder)
    }

    /// Whether webpki, which rustls uses, accepts a certificate under the authority for a usage, and for a name.
    fn verify(folder: &Folder, der: &[u8], usage: KeyUsage, at: SystemTime, name: &str) -> Result<(), webpki::Error> {
        let authority = CertificateDer::from(folder.read_authority().unwrap().0);
        let anchors = [webpki::anchor_from_trusted_cert(&authority).unwrap()];
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let der = CertificateDer::from(der);
        let certificate = EndEntityCert::try_from(&der)?;
        certificate.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], at, usage, None, None)?;
        certificate.verify_is_valid_for_subject_name(&ServerName::try_from(name).unwrap())
    }

    fn der(path: &Path) -> Vec<u8> {
        CertificateDer::from_pem_slice(&fs::read(path).unwrap()).unwrap().to_vec()
    }

    /// A certificate for these names that was signed with the authority's key by another program.
    fn forged(folder: &Folder, names: Vec<SanType>, is_ca: IsCa) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::from_pem(&fs::read_to_string(folder.authority_key()).unwrap()).unwrap();
        let authority = CertificateDer::from(folder.read_authority().unwrap().0);
        let issuer = Issuer::from_ca_cert_der(&authority, key).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "forged");
        params.subject_alt_names = names;
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap().der().to_vec(), key)
    }

    #[test]
    fn the_certificate_is_valid_for_its_hosts_as_a_server_and_for_nothing_else() {
        let (_parent, folder) = made(&["localhost", "127.0.0.1", "::1"], 397);
        let der = der(&folder.certificate());
        let check = |usage, at, name: &str| verify(&folder, &der, usage, at, name);
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert_eq!(check(KeyUsage::server_auth(), now(), name), Ok(()), "{name}");
        }
        for name in ["broker.example.com", "127.0.0.2", "::2"] {
            assert!(check(KeyUsage::server_auth(), now(), name).is_err(), "{name}");
        }
        assert!(check(KeyUsage::client_auth(), now(), "localhost").is_err());
        // A client whose clock is behind, and the last and the next day.
        for (at, valid) in [(now() - CLOCKS_DIFFER, true), (now() + DAY * 396, true), (now() + DAY * 397, false)] {
            assert_eq!(check(KeyUsage::server_auth(), at, "localhost").is_ok(), valid);
        }
    }

    const CLOCKS_DIFFER: Duration = Duration::from_mins(4);

    #[test]
    fn the_authority_cannot_vouch_for_another_host_whoever_has_its_key() {
        let name = |text: &str| SanType::DnsName(text.try_into().unwrap());
        let address = |text: &str| SanType::IpAddress(text.parse().unwrap());
        let (_one, both) = made(&["localhost", "127.0.0.1", "::1"], 397);
        let (_two, names) = made(&["localhost"], 397);
        let (_three, addresses) = made(&["127.0.0.1"], 397);
        for (folder, san, host) in [
            (&both, name("example.com"), "example.com"),
            (&both, name("notlocalhost"), "notlocalhost"),
            (&both, address("127.0.0.2"), "127.0.0.2"),
            (&both, address("::2"), "::2"),
            (&names, address("127.0.0.1"), "127.0.0.1"),
            (&names, address("::1"), "::1"),
            (&addresses, name("localhost"), "localhost"),
            (&addresses, address("::1"), "::1"),
        ] {
            let (der, _) = forged(folder, vec![san], IsCa::NoCa);
            let verified = verify(folder, &der, KeyUsage::server_auth(), now(), host);
            assert_eq!(verified, Err(webpki::Error::NameConstraintViolation), "{host}");
        }
        let mail = SanType::Rfc822Name("root@localhost".try_into().unwrap());
        let (der, _) = forged(&both, vec![mail, name("localhost")], IsCa::NoCa);
        assert!(verify(&both, &der, KeyUsage::server_auth(), now(), "localhost").is_err());
    }

    #[test]
    fn the_authority_makes_no_further_authorities() {
        let (_parent, folder) = made(&["localhost"], 397);
        let authority = folder.read_authority().unwrap();
        let (_, parsed) = X509Certificate::from_der(&authority.0).unwrap();
        let basic = parsed.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca && basic.value.path_len_constraint == Some(0));
        let usage = parsed.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.flags == 1 << 5, "{:b}", usage.value.flags);
        assert!(parsed.name_constraints().unwrap().unwrap().critical);
        assert_eq!(parsed.subject().to_string(), "CN=switchboard CA of desk");
        let life = authority.1.not_after.duration_since(authority.1.not_before).unwrap();
        assert_eq!(life, DAY * 3650);
    }

    #[test]
    fn a_renewal_keeps_names_key_authority_and_the_length_of_the_life() {
        let (_parent, folder) = made(&["localhost", "::1"], 90);
        let contents =
            || [folder.authority(), folder.authority_key(), folder.key()].map(|path| fs::read(path).unwrap());
        let (kept, old) = (contents(), folder.read().unwrap());
        let later = now() + DAY * 80;
        let new = folder.renew(later).unwrap();
        assert_eq!((contents(), folder.read().unwrap()), (kept, new.clone()));
        assert_eq!(new.names, old.names);
        assert_eq!(new.not_after, old.not_after + DAY * 80);
        assert_eq!(new.not_before, old.not_before + DAY * 80);
        let (first, second) = (old.sha256, new.sha256);
        assert_ne!(first, second);
        verify(&folder, &der(&folder.certificate()), KeyUsage::server_auth(), later, "localhost").unwrap();
        // Near the end of the authority, lives are shorter.
        let end = folder.read_authority().unwrap().1.not_after;
        assert_eq!(folder.renew(end - DAY * 10).unwrap().not_after, end - Duration::from_mins(5));
        let words = folder.renew(end - DAY / 2).unwrap_err().to_string();
        assert!(words.contains("ca.pem: the authority ends within a day"), "{words}");
    }

    #[test]
    fn a_renewal_happens_by_itself_only_when_the_warning_is_due() {
        let (parent, folder) = made(&["localhost"], 90);
        let link = parent.path().join("link.pem");
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.certificate(), &link).unwrap();
        let due = folder.read().unwrap().warning_due();
        assert!(renew_if_due(due, &link).unwrap().is_none());
        let renewed = renew_if_due(due + Duration::from_secs(1), &link).unwrap().unwrap();
        assert!(link.is_symlink() && folder.read().unwrap() == renewed);
        assert!(renew_if_due(due + Duration::from_secs(1), &link).unwrap().is_none());
        fs::remove_file(folder.authority_key()).unwrap();
        assert!(renew_if_due(due + DAY * 365, &link).unwrap().is_none());
    }

    #[test]
    fn a_certificate_of_another_authority_is_never_replaced() {
        let ((_one, folder), (_two, other)) = (made(&["localhost"], 90), made(&["localhost"], 90));
        let refused = |words: &str| {
            let before = fs::read(folder.certificate()).unwrap();
            let error = folder.renew(now()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(fs::read(folder.certificate()).unwrap() == before);
        };
        fs::copy(other.certificate(), folder.certificate()).unwrap();
        refused("cert.pem: it was not signed by");
        fs::copy(other.authority_key(), folder.authority_key()).unwrap();
        refused("ca.key: this is not the key of");
        fs::write(folder.authority_key(), "x").unwrap();
        refused("ca.key: this is not a private key in PEM");
        #[cfg(unix)]
        {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            fs::set_permissions(folder.authority_key(), open).unwrap();
            refused("open to other users");
        }
        fs::write(folder.certificate(), "x").unwrap();
        refused("cert.pem: there is no certificate in it");
    }
}
