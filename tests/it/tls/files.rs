//! The files of `[tls]`, and what the operator is told of those that cannot be used.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use switchboard::config::{Config, Tls};
use switchboard::server::try_config;

use crate::support::secret_file;
use crate::support::tls::{Authority, TlsFiles};

/// What `check` finds.
fn found(files: &TlsFiles) -> String {
    let tls = Tls {
        certificate_file: Some(files.path("cert.pem")),
        key_file: Some(files.path("key.pem")),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        ..Tls::default()
    };
    let config = Config { tls, listen: Vec::new(), data_dir: files.path("data"), ..Config::default() };
    try_config(&config, None).map_or_else(|unusable| unusable.to_string(), |()| String::new())
}

#[track_caller]
fn check(files: &TlsFiles, key: &str, words: &str) {
    let found = found(files);
    assert!(found.starts_with(&format!("{key}: ")) && found.contains(words), "not {key} with {words:?}: {found}");
    assert_eq!(found.lines().count(), 1, "{found}");
}

#[test]
fn a_certificate_and_its_key_can_be_used_in_any_usual_form() {
    let files = TlsFiles::new();
    assert_eq!(found(&files), "");
    let issued = files.authority.issue();
    // With the authority behind it, a byte order mark, and Windows' line ends.
    fs::write(files.path("cert.pem"), format!("\u{feff}{}{}", issued.certificate, files.authority.pem())).unwrap();
    secret_file(files.path("key.pem"), issued.key.replace('\n', "\r\n"));
    assert_eq!(found(&files), "");
    // Both in one file.
    for name in ["cert.pem", "key.pem"] {
        secret_file(files.path(name), format!("{}{}", issued.certificate, issued.key));
    }
    assert_eq!(found(&files), "");
}

#[test]
fn each_way_in_which_a_certificate_can_be_wrong_is_named() {
    let files = TlsFiles::new();
    let (own, other) = (files.authority.issue(), Authority::new().issue());
    let write = |certificate: &str, key: &str| {
        fs::write(files.path("cert.pem"), certificate).unwrap();
        secret_file(files.path("key.pem"), key);
    };
    let certificate = "tls.certificate_file";
    write(&own.key, &own.key);
    check(&files, certificate, "contains a private key and no certificate");
    write("", &own.key);
    check(&files, certificate, "contains no certificate in PEM");
    write("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", &own.key);
    check(&files, certificate, "is damaged");
    write("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", &own.key);
    check(&files, certificate, "cannot be read");
    write("\x30\u{1}\u{2}", &own.key);
    check(&files, certificate, "DER or PKCS#12");
    write("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n", &own.key);
    check(&files, certificate, "signing request");
    write(&format!("{}{}", files.authority.pem(), own.certificate), &own.key);
    check(&files, certificate, "is number 2 in the file; it has to be the first");
    write(&own.certificate, &other.key);
    check(&files, "tls.key_file", "does not belong to the certificate");
    fs::remove_file(files.path("cert.pem")).unwrap();
    check(&files, certificate, "cert.pem: No such file");
}

#[test]
fn each_way_in_which_a_key_can_be_wrong_is_named() {
    let files = TlsFiles::new();
    let own = files.authority.issue();
    fs::write(files.path("cert.pem"), &own.certificate).unwrap();
    for (contents, words) in [
        (own.certificate.as_str(), "contains a certificate and no private key"),
        ("", "contains no private key"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n", "has a passphrase"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nMAA=\n-----END OPENSSH PRIVATE KEY-----\n", "the format of OpenSSH"),
        ("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", "of a kind that this broker cannot use"),
        ("-----BEGIN PRIVATE KEY-----\n", "is damaged"),
        ("0\u{1}\u{2}", "DER or PKCS#12"),
    ] {
        secret_file(files.path("key.pem"), contents);
        check(&files, "tls.key_file", words);
    }
    fs::remove_file(files.path("key.pem")).unwrap();
    check(&files, "tls.key_file", "key.pem: No such file");
}

#[cfg(unix)]
#[test]
fn the_group_may_read_the_key_and_others_may_not() {
    use std::os::unix::fs::PermissionsExt;
    let files = TlsFiles::new();
    let mode = |mode| fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    assert_eq!(found(&files), "");
    mode(0o644);
    check(&files, "tls.key_file", "open to other users of this machine; run 'chmod 640'");
}

#[test]
fn a_pair_that_does_not_fit_is_exit_code_2_at_start_and_in_check() {
    let files = TlsFiles::new();
    secret_file(files.path("key.pem"), Authority::new().issue().key);
    let table = files.table("listen = ['127.0.0.1:0']");
    let file = files.path("f.toml");
    fs::write(&file, format!("listen = []\ndata_dir = {:?}\nauth.mode = 'open'\n{table}", files.path("data"))).unwrap();
    for command in ["check", "serve"] {
        let output = Command::new(env!("CARGO_BIN_EXE_switchboard")).arg(command).arg("--config").arg(&file).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command}: {text}");
        assert!(text.contains("does not belong to the certificate"), "{command}: {text}");
    }
}
