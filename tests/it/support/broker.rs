//! [`Broker`]: the real binary, in a process and a data folder of its own, gone when the test ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::{Conversation, DEADLINE, Peer, token_of, within};

/// The configuration file.
const CONFIG: &str = "switchboard.toml";

/// A running broker.
pub(crate) struct Broker {
    child: Child,
    // Held open: a broker whose standard output is closed might notice.
    stdout: BufReader<ChildStdout>,
    urls: Vec<String>,
    address: SocketAddr,
    folder: TempDir,
    conversation: Conversation,
}

impl Broker {
    /// A broker in open development mode, without a configuration file.
    pub(crate) async fn start() -> Self {
        Self::launch(None, &[]).await
    }

    /// A broker with exactly this configuration file.
    pub(crate) async fn with_config(toml: &str) -> Self {
        Self::launch(Some(toml), &[]).await
    }

    /// A broker in open mode with these other settings.
    pub(crate) async fn open_with(toml: &str) -> Self {
        Self::launch(Some(&format!("{toml}\n[auth]\nmode = \"open\"\n")), &[]).await
    }

    /// A broker with more arguments; no file where `toml` is `None`.
    pub(crate) async fn launch(toml: Option<&str>, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(toml) = toml {
            std::fs::write(folder.path().join(CONFIG), toml).unwrap();
        }
        Self::launch_in(folder, arguments).await
    }

