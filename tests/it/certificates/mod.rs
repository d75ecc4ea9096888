//! The certificates that the broker makes itself: what they are valid for, and when they are renewed.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use switchboard::certificates::{Folder, Host, renew_if_due};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

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
    for (at, valid) in [(now() - Duration::from_mins(4), true), (now() + DAY * 396, true), (now() + DAY * 397, false)] {
        assert_eq!(check(KeyUsage::server_auth(), at, "localhost").is_ok(), valid);
    }
}

#[test]
fn the_authority_cannot_vouch_for_another_host_even_with_its_key() {
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

/// A constraint of X.509 permits them with the name.
#[test]
fn the_authority_can_vouch_for_names_below_its_hosts() {
    let (_parent, folder) = made(&["broker.example.com"], 397);
    for (host, expected) in [
        ("app.broker.example.com", Ok(())),
        ("example.com", Err(webpki::Error::NameConstraintViolation)),
        ("otherbroker.example.com", Err(webpki::Error::NameConstraintViolation)),
    ] {
        let (der, _) = forged(&folder, vec![SanType::DnsName(host.try_into().unwrap())], IsCa::NoCa);
        assert_eq!(verify(&folder, &der, KeyUsage::server_auth(), now(), host), expected, "{host}");
    }
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
    let contents = || [folder.authority(), folder.authority_key(), folder.key()].map(|path| fs::read(path).unwrap());
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
