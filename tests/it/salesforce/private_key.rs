//! `salesforce.private_key_file`: a good key in whatever layout is read, and for anything else the error says what the file
//! contains.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use switchboard::config::Salesforce;
use switchboard::salesforce::Org;

use super::{KEY, config};
use crate::support::secret_file;

/// An RSA key of 1024 bits; it opens nothing.
const SMALL: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBAMmgg7/Hc2YMXQSr\n\
QBT8Sw0hAWOV9OECikkMzixCOWgud3uzCU2hQ+cnsuChsiD4+O4GtNDyReVEUG0F\n\
XhA/gd3L7EBPTDyxJTX6HmdL9yvOOL/4BfEBsHV8jAe7LMU8iYuNQD4sktaKE8A3\n\
Zh2Ur8fomwzIlTo7DiMdLs9i0UNxAgMBAAECgYABs4oJDzzJCqeqR2umAa78cF/b\n\
oENNtsDF9wayVui3GVVGxO76Kbcx9yLKRHMFVjR7hbD25mRyl8357Yaqqm6FFb3C\n\
4g/uXg8NTaxnMKM3VEbHrMfoDc9HRuhWxNPT9QD2KwP/PFr7yOK+1y77B9O6gmsq\n\
vLQ8CTU0L/fzzqknFQJBAPuaQiu3JKAwAy35BE22ibLk8NDLVyqNePXEUnmJltqN\n\
0rtRsy7D6ka1ExSJ4+pwCH+bgV0l87w3rzjmYXCuqvsCQQDNJqa6HtkczMGBwBF/\n\
r0nsDtruBPpC2GonmC0T/nphjtqf2+jNj+ZOPBVUA3mjaqT0fWOq3n+xpiAFjJV5\n\
VD+DAkEAkrrnlC7+gRz+/bSXueqWa2nwtxOfBgXzYQDZSF/hRhwnpW6EHOXMnufC\n\
9Ntlu7cSfbjmvLgBaObgnUJd2SVEOQJAGE9aNnftVmJVE+EEsdK9ucFQ5B+m4EDw\n\
41w/Cz1+lwzsj0Dp52ID8oVgKaJ3yYubnHU3WEoha5W5+a5dEBGRrQJAdLpF7h7P\n\
pwdx6P82Uo6Ac73fyPSJZciwLTtxxMEa1bcqJfUicY/oqPayv1Svgk2k+zThB9pZ\n\
8hhAJzFFJelV1w==\n\
-----END PRIVATE KEY-----";

/// The error of a file with these bytes, without its path; `ok` for a key.
fn read(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    secret_file(&file, bytes);
    let shown = file.display().to_string();
    let config = Salesforce { private_key_file: Some(file), ..config("http://127.0.0.1:1") };
    match Org::open(&config) {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            let text = error.to_string();
            let start = format!("salesforce.private_key_file: {shown}: ");
            text.strip_prefix(&start).unwrap_or_else(|| panic!("{text}")).to_owned()
        }
    }
}

/// The key in PKCS#8.
fn der() -> Vec<u8> {
    let body: String = KEY.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap()
}

