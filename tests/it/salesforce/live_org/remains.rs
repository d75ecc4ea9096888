//! Where a password stays after its reply: not in the log at TRACE, not in the data folder, not in a buffer of the
//! broker's own. What Salesforce answers stays for a while in the buffers of the HTTP library (docs/salesforce.md).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use salesforce_stand_in::{DEMO_SEED, Fault, Options, Org, Seed, Wrong};
use tokio::time::{Instant, interval};

use super::{ALICE, ALICES, Fixture, demo, fetched};
use crate::credentials::secrets::files_with;
use crate::support::Broker;

/// What is before the password in Salesforce's answer, as far as a library that uses its buffer anew has left it.
/// Another form, or the password alone, is the broker's own.
const AS_IT_CAME: &str = "_c\":\"";

/// Fetches after which what a library keeps has stopped growing.
const FETCHES: usize = 60;

/// What is before each place of the text in the memory of a process.
fn in_memory(process: u32, text: &str) -> Vec<String> {
    let process = Path::new("/proc").join(process.to_string());
    let maps = std::fs::read_to_string(process.join("maps")).unwrap();
    let mut memory = File::open(process.join("mem")).unwrap();
    let mut found = Vec::new();
    for map in maps.lines().filter(|map| map.split_whitespace().nth(1).is_some_and(|it| it.starts_with("rw"))) {
        let (from, to) = map.split_whitespace().next().unwrap().split_once('-').unwrap();
        let at = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(at(to) - at(from)).unwrap()];
        // What cannot be read is a device's.
        if memory.seek(SeekFrom::Start(at(from))).and_then(|_| memory.read_exact(&mut bytes)).is_err() {
            continue;
        }
        let places = bytes.windows(text.len()).enumerate().filter(|(_, it)| *it == text.as_bytes());
        found.extend(places.map(|(at, _)| String::from_utf8_lossy(&bytes[at.saturating_sub(40)..at]).into_owned()));
    }
    found
}

/// What a second leaves of the text in the broker's memory, apart from `but`.
async fn remaining(broker: &Broker, text: &str, but: Option<&str>) -> (Vec<String>, usize) {
    let until = Instant::now() + Duration::from_secs(1);
    let mut often = interval(Duration::from_millis(100));
    loop {
        often.tick().await;
        let (theirs, ours): (Vec<_>, Vec<_>) =
            in_memory(broker.process(), text).into_iter().partition(|it| but.is_some_and(|but| it.ends_with(but)));
        if ours.is_empty() || Instant::now() > until {
            return (ours, theirs.len());
        }
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_password_from_the_org_stays_only_in_a_few_buffers_of_the_http_library() {
    // HTTP/1.1 without TLS, HTTP/2 with it.
    for (tls, few) in [(false, 20), (true, 60)] {
        let seed = Seed::parse(DEMO_SEED).unwrap();
        let org = Org::start(Options { listen: "127.0.0.1:0".parse().unwrap(), tls, seed }).await.unwrap();
        let fixture = Fixture::beside(org, "", &[]).await;
        let mut gadget = fixture.gadget(ALICE).await;
        for _ in 0..FETCHES {
            assert_eq!(fetched(&mut gadget).await, ALICES);
        }
        let (ours, theirs) = remaining(&fixture.broker, ALICES, Some(AS_IT_CAME)).await;
        assert!(ours.is_empty(), "{} times, after {ours:?}", ours.len());
        assert!(theirs <= few, "{theirs} times as it came, after {FETCHES} fetches");
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_password_from_the_directory_does_not_stay() {
    let broker = Broker::start().await;
    broker.credentials_set("local", "1245456", "a-password-of-the-directory", "5051").await;
    let mut gadget = broker.app("gadget").await;
    for _ in 0..FETCHES {
        assert_eq!(fetched(&mut gadget).await, "a-password-of-the-directory");
    }
    let (ours, _) = remaining(&broker, "a-password-of-the-directory", None).await;
    assert!(ours.is_empty(), "{} times, after {ours:?}", ours.len());
}

#[tokio::test]
async fn no_secret_of_a_lookup_is_in_the_log_or_the_data_folder() {
    let mut fixture = Fixture::with("", demo(), &["--log", "trace"]).await;
    let mut gadget = fixture.gadget(ALICE).await;
    assert_eq!(fetched(&mut gadget).await, ALICES);
    for wrong in [Wrong::SessionExpired {}, Wrong::CutBody {}, Wrong::HtmlBody { status: 500 }, Wrong::TwoRows {}] {
        fixture.org.fault(Fault::new(wrong).path("/query"));
        fetched(&mut gadget).await;
        fixture.org.clear_faults();
    }
    fixture.broker.terminate().await;
    assert_eq!(fixture.broker.exit_code().await, Some(0));
    let log = fixture.broker.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log tells the details:\n{log}");
    let mut found = Vec::new();
    for secret in [ALICES, "demo-secret", "00D000000000001!AQ"] {
        assert!(!log.contains(secret), "'{secret}' is in the log");
        files_with(&fixture.broker.data_dir(), secret, &mut found);
    }
    assert!(found.is_empty(), "a secret is in {found:?}");
}
