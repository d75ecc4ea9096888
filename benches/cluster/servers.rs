//! The servers of a measurement: [`Nats`], and [`Broker`], which is a node of a cluster on it or not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::process::Process;

/// The key of the cluster.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A nats-server.
pub(crate) struct Nats(Process);

/// A broker.
pub(crate) struct Broker(Process);

impl Nats {
    pub(crate) fn start(program: &Path) -> Self {
        Self(Process::nats(program, ""))
    }

    /// `HOST:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.0.address
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        self.0.cpu()
    }
}

impl Broker {
    /// Starts a node of a cluster on `nats`, or without it a broker by itself.
    pub(crate) fn start(nats: Option<&Nats>, node: usize) -> Self {
        Self(Process::switchboard(|folder| {
            let cluster = nats.map_or_else(String::new, |nats| cluster(folder, nats, node));
            format!("[auth]\nmode = \"open\"\n[limits]\nrate = 0\n{cluster}")
        }))
    }

    /// `HOST:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.0.address
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        self.0.cpu()
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * line.split_ascii_whitespace().next().unwrap().parse::<usize>().unwrap()
    }
}

/// The table of a node, whose key is written to the folder.
fn cluster(folder: &Path, nats: &Nats, node: usize) -> String {
    let key = folder.join("key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        "[cluster]\nname = \"bench\"\nnode = \"node-{node}\"\nservers = [\"nats://{}\"]\nkey_file = \"{}\"\n",
        nats.address(),
        key.display()
    )
}
