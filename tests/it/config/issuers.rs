//! `[auth.jwt.NAME]`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Given, check_file, load};
use crate::auth::signing::{RSA, Signer};

const ROLES: &str = "[roles.agent]\npublish = []\nsubscribe = []\nrequest = []\nhandle = []\n";

/// A table of an issuer, with these lines in place of those that have their keys; an empty value takes a line out.
fn table(name: &str, changes: &[&str]) -> String {
    let usual = [
        "issuer = 'https://login.example.com/'",
        "audience = ['switchboard']",
        "algorithms = ['RS256']",
        "key_file = 'key.pem'",
        "user = 'sub'",
        "sources = ['softphone']",
        "role = 'agent'",
    ];
    let key = |line: &str| line.split(' ').next().unwrap().to_owned();
    let changed = |line: &&&str| !changes.iter().any(|it| key(it) == key(line));
    let kept = usual.iter().filter(changed).chain(changes.iter().filter(|it| !it.ends_with("= -")));
    let lines: Vec<&str> = kept.copied().collect();
    format!("[auth.jwt.{name}]\n{}\n", lines.join("\n"))
}

/// The one mistake of this table, without its line.
#[track_caller]
fn mistake(changes: &[&str]) -> String {
    let file = format!("{ROLES}{}", table("idp", changes));
    let mistakes = load(&Given { file: Some(&file), ..Given::default() }).expect_err(&file);
    let list: Vec<String> =
        mistakes.list().iter().map(|it| format!("{}: {}", it.key.as_deref().unwrap_or_default(), it.message)).collect();
    assert_eq!(list.len(), 1, "{file}: {list:?}");
    list[0].clone()
}

#[test]
fn a_table_is_an_issuer_and_the_summary_names_it() {
    check_file(
        &format!("{}{ROLES}", table("idp", &[])),
        "mode: tokens
         listen: 127.0.0.1:7420, [::1]:7420
         applications: 0, services among them: 0
         roles: agent
         JWTs of https://login.example.com/: auth.jwt.idp, keys from key_file",
    );
    for changes in [
        &["leeway = '5m'", "lifetime = '1h'", "users = ['*', 'alice', '*@example.com']"][..],
        &["user = -", "service = 'switchboard.service'", "sources = -", "source = 'switchboard.source'"],
        &["role = -", "roles = 'switchboard.roles'"],
        &["require = { email_verified = true, a.b = 'x', 'c.d' = [1, 'x'] }"],
        &["algorithms = ['HS256']", "key_file = -", "secret_file = 's'"],
        &["algorithms = ['RS256', 'PS512', 'ES384', 'EdDSA']", "key_file = -", "jwks_file = 'set.json'"],
        &["key_file = -", "jwks_url = 'https://login.example.com/a/keys?v=2'", "refresh = '1h'", "ca_file = 'ca.pem'"],
        &["key_file = -", "jwks_url = 'http://127.0.0.1:8443/keys'"],
        &["key_file = -", "jwks_url = 'http://[::1]/keys'"],
        &["key_file = -", "jwks_url = 'http://localhost:1/'"],
    ] {
        let file = format!("{ROLES}{}", table("idp", changes));
        let loaded = load(&Given { file: Some(&file), ..Given::default() });
        assert!(loaded.is_ok(), "{file}: {}", loaded.unwrap_err());
    }
}

