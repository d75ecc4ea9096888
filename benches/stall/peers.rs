//! The processes that a measurement needs. Each ends with it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{ADDRESS, PART};

/// Pins this process, and the threads that it starts from now on, to a core.
pub(crate) fn pin_self(core: &str) {
    let pid = std::process::id().to_string();
    Command::new("taskset").args(["-cp", core, &pid]).stdout(Stdio::null()).status().unwrap();
}

/// The stream alone sends as much as a session may, so everybody may send twice the default. Nothing here answers pings.
const CONFIG: &str = "\
[auth]
mode = \"open\"
[channels.Stall]
scope = \"shared\"
[limits]
heartbeat = \"1h\"
rate = 2000
burst = 4000
connections = 50000
unregistered = 50000
";

/// The broker that is measured.
pub(crate) struct Broker {
    process: Helper,
    /// `HOST:PORT`
    pub(crate) address: String,
    _folder: TempDir,
}

impl Broker {
    pub(crate) fn start(cores: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("switchboard.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let mut command = Command::new("taskset");
        command
            .args(["-c", cores, env!("CARGO_BIN_EXE_switchboard"), "serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("data"))
            .arg("--config")
            .arg(config)
            .args(["--log", "error"])
            .stderr(Stdio::null());
        let mut process = Helper::of(command);
        let line = process.line();
        let address = line.strip_prefix("listening on ws://").and_then(|rest| rest.strip_suffix("/ws"));
        Self { address: address.expect("the broker listens").to_owned(), process, _folder: folder }
    }

    /// The time that its threads have run, and the time that they have waited for a core (`proc_pid_schedstat`).
    pub(crate) fn scheduled(&self) -> (Duration, Duration) {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.child.id())).unwrap();
        threads.fold((Duration::ZERO, Duration::ZERO), |(run, waited), thread| {
            let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
            let mut fields = text.split_ascii_whitespace().map(|field| Duration::from_nanos(field.parse().unwrap()));
            (run + fields.next().unwrap_or_default(), waited + fields.next().unwrap_or_default())
        })
    }
}

/// A process whose lines are read, usually another part of this program.
pub(crate) struct Helper {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts this program as another part, by way of `wrapper`. The part gets `address`.
    pub(crate) fn start(part: &str, wrapper: &[&str], address: &str) -> Self {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(std::env::current_exe().unwrap()).env(PART, part).env(ADDRESS, address);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Reads its next line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it. Returns the last line that it has written.
    pub(crate) fn kill_and_read(&mut self) -> String {
        self.kill();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        rest.lines().next_back().unwrap_or_default().to_owned()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
