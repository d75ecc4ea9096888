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
