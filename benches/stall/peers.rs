//! The processes that a measurement needs, each gone when it ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::PART;

/// Puts this process, and the threads that it starts from now on, on a core.
pub(crate) fn pin_self(core: &str) {
    let pid = std::process::id().to_string();
    Command::new("taskset").args(["-cp", core, &pid]).stdout(Stdio::null()).status().unwrap();
}

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
        let mut command = Command::new("taskset");
        command
            .args(["-c", cores, env!("CARGO_BIN_EXE_switchboard"), "serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .args(["--log", "warn"])
            .env("SWITCHBOARD__LIMITS__RATE", "0")
            .env("SWITCHBOARD__LIMITS__CONNECTIONS", "50000")
            .stderr(Stdio::null());
        let mut process = Helper::of(command);
        let line = process.line();
        let address = line.strip_prefix("listening on ws://").and_then(|rest| rest.strip_suffix("/ws"));
        Self { address: address.expect("the broker listens").to_owned(), process, _folder: folder }
    }

    /// How long its threads have run, and how long they have waited for a core (`proc_pid_schedstat`).
    pub(crate) fn scheduled(&self) -> (Duration, Duration) {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.child.id())).unwrap();
        threads.fold((Duration::ZERO, Duration::ZERO), |(run, waited), thread| {
            let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
            let mut fields = text.split_ascii_whitespace().map(|field| Duration::from_nanos(field.parse().unwrap()));
            (run + fields.next().unwrap_or_default(), waited + fields.next().unwrap_or_default())
        })
    }
}

/// A process whose lines are read; another part of this program as a rule.
pub(crate) struct Helper {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Helper {
    /// This program, as another part of it, started by way of `wrapper`.
    pub(crate) fn start(part: &str, wrapper: &[&str], argument: &str) -> Self {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(std::env::current_exe().unwrap()).args(["--bench", argument]).env(PART, part);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Its next line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
