//! The authority of this machine: makes its own certificate, and signs those of servers.
//!
//! Its certificate names the hosts that it may vouch for, so a person who copies its key gains nothing but these hosts and
//! the names below them: X.509 permits those with each DNS name (RFC 5280, section 4.2.1.10).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use rand::TryRng;
use rand::rngs::SysRng;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DnType, Error, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber, date_time_ymd,
};
use zeroize::Zeroizing;

use super::Host;

/// How long an authority lives.
const AUTHORITY_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

/// How far a certificate's life begins before it is made: clocks of other computers may be behind by that much.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// The longest common name (RFC 5280, `ub-common-name`).
const NAME_CHARS_MAX: usize = 64;

/// A private key that is erased when it is dropped.
pub(super) type Key = Zeroizing<KeyPair>;

/// Makes a key: ECDSA on P-256, which every TLS library and browser supports.
pub(super) fn new_key() -> Result<Key, Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Zeroizing::new)
}

/// Makes the certificate of an authority that only signs certificates of these hosts and of names below them,
/// and no further authorities.
pub(super) fn make(now: SystemTime, machine: &str, hosts: &[Host], key: &Key) -> Result<Certificate, Error> {
    let mut params = params(now, AUTHORITY_LIFE, &format!("switchboard CA of {machine}"))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // OpenSSL takes an empty e-mail constraint for one that excludes nothing. The purpose keeps e-mail out there too.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.name_constraints = Some(constraints(hosts));
    params.self_signed(&**key)
}

/// Signs a certificate for server authentication with the authority's key.
pub(super) fn sign(
    now: SystemTime,
    life: Duration,
    hosts: &[Host],
    server_key: &impl PublicKeyData,
    authority: &Issuer<'_, &KeyPair>,
) -> Result<Certificate, Error> {
    // Not a host: OpenSSL would hold a common name that looks like one against the constraints.
    let mut params = params(now, life, "switchboard")?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = hosts.iter().map(alternative_name).collect::<Result<_, _>>()?;
    params.signed_by(server_key, authority)
}

fn params(now: SystemTime, life: Duration, name: &str) -> Result<CertificateParams, Error> {
    let begin = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(CLOCK_SKEW);
    let at = |time: Duration| date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_secs()).min(LATEST);
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (at(begin), at(begin + life));
    params.serial_number = Some(serial_number()?);
    let name: String = name.chars().filter(|it| !it.is_control()).take(NAME_CHARS_MAX).collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// The end of the year 9998, close to the last date that a certificate can have.
const LATEST: Duration = Duration::from_hours(70_380_768);

/// A random one: two certificates of one key have to differ in it.
fn serial_number() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes).map_err(|_| Error::RingUnspecified)?;
    // Positive, and always of the same length.
    let [first, ..] = &mut bytes;
    *first = *first & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn alternative_name(host: &Host) -> Result<SanType, Error> {
    Ok(match host {
        Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
        Host::Address(address) => SanType::IpAddress(*address),
    })
}

/// Permits the hosts, and with a DNS name the names below it, which no constraint can leave out. A kind of which there is none is excluded, and e-mail is.
fn constraints(hosts: &[Host]) -> NameConstraints {
    let subnet = |address: IpAddr, prefix| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, prefix));
    let permitted_subtrees = hosts
        .iter()
        .map(|host| match host {
            Host::Name(name) => GeneralSubtree::DnsName(name.clone()),
            Host::Address(address) => subnet(*address, if address.is_ipv4() { 32 } else { 128 }),
        })
        .collect();
    let without = |kind: fn(&Host) -> bool, excluded| (!hosts.iter().any(kind)).then_some(excluded);
    let kinds = [
        without(|host| matches!(host, Host::Name(_)), GeneralSubtree::DnsName(String::new())),
        without(|host| matches!(host, Host::Address(IpAddr::V4(_))), subnet(Ipv4Addr::UNSPECIFIED.into(), 0)),
        without(|host| matches!(host, Host::Address(IpAddr::V6(_))), subnet(Ipv6Addr::UNSPECIFIED.into(), 0)),
        Some(GeneralSubtree::Rfc822Name(String::new())),
    ];
    NameConstraints { permitted_subtrees, excluded_subtrees: kinds.into_iter().flatten().collect() }
}
