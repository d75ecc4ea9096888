//! [`Process`]: a server that a bench starts, with a folder, both of which end with it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

pub(crate) struct Process {
    child: Child,
    /// `HOST:PORT`
    pub(crate) address: String,
    _folder: TempDir,
}

impl Process {
    /// A broker with this configuration, which is given the folder: the program of this build, or `SWITCHBOARD`.
    pub(crate) fn switchboard(config: impl FnOnce(&Path) -> String) -> Self {
        let folder = folder();
        let file = folder.path().join("switchboard.toml");
        std::fs::write(&file, config(folder.path())).unwrap();
        let program = std::env::var("SWITCHBOARD").unwrap_or_else(|_| env!("CARGO_BIN_EXE_switchboard").to_owned());
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error", "--data-dir"])
            .arg(folder.path().join("data"));
        command.arg("--config").arg(file).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let line = find_line(child.stdout.take().unwrap(), "listening on ws://");
        let address = line.trim_end_matches("/ws").to_owned();
        Self { child, address, _folder: folder }
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
        let address = find_line(child.stderr.take().unwrap(), "Listening for client connections on ");
        Self { child, address, _folder: folder }
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
