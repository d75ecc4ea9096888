//! The authorities of a Linux system, and those that policies give to its browsers.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::Value;

use super::WHY;
use crate::certificates::Leaf;
use crate::server::calendar;
use crate::server::doctor::policies::{files, folders, read_short};
use crate::server::doctor::{Browser, Finding, Level, Question, Side, finding};

/// The longest file with authorities that is read. Those of Debian together have 220 KB.
const BUNDLE_BYTES_MAX: u64 = 4 << 20;

/// The most authorities of a policy.
const POLICY_CERTIFICATES_MAX: usize = 256;

/// Where authorities are.
pub(super) struct Places {
    /// The files with all authorities of the system. The first one that exists is read.
    bundles: Vec<PathBuf>,
    /// The folders with those that an administrator has added to the system.
    added: Vec<PathBuf>,
    /// The folders with the policies of a browser.
    policies: Box<dyn Fn(Browser) -> Vec<PathBuf>>,
}

impl Places {
    /// Those of this machine.
    pub(super) fn of_system() -> Self {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        Self {
            bundles: paths(&[
                "/etc/ssl/certs/ca-certificates.crt",
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/ssl/ca-bundle.pem",
                "/etc/ssl/cert.pem",
            ]),
            added: paths(&[
                "/usr/local/share/ca-certificates",
                "/etc/pki/ca-trust/source/anchors",
                "/etc/ca-certificates/trust-source/anchors",
                "/etc/pki/trust/anchors",
            ]),
            policies: Box::new(move |browser| paths(folders(browser))),
        }
    }
}

/// The certificate of the broker, and those between it and its authority.
pub(super) struct Chain(Vec<CertificateDer<'static>>);

impl Chain {
    /// Reads a PEM text. `None`: it has no certificate that is valid now, which another check reports.
    pub(super) fn read(pem: &[u8]) -> Option<Self> {
        let (leaf, now) = (Leaf::read_pem(pem).ok()?, calendar());
        (leaf.not_before <= now && now < leaf.not_after).then(|| Self(certificates(pem)))
    }

    /// Returns whether one of these authorities has signed it.
    fn is_signed_by(&self, authorities: &[CertificateDer<'static>]) -> bool {
        let anchors: Vec<_> = authorities.iter().filter_map(|it| webpki::anchor_from_trusted_cert(it).ok()).collect();
        let Some((leaf, between)) = self.0.split_first() else { return false };
        let Ok(leaf) = webpki::EndEntityCert::try_from(leaf) else { return false };
        let now = calendar().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        let usage = webpki::KeyUsage::server_auth();
        let time = UnixTime::since_unix_epoch(now);
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, between, time, usage, None, None).is_ok()
    }
}

/// Says who trusts the chain.
pub(super) fn look(chain: &Chain, places: &Places, question: &Question) -> Vec<Finding> {
    let bundle = places.bundles.iter().find_map(|path| read_short(path, BUNDLE_BYTES_MAX));
    let all = bundle.as_deref().map(certificates).unwrap_or_default();
    let added: HashSet<Vec<u8>> = places
        .added
        .iter()
        .flat_map(|folder| files(folder, &["crt", "pem"]))
        .filter_map(|path| read_short(&path, BUNDLE_BYTES_MAX))
        .flat_map(|text| certificates(&text))
        .map(|it| it.to_vec())
        .collect();
    let public: Vec<_> = all.iter().filter(|it| !added.contains(it.as_ref())).cloned().collect();
    let mut findings = vec![system(chain.is_signed_by(&all))];
    let is_public = chain.is_signed_by(&public);
    let browsers = question.browsers().filter(|browser| *browser != Browser::Safari);
    findings.extend(browsers.map(|browser| of_browser(browser, chain, is_public, places)));
    findings
}

fn system(is_trusted: bool) -> Finding {
    let found = |level, what| finding(Side::Policy, "trust", level, what, WHY);
    match is_trusted {
        true => found(Level::Good, "programs of this system, such as curl, trust the certificate"),
        false => found(Level::Warning, "programs of this system, such as curl, do not trust the certificate")
            .cure("switchboard cert trust prints the commands"),
    }
}

fn of_browser(browser: Browser, chain: &Chain, is_public: bool, places: &Places) -> Finding {
    let name = browser.name();
    let found = |level, what| finding(Side::Policy, "trust", level, what, WHY);
    if is_public {
        return found(Level::Good, format!("{name} trusts the certificate: its authority is a public one"));
    }
    let paths = (places.policies)(browser).into_iter().flat_map(|folder| files(&folder, &["json"]));
    let mut granting = paths.filter(|path| chain.is_signed_by(&of_policy(path)));
    if let Some(path) = granting.next() {
        return found(Level::Good, format!("a policy makes {name} trust the certificate: {}", path.display()));
    }
    let by_hand = match browser {
        Browser::Firefox => "about:preferences#privacy, View Certificates",
        Browser::Chrome | Browser::Edge | Browser::Safari => "certutil -L -d sql:$HOME/.pki/nssdb",
    };
    found(Level::Warning, format!("no policy on this machine makes {name} trust the certificate")).cure(format!(
        "print one with switchboard cert trust; an authority that was added by hand is listed by {by_hand}"
    ))
}

/// The authorities in a policy: of Chrome and Edge the certificates themselves, of Firefox their files.
fn of_policy(path: &Path) -> Vec<CertificateDer<'static>> {
    let text = read_short(path, BUNDLE_BYTES_MAX);
    let Some(policies) = text.and_then(|text| serde_json::from_slice::<Value>(&text).ok()) else {
        return Vec::new();
    };
    let texts = |list: Option<&Value>| -> Vec<String> {
        let list = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        list.take(POLICY_CERTIFICATES_MAX).map(str::to_owned).collect()
    };
    let own = texts(policies.get("CACertificates"));
    let own = own.iter().filter_map(|text| STANDARD.decode(text).ok()).map(CertificateDer::from);
    let installed = texts(policies.pointer("/policies/Certificates/Install"));
    let installed = installed.iter().filter_map(|path| read_short(Path::new(path), BUNDLE_BYTES_MAX));
    own.chain(installed.flat_map(|text| certificates(&text))).collect()
}