#[test]
fn what_is_missing_or_contradicts_itself_is_a_mistake() {
    for (changes, expected) in [
        (&["issuer = -"][..], "auth.jwt.idp.issuer: is missing"),
        (&["issuer = ''"], "auth.jwt.idp.issuer: must not be empty"),
        (&["audience = -"], "auth.jwt.idp.audience: is missing"),
        (&["audience = []"], "auth.jwt.idp.audience: is missing"),
        (&["audience = 'switchboard'"], "auth.jwt.idp.audience: must be an array"),
        (&["algorithms = -"], "auth.jwt.idp.algorithms: is missing"),
        (&["algorithms = ['none']"], "auth.jwt.idp.algorithms[0]: must be one of RS256"),
        (&["algorithms = ['HS512']"], "auth.jwt.idp.algorithms[0]: must be one of RS256"),
        (&["key_file = -"], "auth.jwt.idp.jwks_url: is missing"),
        (
            &["key_file = -", "jwks_url = 'http://login.example.com/keys'"],
            "auth.jwt.idp.jwks_url: must begin with https://",
        ),
        (
            &["key_file = -", "jwks_url = 'http://localhost.evil.example/'"],
            "auth.jwt.idp.jwks_url: must begin with https://",
        ),
        (&["key_file = -", "jwks_url = 'login.example.com/keys'"], "auth.jwt.idp.jwks_url: must begin with https://"),
        (&["key_file = -", "jwks_url = 'https://u:p@login.example.com/'"], "auth.jwt.idp.jwks_url: must name a host"),
        (
            &["key_file = -", "jwks_url = 'https://a.example/'", "refresh = '10ms'"],
            "auth.jwt.idp.refresh: must be at least 1s",
        ),
        (&["refresh = '1m'"], "auth.jwt.idp.refresh: has no effect without jwks_url"),
        (&["ca_file = 'ca.pem'"], "auth.jwt.idp.ca_file: has no effect without jwks_url"),
        (&["jwks_file = 'set.json'"], "auth.jwt.idp.key_file: is a second source of keys"),
        (&["algorithms = ['HS256']"], "auth.jwt.idp.secret_file: is missing"),
        (&["key_file = -", "secret_file = 's'"], "auth.jwt.idp.secret_file: does not fit these algorithms"),
        (
            &["algorithms = ['HS256', 'RS256']", "key_file = -", "secret_file = 's'"],
            "auth.jwt.idp.algorithms: must have HS256 alone",
        ),
        (&["user = -"], "auth.jwt.idp.user: is missing"),
        (&["user = 'a..b'"], "auth.jwt.idp.user: must be keys that are joined by dots"),
        (&["sources = -"], "auth.jwt.idp.sources: is missing"),
        (&["sources = []"], "auth.jwt.idp.sources: must name at least one"),
        (&["sources = ['switchboard']"], "auth.jwt.idp.sources[0]: must not be 'switchboard'"),
        (&["role = -"], "auth.jwt.idp.role: is missing"),
        (&["role = 'boss'"], "auth.jwt.idp.role: is not a role"),
        (&["leeway = '6m'"], "auth.jwt.idp.leeway: must be at most 5m"),
        (&["users = ['*@*.example']"], "auth.jwt.idp.users[0]: must be a user, or an ending"),
        (&["require = true"], "auth.jwt.idp.require: must be a table"),
        (&["require = { a = 1.5 }"], "auth.jwt.idp.require.a: must be a text, a whole number"),
        (&["require = { 'a.' = 1 }"], "auth.jwt.idp.require.a.: must be keys that are joined by dots"),
        (&["require = { a = { b = 2026-01-01 } }"], "auth.jwt.idp.require.a.b: must be a text, a whole number"),
        (&["isuer = 'x'"], "auth.jwt.idp.isuer: unknown key"),
    ] {
        let found = mistake(changes);
        assert!(found.starts_with(expected), "{changes:?}: {found}");
    }
}

#[test]
fn issuers_are_told_apart_and_each_of_several_names_its_users() {
    let second = |lines: &[&str]| format!("{ROLES}{}{}", table("a", &["users = ['*']"]), table("b", lines));
    check_file(
        &second(&["users = ['*']"]),
        "15: auth.jwt.b.issuer: is also the issuer of another table: each needs its own",
    );
    check_file(
        &second(&["issuer = 'b'"]),
        "15: auth.jwt.b.users: is missing: with several issuers, each names the users that it may prove, or [\"*\"]",
    );
    let file = format!("auth.mode = 'open'\n{ROLES}{}", table("a", &[]));
    check_file(&file, "7: auth.jwt: cannot be used with auth.mode \"open\", which checks no token: set \"tokens\"");
}

