//! `http.same_user`, `http.os_users`, and Unix sockets in `listen`.

use super::{Given, check, check_file, load};

#[test]
fn the_default_is_true_if_every_listener_is_loopback_or_a_unix_socket() {
    for (toml, expected) in [
        ("", true),
        ("listen = ['unix:/run/s.sock']", true),
        ("listen = ['127.0.0.2:7420', '[::1]:1', 'unix:/run/s.sock']", true),
        ("listen = ['127.0.0.1:7420', '0.0.0.0:7420']\nhttp.insecure = true", false),
        ("listen = ['10.0.0.7:7420']\nhttp.insecure = true", false),
        ("tls = { listen = ['10.0.0.7:7443'], certificate_file = 'c', key_file = 'k' }", false),
        ("tls = { listen = ['127.0.0.1:7443'], certificate_file = 'c', key_file = 'k' }", true),
        ("http.same_user = false", false),
        ("listen = ['10.0.0.7:7420']\nhttp.insecure = true\nhttp.same_user = true", true),
    ] {
        let config = load(&Given { file: Some(toml), ..Given::default() }).unwrap();
        assert_eq!(config.is_for_same_user(), expected, "{toml}");
    }
}

#[test]
fn a_unix_socket_is_an_address_in_every_layer_and_open_mode_may_use_it() {
    check(
        &Given { listen: &["unix:/run/a b.sock", "127.0.0.1:0"], ..Given::default() },
        "mode: open, for development: no token is asked\nlisten: unix:/run/a b.sock, 127.0.0.1:0",
    );
    let variables = &[("SWITCHBOARD__LISTEN", "unix:/run/s.sock, [::1]:0")];
    check(
        &Given { variables, ..Given::default() },
        "mode: open, for development: no token is asked\nlisten: unix:/run/s.sock, [::1]:0",
    );
    check_file("listen = ['unix:/a', 'unix:/a']", "1: listen: names unix:/a twice");
    check_file("listen = ['unix:']", "1: listen[0]: must not be empty");
    let long = format!("listen = ['unix:/{}']", "x".repeat(107));
    check_file(&long, "1: listen[0]: is too long for a Unix socket: a path of at most 107 bytes (103 on macOS)");
}

#[test]
fn keys_without_effect_and_an_open_door_are_warnings() {
    let off = "warning: http.same_user is false: programs of every user of this host can connect";
    let summary = "mode: open, for development: no token is asked\nlisten: 127.0.0.1:7420, [::1]:7420";
    check_file("auth.mode = 'open'\nhttp.same_user = false", &format!("{off}\n{summary}"));
    let users = "operating-system users beside the broker's own: www-data, kiosk";
    check_file("auth.mode = 'open'\nhttp.os_users = ['www-data', 'kiosk']", &format!("{summary}\n{users}"));
    let config = load(&Given {
        file: Some("listen = ['10.0.0.7:1']\nhttp.insecure = true\nhttp.os_users = ['kiosk']"),
        ..Given::default()
    });
    let warnings = config.unwrap().warnings;
    assert!(warnings.iter().any(|it| it.starts_with("http.os_users has no effect")), "{warnings:?}");
    check_file("http.os_users = ['']", "1: http.os_users[0]: must not be empty");
}
