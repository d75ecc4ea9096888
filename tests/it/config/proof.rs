//! `[auth.salesforce_jwt]`, `[auth.salesforce_introspection]` and `[auth.salesforce_userinfo]`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use switchboard::config::ProvenUser;

use super::{Given, HASH, check, check_file, load};
use crate::support::secret_file;

const JWT: &str =
    "[auth.salesforce_jwt]\norg_id = '00D000000000001'\ncertificate_file = 'org.pem'\naudience = 'desk'\n";

const USERINFO: &str =
    "[auth.salesforce_userinfo]\norg_id = '00D000000000001EAA'\nhost = 'https://ACME.my.salesforce.com/'\n";

const INTROSPECTION: &str = "[auth.salesforce_introspection]\norg_id = '00D000000000002'\n\
                             host = 'https://acme.my.salesforce.com'\nclient_id = '3MVG9'\nclient_secret_file = 'secret'\n";

#[test]
fn a_table_that_is_written_is_on() {
    check_file(
        &format!("{JWT}{USERINFO}"),
        "mode: tokens
         listen: 127.0.0.1:7420, [::1]:7420
         applications: 0, services among them: 0
         users of org 00D000000000001EAA proved by auth.salesforce_jwt: the user is the user_id
         users of org 00D000000000001EAA proved by auth.salesforce_userinfo: the user is the user_id",
    );
    let file = format!(
        "{JWT}user = 'federation_id'\nlifetime = '90s'\nclock_skew = '0s'\nsources = ['softphone']\n{USERINFO}"
    );
    let proofs = load(&Given { file: Some(&file), ..Given::default() }).unwrap().proofs;
    let (jwt, userinfo) = (proofs.jwt.unwrap(), proofs.userinfo.unwrap());
    assert_eq!((jwt.proving.user, jwt.lifetime), (ProvenUser::FederationId, Duration::from_secs(90)));
    assert_eq!((jwt.clock_skew, jwt.proving.sources), (Duration::ZERO, vec!["softphone".to_owned()]));
    assert_eq!(userinfo.asked.host.as_deref(), Some("https://acme.my.salesforce.com"));
    assert!(proofs.introspection.is_none());
}

#[test]
fn a_table_that_is_on_says_what_it_lacks() {
    check_file(
        "[auth.salesforce_jwt]\n[auth.salesforce_introspection]\n[auth.salesforce_userinfo]\n",
        "1: auth.salesforce_jwt.org_id: is missing: the id of the org, which is the 'iss' of what its code signs
         1: auth.salesforce_jwt.certificate_file: is missing: the certificate from Setup > Security > Certificate and Key Management, in PEM
         1: auth.salesforce_jwt.audience: is missing: the 'aud' that the Apex class writes for this broker
         2: auth.salesforce_introspection.host: is missing: the org's My Domain, https://NAME.my.salesforce.com
         2: auth.salesforce_introspection.org_id: is missing: the id of the org; a user of any other proves nothing here
         2: auth.salesforce_introspection.client_id: is missing: the consumer key of the app that asks
         2: auth.salesforce_introspection.client_secret_file: is missing: the file of its consumer secret
         3: auth.salesforce_userinfo.host: is missing: the org's My Domain, https://NAME.my.salesforce.com
         3: auth.salesforce_userinfo.org_id: is missing: the id of the org; a user of any other proves nothing here",
    );
    // With another issuer, no org id is needed.
    let file = JWT.replace("org_id = '00D000000000001'", "issuer = 'https://acme.example'");
    assert!(load(&Given { file: Some(&file), ..Given::default() }).is_ok());
    // A variable turns a table on too, and then the broker must not be open.
    check(
        &Given { variables: &[("SWITCHBOARD__AUTH__SALESFORCE_USERINFO__CACHE", "1m")], ..Given::default() },
        "environment: SWITCHBOARD__AUTH__SALESFORCE_USERINFO__CACHE: is missing: the org's My Domain, https://NAME.my.salesforce.com
         environment: SWITCHBOARD__AUTH__SALESFORCE_USERINFO__CACHE: is missing: the id of the org; a user of any other proves nothing here
         environment: SWITCHBOARD__AUTH__SALESFORCE_USERINFO__CACHE: cannot be used with auth.mode \"open\", which checks no token: set \"tokens\"",
    );
}

