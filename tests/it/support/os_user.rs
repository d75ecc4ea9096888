//! [`OsUser`]: programs of other operating-system users, which only root can start.

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use super::within;

/// A user of this system.
#[derive(Clone, Copy)]
pub(crate) struct OsUser {
    name: &'static str,
    id: u32,
    group: u32,
}

impl OsUser {
    /// A user that every Unix has. `None`, loudly, if this test does not run as root.
    pub(crate) fn daemon() -> Option<Self> {
        Self::named("daemon")
    }

    /// Another one.
    pub(crate) fn mail() -> Option<Self> {
        Self::named("mail")
    }

    /// The user whose id the kernel shows for users that it cannot name.
    pub(crate) fn nobody() -> Option<Self> {
        Self::named("nobody")
    }

    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn named(name: &'static str) -> Option<Self> {
        let user = nix::unistd::User::from_name(name).unwrap().filter(|_| rustix::process::geteuid().is_root());
        if user.is_none() {
            eprintln!("SKIPPED: only root can run a program as the user {name}");
        }
        user.map(|user| Self { name, id: user.uid.as_raw(), group: user.gid.as_raw() })
    }

    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    /// Runs a program as this user.
    pub(crate) fn runs(self, command: &mut Command) -> &mut Command {
        command.uid(self.id).gid(self.group).current_dir("/").stdin(Stdio::null()).kill_on_drop(true)
    }

    /// Gives a file to this user.
    pub(crate) fn owns(self, path: &std::path::Path) {
        std::os::unix::fs::chown(path, Some(self.id), Some(self.group)).unwrap();
    }

    /// Sends the head of a request by a program of this user, and returns the response.
    pub(crate) async fn http(self, host: &str, port: u16, head: &str) -> String {
        let script = r#"exec 3<>"/dev/tcp/$0/$1" && printf %s "$2" >&3 && cat <&3"#;
        let mut bash = Command::new("bash");
        self.runs(bash.args(["-c", script, host, &port.to_string(), head]));
        let output = within("the response", bash.output()).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The program under test at a place where every user can start it.
pub(crate) struct SharedProgram(TempDir);

impl SharedProgram {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let (built, shared) = (env!("CARGO_BIN_EXE_switchboard"), folder.path().join("switchboard"));
        fs::hard_link(built, &shared).or_else(|_| fs::copy(built, &shared).map(drop)).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("switchboard")
    }
}

/// An address of this host that other hosts can reach, if it has one.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn outer_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Sends nothing: only the route is chosen. The address is for documentation (RFC 5737).
    let address = socket.connect("198.51.100.1:9").and_then(|()| socket.local_addr()).ok().map(|it| it.ip());
    let address = address.filter(|it| !it.is_loopback() && !it.is_unspecified());
    if address.is_none() {
        eprintln!("SKIPPED: this host has no address beside loopback");
    }
    address
}
