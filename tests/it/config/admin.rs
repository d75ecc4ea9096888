//! `[admin]`: its mistakes and warnings, and where the listener is without it.

use super::*;

const OTHER: &str = "6f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

#[test]
fn without_a_file_the_admin_listener_is_on_loopback_and_with_one_there_is_none() {
    let listen = |given: &Given<'_>| load(given).unwrap().admin.listen;
    assert_eq!(listen(&Given::default()), ["127.0.0.1:7421".parse().unwrap()]);
    assert_eq!(listen(&Given { file: Some(""), ..Given::default() }), []);
    for (value, expected) in [("[]", vec![]), ("127.0.0.1:1", vec!["127.0.0.1:1".parse().unwrap()])] {
        let variables = &[("SWITCHBOARD__ADMIN__LISTEN", value)];
        assert_eq!(listen(&Given { variables, ..Given::default() }), expected);
    }
    check_file(
        "auth.mode = 'open'\n[admin]\nlisten = ['127.0.0.1:7421', '[::1]:0']",
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         admin: 127.0.0.1:7421, [::1]:0",
    );
}

#[test]
fn beyond_loopback_the_admin_listener_needs_tokens_and_tls() {
    check_file(
        "[admin]\nlisten = ['127.0.0.1:7421', '10.0.0.7:7421']",
        "2: admin.listen: 10.0.0.7:7421 is beyond loopback, which needs at least one [[admin.tokens]]
         2: admin.listen: 10.0.0.7:7421 is beyond loopback, where admin tokens are sent in the clear: set admin.tls = true; or \
         set admin.insecure = true, for a pod's network or behind a proxy that ends TLS",
    );
    check_file(
        "auth.mode = 'open'\n[admin]\nlisten = ['0.0.0.0:7421']\ninsecure = true",
        "3: admin.listen: auth.mode \"open\" refuses to listen beyond loopback, and 0.0.0.0:7421 is: use \"tokens\", or 127.0.0.1",
    );
    check_file(
        "[admin]\nlisten = ['0.0.0.0:7421']\ntls = true\ntokens = []",
        "2: admin.listen: 0.0.0.0:7421 is beyond loopback, which needs at least one [[admin.tokens]]
         3: admin.tls: needs tls.certificate_file and tls.key_file",
    );
    let token = format!("[[admin.tokens]]\nname = 'oncall'\ntoken_sha256 = '{HASH}'\nmay = 'act'");
    check_file(
        &format!("auth.mode = 'tokens'\n[admin]\nlisten = ['0.0.0.0:7421']\ninsecure = true\n{token}"),
        "warning: auth.mode is \"tokens\" and [[applications]] lists none: nobody can register
         mode: tokens
         listen: 127.0.0.1:7420, [::1]:7420
         admin: 0.0.0.0:7421 (admin.insecure)
         applications: 0, services among them: 0",
    );
}

#[test]
fn an_address_has_one_listener() {
    check_file(
        "listen = ['127.0.0.1:7420']\n[admin]\nlisten = ['127.0.0.1:7420', '127.0.0.1:7421', '127.0.0.1:7421']",
        "3: admin.listen: names 127.0.0.1:7420, as listen does
         3: admin.listen: names 127.0.0.1:7421 twice",
    );
}

#[test]
fn a_token_has_a_name_a_hash_and_a_right() {
    check_file(
        &format!(
            "[admin]\nready_requires = ['histry']\n[[admin.tokens]]\n[[admin.tokens]]\nname = 'a'\n\
             token_sha256 = '{HASH}'\nmay = 'write'\n[[admin.tokens]]\nname = 'b'\ntoken_sha256 = '{HASH}'\nmay = 'act'\n\
             [[admin.tokens]]\nname = 'b'\ntoken_sha256 = '{HASH}'\nmay = 'read'\nuser = 'x'\n\
             [[admin.tokens]]\nname = 'b'\ntoken_sha256 = '{HASH}'\nmay = 'read'"
        ),
        "2: admin.ready_requires[0]: must be one of \"history\", \"audit\", \"nats\", \"certificate\", \"salesforce\"
           hint: did you mean \"history\"?
         3: admin.tokens[0].name: is missing: audit records show it
         3: admin.tokens[0].token_sha256: is missing: 'switchboard token new' prints a token and its hash
         3: admin.tokens[0].may: is missing: \"read\", \"act\" or \"payloads\"
         7: admin.tokens[1].may: must be \"read\" or \"act\" or \"payloads\"
         12: admin.tokens[3].name: names another token too: audit records could not tell them apart
         12: admin.tokens[3].token_sha256: is listed before: a token has one name
         16: admin.tokens[3].user: unknown key
         17: admin.tokens[4].name: names another token too: audit records could not tell them apart
         17: admin.tokens[4].token_sha256: is listed before: a token has one name",
    );
    check_file("[admin]\ntokens = 1", "2: admin.tokens: must be an array of tables: [[admin.tokens]]");
    check_variables(
        &[("SWITCHBOARD__ADMIN__TOKENS", "x")],
        "environment: SWITCHBOARD__ADMIN__TOKENS: admin.tokens can be set in the file only",
    );
}

#[test]
fn an_admin_token_is_not_one_of_an_application() {
    let with = |hash: &str| {
        format!(
            "[[applications]]\nsource = 'a'\nuser = 'b'\ntoken_sha256 = '{HASH}'\n[admin]\nlisten = ['127.0.0.1:7421']\n\
             [[admin.tokens]]\nname = 'oncall'\ntoken_sha256 = '{hash}'\nmay = 'read'"
        )
    };
    check_file(
        &with(HASH),
        "7: admin.tokens[0].token_sha256: is the token of an application too: make another one with 'switchboard token new'",
    );
    assert!(load(&Given { file: Some(&with(OTHER)), ..Given::default() }).is_ok());
}

#[test]
fn a_key_of_admin_that_changes_nothing_is_a_warning() {
    let warnings = |file: &str| load(&Given { file: Some(file), ..Given::default() }).unwrap().warnings;
    let file = "auth.mode = 'open'\n[admin]\ninsecure = true\npayloads = true";
    let expected =
        ["admin.insecure has no effect without admin.listen", "admin.payloads has no effect without admin.listen"];
    assert_eq!(warnings(file), expected);
    let expected = [
        "admin.insecure has no effect: admin.listen names only loopback addresses",
        "admin.payloads has no effect: no [[admin.tokens]] has may = \"payloads\"",
    ];
    assert_eq!(warnings(&format!("{file}\nlisten = ['127.0.0.1:7421']")), expected);
}

#[test]
fn a_reload_takes_over_tokens_and_no_address() {
    let of = |file: &str| load(&Given { file: Some(file), ..Given::default() }).unwrap();
    let token = |may: &str| {
        let token = format!("[[admin.tokens]]\nname = 'oncall'\ntoken_sha256 = '{HASH}'\nmay = '{may}'");
        of(&format!("[admin]\nlisten = ['127.0.0.1:7421']\n{token}"))
    };
    let changes = switchboard::config::Changes::between(&token("read"), &token("act"));
    assert_eq!((changes.reload, changes.restart), (vec!["admin.tokens".to_owned()], vec![]));
    let changes = switchboard::config::Changes::between(&of(""), &of("admin.listen = ['127.0.0.1:7421']"));
    assert_eq!((changes.reload, changes.restart), (vec![], vec!["admin.listen".to_owned()]));
}
