//! A certificate of `switchboard cert new`, which the broker renews itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use switchboard::certificates::{Folder, Leaf};

use crate::support::Broker;
use crate::support::tls::connect;

const DAY: Duration = Duration::from_hours(24);

#[expect(clippy::disallowed_methods, reason = "a real broker, real time")]
fn days_ago(days: u32) -> SystemTime {
    SystemTime::now() - DAY * days
}

/// Certificates that were made 380 days ago for 397 days.
fn due(parent: &tempfile::TempDir) -> (Folder, Leaf) {
    let folder = Folder::new(parent.path().join("tls"));
    let leaf = folder.create(days_ago(380), "desk", &["localhost".parse().unwrap()], DAY * 397).unwrap();
    (folder, leaf)
}

/// A broker that uses them.
async fn broker(folder: &Folder) -> (Broker, String) {
    let [certificate, key] = [folder.certificate(), folder.key()].map(|path| path.display().to_string());
    let table = format!("[tls]\ncertificate_file = '{certificate}'\nkey_file = '{key}'\nlisten = ['127.0.0.1:0']\n");
    let mut broker = Broker::open_with(&table).await;
    let url = broker.next_url().await;
    (broker, url)
}

/// The fingerprint of the certificate that a client gets that trusts the authority alone.
async fn shown(url: &str, folder: &Folder) -> [u8; 32] {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(folder.read_authority().unwrap().0)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let stream = connect(url, &config).await.unwrap();
    Sha256::digest(&stream.get_ref().1.peer_certificates().unwrap()[0]).into()
}

#[tokio::test]
async fn a_broker_renews_its_own_certificate_when_the_warning_is_due() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, old) = due(&parent);
    let (broker, url) = broker(&folder).await;
    broker.log_until("the renewal", |log| log.contains("renewed the certificate of [tls]")).await;
    broker.log_until("its use", |log| log.contains("a new TLS certificate is in use")).await;
    let new = folder.read().unwrap();
    assert!(new.not_after > old.not_after + DAY * 379 && new.names == old.names);
    assert_eq!(shown(&url, &folder).await, new.sha256);
}

/// Without the authority's key beside it, the broker does not renew it.
#[tokio::test]
async fn a_reload_warns_at_once_of_a_certificate_that_expires_soon() {
    let (fresh, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = Folder::new(fresh.path().join("tls"));
    folder.create(days_ago(1), "desk", &["localhost".parse().unwrap()], DAY * 397).unwrap();
    let (broker, _url) = broker(&folder).await;
    assert!(!broker.log().contains("expires in"), "{}", broker.log());
    let (due, _) = due(&parent);
    std::fs::remove_file(folder.authority_key()).unwrap();
    std::fs::copy(due.certificate(), folder.certificate()).unwrap();
    std::fs::copy(due.key(), folder.key()).unwrap();
    broker.reload().await;
    assert!(broker.log().contains("expires in 16 days"), "{}", broker.log());
}

#[tokio::test]
async fn a_renewal_that_fails_is_logged_and_the_certificate_stays_in_use() {
    let (parent, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, old) = due(&parent);
    std::fs::copy(due(&other).0.authority_key(), folder.authority_key()).unwrap();
    let (broker, url) = broker(&folder).await;
    broker.log_until("the fault", |log| log.contains("is due and cannot be renewed")).await;
    assert!(broker.log().contains("ca.key: this is not the key of"), "{}", broker.log());
    assert_eq!((shown(&url, &folder).await, folder.read().unwrap()), (old.sha256, old));
}