/// The certificates in a PEM text. What is not one is left out.
fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use serde_json::json;

    use super::*;

    /// An authority, and a chain that it has signed, in PEM and DER.
    struct Signed {
        authority: rcgen::Certificate,
        chain: Chain,
    }

    fn signed() -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let own = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&own, &Issuer::new(params, key)).unwrap();
        Signed { authority, chain: Chain::read(leaf.pem().as_bytes()).unwrap() }
    }

    /// The levels for the system, Chrome, Edge and Firefox.
    fn levels(chain: &Chain, folder: &Path) -> Vec<Level> {
        let root = folder.to_owned();
        let places = Places {
            bundles: vec![root.join("none.crt"), root.join("all.crt")],
            added: vec![root.join("added")],
            policies: Box::new(move |browser| vec![root.join(browser.name())]),
        };
        look(chain, &places, &Question::default()).into_iter().map(|it| it.level).collect()
    }

    #[test]
    fn who_trusts_the_certificate_is_read_from_the_system_and_from_policies() {
        use Level::{Good, Warning};
        let (Signed { authority, chain }, other) = (signed(), signed());
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["added", "Chrome", "Edge", "Firefox"] {
            fs::create_dir(path(name)).unwrap();
        }
        assert_eq!(levels(&chain, folder.path()), [Warning; 4], "nothing is there");

        fs::write(path("all.crt"), [other.authority.pem(), authority.pem()].concat()).unwrap();
        assert_eq!(levels(&chain, folder.path()), [Good; 4], "a public authority");

        // Browsers have public authorities of their own, and do not take those that were added to the system.
        fs::write(path("added/own.crt"), authority.pem()).unwrap();
        assert_eq!(levels(&chain, folder.path()), [Good, Warning, Warning, Warning]);

        let policy = |it: &rcgen::Certificate| json!({ "CACertificates": [STANDARD.encode(it.der())] }).to_string();
        fs::write(path("Chrome/policy.json"), policy(&authority)).unwrap();
        fs::write(path("Edge/policy.json"), policy(&other.authority)).unwrap();
        let install = json!({ "policies": { "Certificates": { "Install": [path("added/own.crt")] } } });
        fs::write(path("Firefox/policies.json"), install.to_string()).unwrap();
        assert_eq!(levels(&chain, folder.path()), [Good, Good, Warning, Good]);
    }

    #[test]
    fn a_certificate_that_has_ended_is_left_to_another_check() {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let ended = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert!(Chain::read(ended.pem().as_bytes()).is_none());
        assert!(Chain::read(b"").is_none());
    }
}
