//! What an operator installs: the systemd units and what they rely on, the Debian package, containers, man pages.

mod containers;
mod debian;
mod man;
mod notify;
mod sockets;

use std::fs;

/// A file of the folder `deploy`.
fn deployed(name: &str) -> String {
    fs::read_to_string(format!("deploy/{name}")).unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}
