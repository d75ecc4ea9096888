//! The keys of `[tls]`, and what they say to each other.

use super::*;

#[test]
fn a_tls_listener_needs_a_certificate_and_a_key() {
    check_file(
        "auth.mode = 'open'\n[tls]\nlisten = ['127.0.0.1:7443']",
        "3: tls.listen: needs tls.certificate_file
         3: tls.listen: needs tls.key_file",
    );
    check_file(
        "auth.mode = 'open'\n[tls]\ncertificate_file = 'c'\nkey_file = 'k'\nclient_listen = ['127.0.0.1:7444']",
        "5: tls.client_listen: needs tls.client_ca_file: the authorities of the clients' certificates",
    );
    check_file(
        "auth.mode = 'open'\n[tls]\ncertificate_file = 'c'",
        "3: tls.certificate_file: needs tls.key_file beside it",
    );
    check_file(
        "auth.mode = 'open'\nlisten = []\n[tls]\ncertificate_file = 'c'\nkey_file = 'k'\nminimum = '1.3'\n\
         listen = ['127.0.0.1:7443']\nclient_listen = ['[::1]:7444']\nclient_ca_file = 'a'\nclient_required = true",
        "mode: open, for development: no token is asked
         listen: none
         listen with TLS: 127.0.0.1:7443
         listen for client certificates: [::1]:7444",
    );
}

#[test]
fn tls_files_that_no_listener_uses_are_a_warning() {
    check_file(
        "auth.mode = 'open'\n[tls]\ncertificate_file = 'c'\nkey_file = 'k'\nclient_ca_file = 'a'\nclient_required = true",
        "warning: tls.certificate_file has no effect without tls.listen
         warning: tls.client_ca_file has no effect without tls.client_listen
         warning: tls.client_required has no effect without tls.client_listen
         mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420",
    );
}

#[test]
fn tls_takes_two_versions_and_addresses_that_no_other_listener_has() {
    check_file(
        "auth.mode = 'open'\n[tls]\ncertificate_file = 'c'\nkey_file = 'k'\nminimum = '1.1'\n\
         listen = ['127.0.0.1:1', '127.0.0.1:1']",
        "5: tls.minimum: must be \"1.2\" or \"1.3\"
           hint: did you mean \"1.2\"?
         6: tls.listen: names 127.0.0.1:1 twice",
    );
    check_file(
        "auth.mode = 'open'\nlisten = ['127.0.0.1:1']\n[tls]\ncertificate_file = 'c'\nkey_file = 'k'\n\
         listen = ['127.0.0.1:1', '0.0.0.0:2']",
        "6: tls.listen: names 127.0.0.1:1, as listen does
         6: tls.listen: auth.mode \"open\" refuses to listen beyond loopback, and 0.0.0.0:2 is: use \"tokens\", or 127.0.0.1",
    );
}

#[test]
fn an_application_is_proved_by_one_token_or_one_certificate() {
    let tls = "auth.mode = 'tokens'\n[tls]\ncertificate_file = 'c'\nkey_file = 'k'\nclient_listen = ['127.0.0.1:1']\n\
               client_ca_file = 'a'\n";
    let row = |proof: &str| format!("{tls}[[applications]]\nsource = 'cti'\nservice = true\n{proof}");
    let subject = "certificate = 'CN=cti,OU=Tele\\, phony,O=Example,ST=x,L=y,C=DE+DC=z'";
    for proof in [format!("token_sha256 = '{HASH}'"), format!("certificate_sha256 = '{HASH}'"), subject.to_owned()] {
        assert!(load(&Given { file: Some(&row(&proof)), ..Given::default() }).is_ok(), "{proof}");
    }
    let beside = "cannot be combined with another proof: an application has one of token_sha256, certificate_sha256 and \
                  certificate; list it twice for two";
    check_file(
        &row(&format!("token_sha256 = '{HASH}'\n{subject}")),
        &format!("11: applications[0].certificate: {beside}"),
    );
    check_file(
        &row(&format!("certificate_sha256 = '{HASH}'\ntoken_sha256 = '{HASH}'")),
        &format!("10: applications[0].certificate_sha256: {beside}"),
    );
    check_file(
        &format!("[[applications]]\nsource = 'cti'\nservice = true\ncertificate_sha256 = '{HASH}'"),
        "1: tls.client_ca_file: is missing: an application with certificate or certificate_sha256 needs the authorities of its \
         certificates",
    );
    check_file(
        &row(&format!("{subject}\n[[applications]]\nsource = 'cti'\nservice = true\n{subject}")),
        "11: applications[1].source: is listed before with the same certificate, which proves a source once",
    );
}

#[test]
fn a_certificate_that_could_match_none_is_a_mistake() {
    let check_row = |proof: &str, expected: &str| {
        let tls = "[tls]\nclient_ca_file = 'a'\n";
        let file = format!("{tls}[[applications]]\nsource = 'cti'\nservice = true\n{proof}");
        check_file(&file, &format!("6: applications[0].{expected}"));
    };
    for wrong in ["cn=cti,O=Example", "CN=cti, O=Example", "CN = cti"] {
        check_row(
            &format!("certificate = '{wrong}'"),
            "certificate: must have its attributes in capitals and without spaces around ',' and '=': CN=cti,O=Example",
        );
    }
    check_row(
        "certificate = 'CN=cti,emailAddress=a@example.com'",
        "certificate: has an attribute that is not CN, O, OU, C, ST, L or DC; name it by certificate_sha256",
    );
    for wrong in ["", "cti", "CN=Example, Inc."] {
        check_row(
            &format!("certificate = '{wrong}'"),
            "certificate: must be the subject of a certificate, in its own order, such as CN=cti,O=Example; a ',' or '+' in a \
             value has a '\\' before it",
        );
    }
    let colons: String = HASH
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|it| std::str::from_utf8(it).unwrap())
        .collect::<Vec<_>>()
        .join(":");
    check_row(
        &format!("certificate_sha256 = '{colons}'"),
        &format!(
            "certificate_sha256: must be 64 hex digits: the SHA-256 of the certificate in DER; openssl x509 -in FILE -noout \
             -sha256 -fingerprint prints it with colons, which have to go\n  hint: did you mean {HASH}?"
        ),
    );
}
