//! `switchboard cert`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

const FILES: [&str; 4] = ["ca.key", "ca.pem", "cert.pem", "key.pem"];

async fn cert(folder: &Path, line: &[&str]) -> Outcome {
    run_with(command(&[&["cert"], line, &["--out", folder.to_str().unwrap()]].concat()), "").await
}

/// The files of a folder with their modes and contents.
fn files(folder: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// What openssl says of a certificate that `ca.pem` signed.
fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.current_dir(folder).arg("verify").args(["-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem"]);
    let output = openssl.args(arguments).arg("cert.pem").output().expect("openssl is installed");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test]
async fn a_certificate_is_made_shown_and_renewed() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/tls");
    let new = cert(&folder, &["new", "--days", "90"]).await;
    new.has(0, "");
    let made = files(&folder);
    let modes: Vec<_> = made.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
    assert_eq!(modes, [("ca.key", 0o600), ("ca.pem", 0o644), ("cert.pem", 0o644), ("key.pem", 0o600)]);
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(openssl(&folder, &["-verify_hostname", "localhost"]), "cert.pem: OK\n");
    assert_eq!(openssl(&folder, &["-verify_ip", "::1"]), "cert.pem: OK\n");
    assert!(openssl(&folder, &["-verify_hostname", "example.com"]).contains("ostname mismatch"));

    let shown = cert(&folder, &["show"]).await;
    shown.has(0, "");
    assert!(shown.stdout.contains("names:   localhost, 127.0.0.1, ::1\n"), "{shown:?}");
    assert_eq!((shown.stdout.matches("ends: ").count(), shown.stdout.matches("SHA-256: ").count()), (2, 2));
    cert(&folder, &["renew"]).await.has(0, "");
    let renewed = files(&folder);
    let changed: Vec<_> = made.iter().zip(&renewed).filter(|(old, new)| old != new).map(|(old, _)| &*old.0).collect();
    assert_eq!(changed, ["cert.pem"]);
    assert_eq!(renewed[2].1, 0o644);
    assert_eq!(openssl(&folder, &["-verify_ip", "127.0.0.1"]), "cert.pem: OK\n");
    let shown_again = cert(&folder, &["show"]).await;
    assert_ne!(shown.stdout, shown_again.stdout);
    for outcome in [new, shown, shown_again] {
        assert!(!outcome.stdout.contains("PRIVATE"), "{outcome:?}");
    }
}

#[tokio::test]
async fn hosts_and_days_are_those_of_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let line = ["new", "--host", "Broker.example.com", "--host", "broker.example.com", "--host", "10.1.2.3"];
    cert(folder.path(), &[&line, ["--days", "825"].as_slice()].concat()).await.has(0, "");
    let shown = cert(folder.path(), &["show"]).await;
    assert!(shown.stdout.contains("names:   broker.example.com, 10.1.2.3\n"), "{shown:?}");
    assert!(openssl(folder.path(), &["-attime", &in_days(824)]).contains("OK"));
    assert!(openssl(folder.path(), &["-attime", &in_days(825)]).contains("expired"));
}

#[expect(clippy::disallowed_methods, reason = "openssl has no clock that a test could move")]
fn in_days(days: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    (now.as_secs() + days * 86400).to_string()
}

#[tokio::test]
async fn a_file_that_exists_is_never_overwritten() {
    for name in FILES {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), "precious").unwrap();
        let before = files(folder.path());
        cert(folder.path(), &["new"]).await.has(1, &format!("{name}: the file exists"));
        assert_eq!(files(folder.path()), before);
        fs::remove_file(folder.path().join(name)).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join(name)).unwrap();
        cert(folder.path(), &["new"]).await.has(1, &format!("{name}: the file exists"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

/// A limit on the size of files takes the place of a full disk: it has room for the key alone.
#[test]
fn half_a_set_of_files_is_not_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", r#"trap "" XFSZ; ulimit -f 0; exec "$0" cert new --out "$1""#]);
    let output = shell.arg(env!("CARGO_BIN_EXE_switchboard")).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(files(folder.path()), []);
}

#[tokio::test]
async fn a_wrong_host_or_number_of_days_is_wrong_usage_and_writes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("tls");
    for (option, value, words) in [
        ("--host", "", "neither a host name"),
        ("--host", "a b", "neither a host name"),
        ("--host", "1.2.3.400", "neither a host name"),
        ("--host", "*.example.com", "repeat --host"),
        ("--host", "0.0.0.0", "an address to listen on"),
        ("--days", "0", "1..=825"),
        ("--days", "826", "1..=825"),
        ("--days", "x", "--days"),
    ] {
        cert(&folder, &["new", option, value]).await.has(2, words);
        cert(&folder, &["new", "--host", "localhost", option, value]).await.has(2, words);
        assert!(!folder.exists(), "{option} {value}");
    }
}

#[tokio::test]
async fn what_makes_browsers_trust_the_authority_is_only_printed() {
    let folder = tempfile::tempdir().unwrap();
    cert(folder.path(), &["new"]).await.has(0, "");
    let before = files(folder.path());
    let trust = cert(folder.path(), &["trust"]).await;
    trust.has(0, "");
    for word in ["This system", "Chrome", "Edge", "Firefox", "Safari", "CACertificates", "ca.pem"] {
        assert!(trust.stdout.contains(word), "{word}: {trust:?}");
    }
    assert!(!trust.stdout.contains("PRIVATE") && files(folder.path()) == before, "{trust:?}");
}

#[tokio::test]
async fn without_a_folder_the_certificates_are_in_the_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_str().unwrap();
    for line in [["cert", "new"], ["cert", "show"]] {
        run_with(command(&[line.as_slice(), &["--data-dir", data_dir]].concat()), "").await.has(0, "");
    }
    assert_eq!(files(&folder.path().join("tls")).len(), 4);
    let (absent, config) = (folder.path().join("none"), folder.path().join("f.toml"));
    cert(&absent, &["show"]).await.has(1, "cert.pem: ");
    cert(&absent, &["renew"]).await.has(1, "cert.pem: ");
    cert(&absent, &["trust"]).await.has(1, "ca.pem: ");
    fs::write(&config, "lisen = []").unwrap();
    run_with(command(&["cert", "new", "--config", config.to_str().unwrap()]), "").await.has(2, "lisen");
}
