//! [`Process`]: a server that a bench starts, with a folder, both of which end with it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub(crate) struct Process {
    child: Child,
    /// `HOST:PORT`
    pub(crate) address: String,
    folder: TempDir,
}

impl Process {
    /// A broker with this configuration, which is given the folder: the program of this build, or `SWITCHBOARD`.
    pub(crate) fn switchboard(config: impl FnOnce(&Path) -> String) -> Self {
        let mut process = Self::listening(config);
        drain(process.child.stderr.take().unwrap());
        process
    }

    /// The same with an admin listener. Returns its `HOST:PORT` and the token that may act on it, too.
    #[allow(dead_code, reason = "for benches that operate the broker")]
    pub(crate) fn operated(config: &str) -> (Self, String, String) {
        let mut process = Self::listening(|_| format!("{config}[admin]\nlisten = [\"127.0.0.1:0\"]\n"));
        let mut output = BufReader::new(process.child.stderr.take().unwrap());
        let address = find_line(&mut output, "admin on http://").trim_end_matches('/').to_owned();
        drain(output);
        let token = std::fs::read_to_string(process.folder.path().join("data/admin.token")).unwrap();
        (process, address, token.trim().to_owned())
    }

    fn listening(config: impl FnOnce(&Path) -> String) -> Self {
        let folder = folder();
        let file = folder.path().join("switchboard.toml");
        std::fs::write(&file, config(folder.path())).unwrap();
        let program = std::env::var("SWITCHBOARD").unwrap_or_else(|_| env!("CARGO_BIN_EXE_switchboard").to_owned());
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error", "--data-dir"])
            .arg(folder.path().join("data"));
        command.arg("--config").arg(file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let address = find_line(&mut output, "listening on ws://").trim_end_matches("/ws").to_owned();
        drain(output);
        Self { child, address, folder }
    }

    /// A nats-server with `JetStream`, which has these further settings.
    pub(crate) fn nats(program: &Path, jetstream: &str) -> Self {
        let folder = folder();
        let config = folder.path().join("nats.conf");
        let store = folder.path().join("data");
        let text = format!("listen: \"127.0.0.1:-1\"\njetstream {{ store_dir: \"{}\"{jetstream} }}\n", store.display());
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stderr.take().unwrap());
        let address = find_line(&mut output, "Listening for client connections on ");
        drain(output);
        Self { child, address, folder }
    }

    /// The CPU time that all its threads have used, as the scheduler counts it.
    #[allow(dead_code, reason = "a bench that measures no CPU does not ask")]
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let of_thread = |path: PathBuf| -> Option<u64> {
            let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
            text.split_ascii_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(tasks.filter_map(|task| of_thread(task.ok()?.path())).sum())
    }

    /// Its number to the operating system.
    #[allow(dead_code, reason = "a bench that measures no CPU does not ask")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// On the disk of the build, because a folder for temporary files can be in memory.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The rest of the next line that has these words.
fn find_line(output: &mut impl BufRead, words: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "the server has not said where it listens");
        if let Some((_, rest)) = line.split_once(words) {
            return rest.trim().to_owned();
        }
    }
}

/// Reads and drops what the server writes later.
fn drain(mut output: impl Read + Send + 'static) {
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
}
