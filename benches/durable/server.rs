//! [`Server`]: a broker that keeps what it is sent in files, in a process and a folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::publisher::Publisher;

/// One log for all publishers, as the stream is one for all. No publisher is held up for its rate.
const CONFIG: &str = "\
[auth]
mode = \"open\"
[limits]
rate = 0
[channels.Durable]
scope = \"shared\"
history = { size = 100000, ttl = \"1h\", durable = true }
";

pub(crate) struct Server {
    kind: Kind,
    child: Child,
    /// `HOST:PORT`
    address: String,
    _folder: TempDir,
}

#[derive(Clone, Copy)]
enum Kind {
    Switchboard,
    Nats,
}

impl Server {
    pub(crate) fn switchboard() -> Self {
        let folder = folder();
        let config = folder.path().join("switchboard.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let program = std::env::var("SWITCHBOARD").unwrap_or_else(|_| env!("CARGO_BIN_EXE_switchboard").to_owned());
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error", "--data-dir"])
            .arg(folder.path().join("data"));
        command.arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let line = find_line(child.stdout.take().unwrap(), "listening on ws://");
        let address = line.trim_end_matches("/ws").to_owned();
        Self { kind: Kind::Switchboard, child, address, _folder: folder }
    }

    pub(crate) fn nats(program: &Path) -> Self {
        let folder = folder();
        let config = folder.path().join("nats.conf");
        let store = folder.path().join("data");
        let text = format!(
            "listen: \"127.0.0.1:-1\"\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            store.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let address = find_line(child.stderr.take().unwrap(), "Listening for client connections on ");
        let server = Self { kind: Kind::Nats, child, address, _folder: folder };
        server.publisher(0).create_stream();
        server
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Switchboard => "switchboard",
            Kind::Nats => "JetStream",
        }
    }

    pub(crate) fn publisher(&self, number: usize) -> Publisher {
        match self.kind {
            Kind::Switchboard => Publisher::of_switchboard(&self.address, number),
            Kind::Nats => Publisher::of_nats(&self.address, number),
        }
    }
}

impl Drop for Server {
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
