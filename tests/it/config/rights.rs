//! Warnings about rights that contradict each other or change nothing.

use super::{Given, HASH, load, told};

/// The warnings about these roles and rows; each row has a user, or is a service.
#[track_caller]
fn check(file: &str, expected: &[&str]) {
    let outcome = load(&Given { file: Some(file), ..Given::default() });
    let config = outcome.unwrap_or_else(|mistakes| panic!("{}", told(&Err(mistakes))));
    assert_eq!(config.warnings, expected);
}

fn row(source: &str, lines: &str) -> String {
    format!("[[applications]]\nsource = '{source}'\ntoken_sha256 = '{HASH}'\n{lines}\n")
}

fn role(name: &str, lines: &str) -> String {
    let lists = ["publish", "subscribe", "request", "handle"];
    let missing = lists.iter().filter(|list| !lines.lines().any(|line| line.starts_with(&format!("{list} ="))));
    let missing: Vec<_> = missing.map(|list| format!("{list} = []\n")).collect();
    format!("[roles.{name}]\n{lines}\n{}", missing.concat())
}

#[test]
fn an_allowed_pattern_that_is_denied_whole_is_a_warning() {
    let role = role("r", "publish = ['P/a/*', 'P/*/*']\ndeny = { publish = ['p/A/*'] }");
    check(
        &(role + &row("s", "user = 'u'\nrole = 'r'")),
        &["roles.r.publish: the pattern P/a/* allows nothing, because the denied pattern p/A/* covers it"],
    );
}

#[test]
fn a_denied_pattern_that_no_allowed_pattern_overlaps_is_a_warning() {
    let role = role("r", "subscribe = ['P/*/*']\ndeny = { subscribe = ['*/a/*', 'Q/*/*'], handle = ['P/*/*'] }");
    check(
        &(role + &row("s", "user = 'u'\nrole = 'r'")),
        &[
            "roles.r.deny.subscribe: the pattern Q/*/* denies nothing, because no allowed pattern overlaps it",
            "roles.r.deny.handle: the pattern P/*/* denies nothing, because no allowed pattern overlaps it",
        ],
    );
}

#[test]
fn a_row_is_warned_about_its_own_patterns_only() {
    let role = role("r", "publish = ['P/*/*', 'Q/*/*']\ndeny = { publish = ['P/a/*'] }");
    let rows = [
        row("a", "user = 'u'\nrole = 'r'\npermissions = { publish = ['R/*/*'], deny = { publish = ['S/*/*'] } }"),
        row("b", "user = 'u'\nrole = 'r'\npermissions = { deny = { publish = ['Q/*/*'] } }"),
        row("c", "user = 'u'\nrole = 'r'\npermissions = { publish = ['P/a/b'] }"),
    ];
    check(
        &(role + &rows.concat()),
        &[
            "applications[0].permissions.deny.publish: the pattern S/*/* denies nothing, because no allowed pattern overlaps it",
            "applications[1].permissions.publish: the pattern Q/*/* allows nothing, because the denied pattern Q/*/* covers it",
            "applications[2].permissions.publish: the pattern P/a/b allows nothing, because the denied pattern P/a/* covers it",
        ],
    );
}

#[test]
fn a_grant_outside_the_general_right_or_on_triples_that_need_none_is_a_warning() {
    let lines = "request = ['P/*/*']\nhandle = ['Q/x/*']\n\
                 protected_request = ['P/Agent/Login', 'Q/Agent/Login', 'P/x/y']\n\
                 protected_handle = ['Q/*/*', 'Q/y/*', 'P/x/y']";
    let rows = row("a", "user = 'u'\nrole = 'r'\nhandle = ['*/Agent/Login']\nrequest = ['*/Agent/Login', 'Q/*/*']");
    check(
        &(role("r", lines) + &rows + "[channels.Q]\nscope = 'shared'"),
        &[
            "roles.r.protected_request[1] has no effect: 'request' of the role allows none of it",
            "roles.r.protected_request[2] has no effect: it is about protected triples only",
            "roles.r.protected_handle[1] has no effect: 'handle' of the role allows none of it",
            "roles.r.protected_handle[2] has no effect: it is about protected triples and shared channels only",
            "applications[0].handle[0] has no effect: the general right 'handle' of the application allows none of it",
            "applications[0].request[1] has no effect: the general right 'request' of the application allows none of it",
        ],
    );
}

#[test]
fn observing_without_a_right_to_subscribe_is_a_warning() {
    check(
        &(role("r", "observe = true") + &row("a", "user = 'u'\nrole = 'r'")),
        &["roles.r.observe has no effect: 'subscribe' of the role allows nothing"],
    );
}

#[test]
fn a_service_for_nobody_is_a_warning() {
    check(
        &row("a", "service = true\nusers = []"),
        &["applications[0].users is empty: the service receives nothing on channels that are not shared"],
    );
}

#[test]
fn a_role_that_nobody_has_is_a_warning() {
    let file = role("a", "") + &role("'b c'", "") + &row("s", "user = 'u'\nrole = 'a'");
    check(&file, &["roles.\"b c\" is not used: no application and no issuer has this role"]);
}