/// The key in PKCS#1, which is what PKCS#8 has inside.
fn inner() -> Vec<u8> {
    der()[26..].to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|it| std::str::from_utf8(it).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn a_good_key_is_read_in_any_layout() {
    let pkcs1 = pem("RSA PRIVATE KEY", &inner());
    let wide = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    for text in [
        KEY.to_owned(),
        pkcs1.clone(),
        pem("RSA PRIVATE KEY", &der()),
        pem("PRIVATE KEY", &inner()),
        KEY.replace('\n', "\r\n"),
        KEY.replace('\n', "\r"),
        KEY.replace('\n', "\\n"),
        format!("\"{}\"", KEY.replace('\n', "\\n")),
        KEY.replace('\n', "\\\\n"),
        KEY.replace('\n', " "),
        KEY.replace('\n', ""),
        pkcs1.replace('\n', ""),
        KEY.lines().flat_map(|line| ["    ", line, "  \n"]).collect(),
        KEY.replace('\n', "\n\n"),
        format!("\u{feff}{KEY}"),
        format!("key: |\n  {}", KEY.replace('\n', "\n  ")),
        format!("Bag Attributes\n    friendlyName: x\n{KEY}"),
        format!("{}{KEY}", pem("CERTIFICATE", &[0x30, 0])),
        KEY.replace('=', ""),
        KEY.lines().filter(|line| !line.starts_with("-----")).collect(),
    ] {
        assert_eq!(read(text.as_bytes()), "ok", "{text}");
    }
    assert_eq!(read(&[vec![0xff, 0xfe], wide(KEY)].concat()), "ok", "UTF-16");
}

#[test]
fn anything_else_is_named() {
    let elliptic = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
    let edwards = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let locked = pem("RSA PRIVATE KEY", &inner())
        .replace("KEY-----\nM", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nM");
    let half = &KEY[..KEY.len() / 2];
    for (text, what) in [
        (String::new(), "nothing"),
        (" \n\n".to_owned(), "nothing"),
        (pem("PRIVATE KEY", elliptic.as_ref()), "an EC key"),
        (pem("EC PRIVATE KEY", &[0x30, 0]), "an EC key"),
        (pem("EC PARAMETERS", &[6, 0]), "an EC key"),
        (pem("PRIVATE KEY", edwards.as_ref()), "an Ed25519"),
        (pem("PUBLIC KEY", &[0x30, 0]), "a public key"),
        (pem("RSA PUBLIC KEY", &[0x30, 0]), "a public key"),
        ("ssh-rsa AAAAB3Nz user@host\n".to_owned(), "a public key in the format of OpenSSH"),
        (pem("CERTIFICATE", &[0x30, 0]), "a certificate"),
        (pem("CERTIFICATE REQUEST", &[0x30, 0]), "a certificate signing request"),
        (pem("NEW CERTIFICATE REQUEST", &[0x30, 0]), "a certificate signing request"),
        (pem("ENCRYPTED PRIVATE KEY", &[0x30, 0]), "a private key with a passphrase"),
        (locked, "a private key with a passphrase"),
        (pem("OPENSSH PRIVATE KEY", b"openssh-key-v1"), "a private key in the format of OpenSSH"),
        ("PuTTY-User-Key-File-3: ssh-rsa\n".to_owned(), "a PuTTY key"),
        (pem("PKCS7", &[0x30, 0]), "a PKCS#7 container"),
        (pem("X", &[1]), "PEM of another kind"),
        ("<!DOCTYPE html><html><body>Log in</body></html>".to_owned(), "an HTML or XML page"),
        (r#"{"kty":"RSA"}"#.to_owned(), "JSON"),
        (SMALL.to_owned(), "an RSA key of fewer than 2048 bits"),
        (half.to_owned(), "PEM without its first or last line"),
        (KEY.split_once('\n').unwrap().1.to_owned(), "PEM without its first or last line"),
        (format!("{half}\n-----END PRIVATE KEY-----\n"), "a private key that is damaged"),
        (KEY.replace('M', "*"), "a private key that is damaged"),
        ("s3cret".to_owned(), "text that is not PEM"),
    ] {
        let told = read(text.as_bytes());
        assert!(told.starts_with(&format!("contains {what}")), "{what}: {told}\n{text}");
        assert!(told.contains("must hold an RSA private key of 2048 bits or more in PEM"), "{told}");
    }
}

#[test]
fn binary_files_are_named_too() {
    let long = |content: &[u8]| [&[0x30, 0x82, 1, 0], content, &[0xff; 200]].concat();
    for (bytes, what) in [
        (der(), "an RSA key in DER"),
        (inner(), "an RSA key in DER"),
        (long(&[0x02, 0x01, 0x03, 0x30, 0x82, 1, 0]), "a PKCS#12 container"),
        (long(&[0x30, 0x82, 1, 0, 0xa0, 0x03, 0x02, 0x01, 0x02]), "a certificate"),
        (long(&[0x30, 0x82, 1, 0, 0x02, 0x01, 0x00]), "a certificate signing request"),
        (long(&[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]), "a public key"),
        (long(&[0x30, 0x57, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d]), "a private key with a"),
        (vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2], "a Java key store"),
        (vec![0xff; 100], "binary data"),
        (vec![0x30, 0x82, 0xff], "binary data"),
        (vec![0xff, 0xfe, 0x00, 0xd8], "binary data"),
    ] {
        let told = read(&bytes);
        assert!(told.starts_with(&format!("contains {what}")), "{what}: {told}");
    }
}