    /// A broker that cannot write more than this to a file, as if the disk were full.
    pub(crate) async fn with_file_size(kib: u32, toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG), toml).unwrap();
        let mut command = Command::new("bash");
        // The signal would end it; without it, the write fails.
        let limit = format!("trap '' XFSZ; ulimit -S -f {kib}; exec \"$0\" \"$@\"");
        command.args(["-c", &limit, env!("CARGO_BIN_EXE_switchboard")]);
        Self::launch_by(command, folder, &[]).await
    }

    /// Lets a broker of [`Self::with_file_size`] write as much as it wants, as if the disk had room again.
    pub(crate) async fn lift_file_size(&self) {
        let pid = self.child.id().unwrap().to_string();
        let status =
            Command::new("prlimit").args(["--fsize=unlimited:unlimited", "--pid", &pid]).status().await.unwrap();
        assert!(status.success());
    }

    /// Ends it at once, without a chance to write anything, and starts the one that comes after it.
    pub(crate) async fn killed(mut self) -> Self {
        within("the broker's end", self.child.kill()).await.unwrap();
        self.successor().await
    }

    /// The broker that comes after this one, which has ended: in its folder, with its file.
    pub(crate) async fn successor(mut self) -> Self {
        let next = tempfile::tempdir().unwrap();
        let folder = std::mem::replace(&mut self.folder, next);
        std::fs::write(self.folder.path().join("log"), "").unwrap();
        Self::launch_in(folder, &[]).await
    }

    /// A broker in open mode with this limit of open files.
    pub(crate) async fn with_open_files(files: u32) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_switchboard")]);
        Self::launch_by(command, tempfile::tempdir().unwrap(), &[]).await
    }

    async fn launch_in(folder: TempDir, arguments: &[&str]) -> Self {
        Self::launch_by(Command::new(env!("CARGO_BIN_EXE_switchboard")), folder, arguments).await
    }

    /// A broker without a configuration file, with an admin listener.
    pub(crate) async fn without_a_file_with_admin() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.env("SWITCHBOARD__ADMIN__LISTEN", "127.0.0.1:0");
        Self::launch_by(command, tempfile::tempdir().unwrap(), &[]).await
    }

    async fn launch_by(mut command: Command, folder: TempDir, arguments: &[&str]) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
        let file = folder.path().join(CONFIG);
        if file.exists() {
            command.arg("--config").arg(file);
        } else if command.as_std().get_envs().next().is_none() {
            // Brokers of other tests would have its default port.
            command.env("SWITCHBOARD__ADMIN__LISTEN", "[]");
        }
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        within("the broker's first line", stdout.read_line(&mut line)).await.unwrap();
        let mut lines = line.clone();
        // They are written at once.
        for _ in arguments.iter().filter(|argument| **argument == "--listen") {
            within("a line for each listener", stdout.read_line(&mut lines)).await.unwrap();
        }
        let urls = lines.lines().map(|line| line.trim_start_matches("listening on ").to_owned()).collect();
        let address = line.trim().strip_prefix("listening on ws://").and_then(|rest| rest.strip_suffix("/ws"));
        let Some(address) = address.and_then(|it| it.parse().ok()) else {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
            panic!("the broker's first line is {line:?}, its log:\n{log}");
        };
        Self { child, stdout, urls, address, folder, conversation: Conversation::default() }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of its admin listener.
    pub(crate) async fn admin(&self) -> SocketAddr {
        let find = |log: &str| {
            let line = log.lines().find(|line| line.starts_with("admin on http"))?;
            line.split("://").nth(1)?.strip_suffix('/')?.parse().ok()
        };
        self.log_until("the line of the admin listener", |log| find(log).is_some()).await;
        find(&self.log()).unwrap()
    }

    /// The URL of its next listener, after the one that tests connect to by default.
    pub(crate) async fn next_url(&mut self) -> String {
        let mut line = String::new();
        within("the line of another listener", self.stdout.read_line(&mut line)).await.unwrap();
        let url = line.trim().strip_prefix("listening on ");
        url.unwrap_or_else(|| panic!("the broker's next line is {line:?}")).to_owned()
    }

    /// The URLs of all its listeners: first that of [`Self::address`], then those that more arguments `--listen` name.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The record of what all peers sent and received.
    pub(crate) fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// Its data folder.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A connection that is not registered yet.
    pub(crate) async fn raw(&self, name: &str) -> Peer {
        Peer::connect(self, name).await
    }

    /// The same with these headers in its handshake.
    pub(crate) async fn raw_with(&self, name: &str, headers: &[(&str, String)]) -> Peer {
        Peer::connect_with(self, name, headers).await
    }

    /// An application of the user `local`.
    pub(crate) async fn app(&self, source: &str) -> Peer {
        self.app_with(source, json!({})).await
    }

    /// An application of this user; open mode takes its word.
    pub(crate) async fn app_of(&self, source: &str, user: &str) -> Peer {
        self.app_with(source, json!({ "user": user })).await
    }

    /// An application that proves itself by the token that [`super::application`] configured.
    pub(crate) async fn app_by_token(&self, source: &str) -> Peer {
        self.app_with(source, json!({ "token": token_of(source) })).await
    }

    /// An application with these options of Register.
    pub(crate) async fn app_with(&self, source: &str, options: Value) -> Peer {
        let mut peer = self.raw(source).await;
        let reply = peer.register(source, options).await;
        assert_eq!(reply["data"]["Success"], true, "{reply}");
        peer
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap()).into_owned()
    }

    /// Waits until its log satisfies `wanted`: a line may be written a moment after what it tells of.
    pub(crate) async fn log_until(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let mut often = tokio::time::interval(std::time::Duration::from_millis(20));
        within(what, async {
            while !wanted(&self.log()) {
                often.tick().await;
            }
        })
        .await;
    }

    /// Replaces its configuration file, which takes effect with the next [`Broker::reload`].
    pub(crate) fn configure(&self, toml: &str) {
        std::fs::write(self.folder.path().join(CONFIG), toml).unwrap();
    }

    /// Sends SIGHUP, waits for the outcome and gives its line of the log.
    pub(crate) async fn reload(&self) -> String {
        const OUTCOMES: [&str; 2] = ["the configuration was reloaded", "the reload was refused"];
        let outcomes = |log: &str| -> Vec<String> {
            let is_outcome = |line: &&str| OUTCOMES.iter().any(|outcome| line.contains(outcome));
            log.lines().filter(is_outcome).map(str::to_owned).collect()
        };
        let before = outcomes(&self.log()).len();
        self.signal("HUP").await;
        self.log_until("the outcome of a reload", |log| outcomes(log).len() > before).await;
        outcomes(&self.log()).pop().unwrap()
    }

    /// Stores credentials by the command line, the password on standard input.
    pub(crate) async fn credentials_set(&self, user: &str, username: &str, password: &str, extension: &str) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_switchboard"))
            .args(["credentials", "set", user, "--username", username, "--extension", extension, "--data-dir"])
            .arg(self.data_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{password}\n").as_bytes()).await.unwrap();
        drop(stdin);
        let output = within("credentials set", child.wait_with_output()).await.unwrap();
        assert!(output.status.success(), "credentials set: {output:?}");
    }

    /// Asks it to end, as an operator's service manager does.
    pub(crate) async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends it a signal.
    pub(crate) async fn signal(&self, name: &str) {
        signal(&self.child, name).await;
    }

    /// Waits for its end and gives the exit code.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        within("the broker's end", self.child.wait()).await.unwrap().code()
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Its resident memory in bytes (Linux).
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(Path::new("/proc").join(self.child.id().unwrap().to_string()).join("status"));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Broker {
    #[expect(clippy::print_stderr, reason = "a failed test shows all that was said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the conversation (deadline {DEADLINE:?})\n{}", self.conversation);
            eprintln!("--- the broker's log\n{}", self.log());
        }
    }
}

/// Sends a process a signal. After `STOP` it stands still: `kill` returns before that.
pub(crate) async fn signal(process: &Child, name: &str) {
    let pid = process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    if name == "STOP" && cfg!(target_os = "linux") {
        let mut often = tokio::time::interval(std::time::Duration::from_millis(1));
        let stopped = async {
            while !stands_still(&pid) {
                often.tick().await;
            }
        };
        within("the process to stand still", stopped).await;
    }
}

/// Whether a signal has stopped all threads of a process (`proc_pid_stat(5)`).
fn stands_still(pid: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut stats = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T')))
}
