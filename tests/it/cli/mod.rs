//! The command line, as scripts use it: its output and its exit codes. Mostly against the real broker; the test plays the
//! broker for what the real one does not do on demand.

mod bench;
mod cert;
mod conformance;
mod connecting;
mod encrypted;
mod handling;
mod help;
mod password;
mod publishing;
mod requesting;
mod serving;
mod subscribing;
mod token;
mod usage;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::client::fake_broker::{FakeBroker, event};
use crate::support::{Broker, application, token_of, within};

/// The exit code and the output of a command.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// Standard output as JSON, one value a line.
    fn values(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    fn has(&self, code: i32, stderr: &str) {
        assert!(self.code == Some(code) && self.stderr.contains(stderr), "not {code} with {stderr:?}: {self:?}");
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(arguments).kill_on_drop(true);
    // Brokers of other tests would have its default port.
    command.env("SWITCHBOARD__ADMIN__LISTEN", "[]");
    for variable in ["TOKEN", "URL", "SOURCE", "USER"] {
        command.env_remove(format!("SWITCHBOARD_{variable}"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end, with this standard input.
async fn run_with(mut command: Command, stdin: &str) -> Outcome {
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // A command need not read it.
    input.write_all(stdin.as_bytes()).await.ok();
    drop(input);
    let output = within("the command's end", child.wait_with_output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs a client command as the application `shell`.
async fn run(url: &str, arguments: &[&str]) -> Outcome {
    run_with(command(&[arguments, &["--source", "shell", "--url", url]].concat()), "").await
}

/// A command that runs in the background.
struct Beside {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Beside {
    /// Starts a command, and waits until it says that it is ready.
    async fn start(url: &str, source: &str, arguments: &[&str]) -> Self {
        let mut beside = Self::spawn(url, source, arguments);
        let ready = beside.told().await;
        assert!(ready.starts_with("subscribed to") || ready.starts_with("answering requests of"), "{ready}");
        beside
    }

    fn spawn(url: &str, source: &str, arguments: &[&str]) -> Self {
        Self::of(command(&[arguments, &["--source", source, "--url", url]].concat()))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stdout, stderr }
    }

    /// The next line of its standard output.
    async fn line(&mut self) -> String {
        within("a line", self.stdout.next_line()).await.unwrap().expect("the command has ended")
    }

    /// The next line of its standard error.
    async fn told(&mut self) -> String {
        within("a line on standard error", self.stderr.next_line()).await.unwrap().expect("the command has ended")
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
    }

    async fn code(&mut self) -> Option<i32> {
        within("the command's end", self.child.wait()).await.unwrap().code()
    }
}

/// Writes a file that only its owner can read.
fn secret_file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn url(broker: &Broker) -> String {
    format!("ws://{}/ws", broker.address())
}

#[tokio::test]
async fn every_shell_gets_its_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let outcome = run_with(command(&["completions", shell]), "").await;
        outcome.has(0, "");
        assert!(["request", "token-file", "renew"].iter().all(|word| outcome.stdout.contains(word)), "{shell}");
    }
}

/// The examples in the help texts are valid command lines.
#[tokio::test]
async fn examples_are_understood() {
    let mut found = 0;
    for name in ["sub", "pub", "request", "handle", "apps"] {
        let help = run_with(command(&[name, "--help"]), "").await.stdout;
        for line in help.lines().filter_map(|line| line.trim().strip_prefix("switchboard ")) {
            // No broker listens there, which is found out last. Comments, and arguments of other programs, are cut off.
            let line = line.split("   ").next().unwrap().split(" | ").next().unwrap();
            let line = line.replace("@contact.json", "1").replace("@query.json", "1");
            let script = format!("exec \"$0\" {line} --url ws://127.0.0.1:1/ws");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script, env!("CARGO_BIN_EXE_switchboard")]).env_remove("SWITCHBOARD_TOKEN");
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            run_with(shell, "").await.has(3, "could not connect");
            found += 1;
        }
    }
    assert!(found > 15, "{found} examples");
}
