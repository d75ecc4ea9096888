//! A client's key and certificate, made by OpenSSL's program for this run alone, and assertions signed with it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use tempfile::TempDir;

/// A private key and its certificate.
pub(super) struct Keys {
    folder: TempDir,
}

impl Keys {
    pub(super) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=switchboard test"])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(folder.path())
            .output()
            .expect("these tests need the program openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { folder }
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    pub(super) fn certificate(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("certificate.pem")).unwrap()
    }

    /// A JWT of these parts.
    pub(super) fn assertion(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut openssl = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign", "key.pem"])
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        openssl.stdin.take().unwrap().write_all(signed.as_bytes()).unwrap();
        let signature = openssl.wait_with_output().unwrap().stdout;
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}