#[test]
fn what_would_weaken_a_proof_is_a_mistake() {
    check_file(
        &format!("auth.mode = 'open'\n{JWT}"),
        "2: auth.salesforce_jwt: cannot be used with auth.mode \"open\", which checks no token: set \"tokens\"",
    );
    check_file(
        &format!("{JWT}lifetime = '2h'\nclock_skew = '6m'\nsources = []\n{USERINFO}cache = '6m'\nuser = 'federation_id'\n"),
        "5: auth.salesforce_jwt.lifetime: must be at most 1h
         6: auth.salesforce_jwt.clock_skew: must be at most 5m
         7: auth.salesforce_jwt.sources: must name at least one; without the key, any name but a service's will do
         11: auth.salesforce_userinfo.cache: must be at most 5m
         12: auth.salesforce_userinfo.user: must not be \"federation_id\": Salesforce does not tell it here; [auth.salesforce_jwt] does",
    );
    check_file(
        &format!(
            "{JWT}sources = ['switchboard', 'cti']\n{USERINFO}sources = ['softphone', 'cti']\n[[applications]]\nsource = 'cti'\n\
             service = true\ntoken_sha256 = '{HASH}'\n"
        ),
        "5: auth.salesforce_jwt.sources[0]: must not be 'switchboard', the source of handlers in the broker itself
         9: auth.salesforce_userinfo.sources[1]: is the name of a service in [[applications]]: a user's application must not pose as it",
    );
    check_file(
        &USERINFO.replace("https://ACME.my.salesforce.com/", "http://acme.example").replace("EAA", "EAB"),
        "2: auth.salesforce_userinfo.org_id: must be the org's id, 15 or 18 characters that begin with 00D: Setup > Company Settings > Company Information
         3: auth.salesforce_userinfo.host: must begin with https://, or insecure_http be true (a stand-in on loopback)",
    );
    check_file(
        &(USERINFO.replace("https", "http") + "insecure_http = true\n"),
        "4: auth.salesforce_userinfo.insecure_http: must be false unless host is on loopback: tokens would cross the network in the clear",
    );
    for host in ["https://0x7f.1", "https://acme.my.salesforce.com@evil.example", "https://a.example/services", "acme"]
    {
        let file = USERINFO.replace("https://ACME.my.salesforce.com/", host);
        assert!(load(&Given { file: Some(&file), ..Given::default() }).is_err(), "{host}");
    }
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let file = format!(
        "credentials.store = 'salesforce'\n[salesforce]\nclient_id = 'x'\nusername = 'u'\nprivate_key_file = 'k'\n{JWT}{USERINFO}\
         user = 'username'\ntimeout = '10s'\n{}",
        INTROSPECTION.replace("00D000000000002", "00D000000000001")
    );
    let warnings = load(&Given { file: Some(&file), ..Given::default() }).unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "auth.salesforce_jwt.user and auth.salesforce_userinfo.user differ: one person is two users to the broker",
            "auth.salesforce_userinfo.user is \"username\", and salesforce.credentials.key something else: such users have no \
             credentials",
            "[auth.salesforce_userinfo] is never asked: [auth.salesforce_introspection] is on for the same org",
            "a timeout of [auth.salesforce_*] is not below limits.registration: applications are closed with 4401 where \
             Salesforce is slow",
        ]
    );
}

/// Checks a configuration by the command: exit code and what it says, with `DIR` for the folder of the files.
fn command(toml: &str, files: &[(&str, &str)], more: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    for (name, text) in files {
        secret_file(folder.path().join(name), text);
    }
    fs::write(folder.path().join("f.toml"), toml.replace("DIR", dir)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let output = command.args(["check", "--config"]).arg(folder.path().join("f.toml")).args(more).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap().replace(dir, "DIR"))
}

#[test]
fn check_names_every_file_that_cannot_be_used_by_its_key() {
    let toml = format!(
        "{}{}",
        JWT.replace("org.pem", "DIR/org.pem"),
        INTROSPECTION.replace("'secret'", "'DIR/secret'\nca_file = 'DIR/ca'")
    );
    let key = fs::read_to_string("tests/it/salesforce/key.pem").unwrap();
    for (pem, fault) in [
        (None, "No such file or directory (os error 2)"),
        (Some(""), "must hold a certificate or a public key in PEM"),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "must hold a certificate or a public key in PEM",
        ),
        (Some(key.as_str()), "holds a private key: the broker needs the public key alone"),
    ] {
        let files: Vec<(&str, &str)> = pem.iter().map(|pem| ("org.pem", *pem)).collect();
        let (code, told) = command(&toml, &files, &[]);
        let expected = format!(
            "auth.salesforce_jwt.certificate_file: DIR/org.pem: {fault}\n\
             auth.salesforce_introspection.client_secret_file: DIR/secret: No such file or directory (os error 2)\n2 mistakes\n"
        );
        assert_eq!((code, told), (Some(2), expected));
    }
    let (code, told) = command(&toml, &[("secret", "s")], &["--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["ok"]), (Some(2), &false.into()));
    assert_eq!(told["mistakes"][0]["key"], "auth.salesforce_jwt.certificate_file");
    assert_eq!(told["mistakes"][1]["key"], "auth.salesforce_introspection.ca_file");
}

#[cfg(unix)]
#[test]
fn check_refuses_a_secret_that_others_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, file) = (folder.path().join("secret"), folder.path().join("f.toml"));
    fs::write(&file, INTROSPECTION.replace("'secret'", &format!("'{}'", secret.display()))).unwrap();
    for (mode, code) in [(0o600, 0), (0o640, 2), (0o644, 2)] {
        fs::write(&secret, "s3cret").unwrap();
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        let output = command.args(["check", "--config"]).arg(&file).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{mode:o}: {told}");
        let named = told.contains("auth.salesforce_introspection.client_secret_file: ");
        assert_eq!(named && told.contains("open to other users"), code == 2, "{mode:o}: {told}");
    }
}