#[test]
fn an_address_that_nobody_verified_is_warned_of() {
    let warnings = |changes: &[&str]| {
        let file = format!("{ROLES}{}", table("idp", changes));
        load(&Given { file: Some(&file), ..Given::default() }).unwrap().warnings
    };
    let [warning] = &warnings(&["user = 'email'"])[..] else { panic!("one warning") };
    assert!(warning.starts_with("auth.jwt.idp.user is \"email\", and require has no email_verified"), "{warning}");
    assert!(warnings(&["user = 'email'", "require = { email_verified = true }"]).is_empty());
}

/// Checks a file by the command: its exit code, and what it prints.
fn check(file: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let output = command.args(["check", "--config"]).arg(file).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_role_that_tokens_can_name_is_in_use() {
    let warnings = |changes: &[&str]| {
        let file = format!("{ROLES}{}{}", ROLES.replace("agent", "boss"), table("idp", changes));
        load(&Given { file: Some(&file), ..Given::default() }).unwrap().warnings
    };
    assert_eq!(warnings(&[]), ["roles.boss is not used: no application and no issuer has this role"]);
    assert!(warnings(&["roles = 'switchboard.roles'"]).is_empty());
}

#[test]
fn a_key_that_cannot_be_used_is_a_mistake() {
    let (rsa, elliptic) = (Signer::rsa(RSA), Signer::new("ES256"));
    let set = |key: serde_json::Value| serde_json::json!({ "keys": [key] }).to_string();
    for (key, text, expected) in [
        ("key_file", None, "No such file"),
        ("key_file", Some(rsa.private_pem()), "holds a private key"),
        ("key_file", Some(elliptic.public_pem()), "fits none of the configured algorithms"),
        ("key_file", Some("x".to_owned()), "must hold a certificate or a public key in PEM"),
        ("key_file", Some(String::new()), "must hold a certificate or a public key in PEM"),
        ("key_file", Some(rsa.public_pem()), ""),
        ("jwks_file", Some("{}".to_owned()), "has no list 'keys'"),
        ("jwks_file", Some(set(elliptic.jwk(serde_json::json!({})))), "no key that fits 'algorithms'"),
        ("jwks_file", Some(set(rsa.jwk(serde_json::json!({})))), ""),
        ("secret_file", Some("x".repeat(31) + "\n"), "at least 32 bytes"),
        ("secret_file", Some(rsa.public_pem()), "holds PEM"),
        ("secret_file", Some("x".repeat(32) + "\n"), ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        if let Some(text) = &text {
            crate::support::secret_file(&path, text);
        }
        let own = format!("{key} = '{}'", path.display());
        let algorithms = if key == "secret_file" { "algorithms = ['HS256']" } else { "algorithms = ['RS256']" };
        let lines: &[&str] = if key == "key_file" { &[&own, algorithms] } else { &[&own, algorithms, "key_file = -"] };
        let file = folder.path().join("f.toml");
        fs::write(&file, format!("{ROLES}{}", table("idp", lines))).unwrap();
        let (code, told) = check(&file);
        assert_eq!(code, Some(if expected.is_empty() { 0 } else { 2 }), "{key}: {told}");
        let named = format!("auth.jwt.idp.{key}: {}: ", path.display());
        assert!(expected.is_empty() || told.contains(&named) && told.contains(expected), "{expected}: {told}");
    }
}

#[cfg(unix)]
#[test]
fn a_secret_that_others_can_read_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, file) = (folder.path().join("secret"), folder.path().join("f.toml"));
    fs::write(&secret, "x".repeat(40)).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let own = format!("secret_file = '{}'", secret.display());
    fs::write(&file, format!("{ROLES}{}", table("idp", &[&own, "algorithms = ['HS256']", "key_file = -"]))).unwrap();
    let (code, told) = check(&file);
    assert!(code == Some(2) && told.contains("open to other users"), "{told}");
}
