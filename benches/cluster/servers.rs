//! The servers of a measurement: [`Nats`], and [`Broker`], which is a node of a cluster on it or not.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// The key of the cluster.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A nats-server.
pub(crate) struct Nats {
    process: Process,
    /// `HOST:PORT`
    pub(crate) address: String,
}

/// A broker.
pub(crate) struct Broker {
    process: Process,
    /// `HOST:PORT`
    pub(crate) address: String,
}

/// A process with a folder, which ends with it.
struct Process {
    child: Child,
    _folder: TempDir,
}

impl Nats {
    pub(crate) fn start(program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("nats.conf");
        let store = folder.path().join("data");
        let text = format!("listen: \"127.0.0.1:-1\"\njetstream {{ store_dir: \"{}\" }}\n", store.display());
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let address = find_line(child.stderr.take().unwrap(), "Listening for client connections on ");
        Self { process: Process { child, _folder: folder }, address }
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        self.process.cpu()
    }
}

impl Broker {
    /// Starts a node of a cluster on `nats`, or without it a broker by itself.
    pub(crate) fn start(nats: Option<&Nats>, node: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, key) = (folder.path().join("switchboard.toml"), folder.path().join("key"));
        fs::write(&key, KEY).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let cluster = nats.map_or_else(String::new, |nats| {
            format!(
                "[cluster]\nname = \"bench\"\nnode = \"node-{node}\"\nservers = [\"nats://{}\"]\nkey_file = \"{}\"\n",
                nats.address,
                key.display()
            )
        });
        fs::write(&config, format!("[auth]\nmode = \"open\"\n[limits]\nrate = 0\n{cluster}")).unwrap();
        let program = std::env::var("SWITCHBOARD").unwrap_or_else(|_| env!("CARGO_BIN_EXE_switchboard").to_owned());
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error", "--data-dir"])
            .arg(folder.path().join("data"));
        command.arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let line = find_line(child.stdout.take().unwrap(), "listening on ws://");
        let address = line.trim_end_matches("/ws").to_owned();
        Self { process: Process { child, _folder: folder }, address }
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        self.process.cpu()
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * line.split_ascii_whitespace().next().unwrap().parse::<usize>().unwrap()
    }
}

impl Process {
    /// What the scheduler counts of all its threads.
    fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of_thread = |path: std::path::PathBuf| -> Option<u64> {
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split_ascii_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(tasks.filter_map(|task| of_thread(task.ok()?.path())).sum())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The rest of the first line that has these words. What the server writes later is read and dropped.
fn find_line(output: impl Read + Send + 'static, words: &str) -> String {
    let mut output = BufReader::new(output);
    let found = loop {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "the server has not said where it listens");
        if let Some((_, rest)) = line.split_once(words) {
            break rest.trim().to_owned();
        }
    };
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    found
}
