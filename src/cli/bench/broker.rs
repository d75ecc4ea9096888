//! [`Broker`]: this program as a broker, in a process of its own, so that its CPU time and memory can be measured.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long the broker may take to listen.
const START: Duration = Duration::from_secs(10);

/// How many connections the broker allows beside those of the load.
const OTHERS: u32 = 100;

/// A running broker, which ends when this is dropped.
pub(super) struct Broker {
    child: Child,
    url: String,
    data: PathBuf,
}

impl Broker {
    /// Starts a broker without a rate limit, for this number of clients or of pairs.
    pub(super) async fn start(clients: u32) -> anyhow::Result<Self> {
        let data = std::env::temp_dir().join(format!("switchboard-bench-{}", std::process::id()));
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--data-dir"])
            .arg(&data)
            .env("SWITCHBOARD__LIMITS__RATE", "0")
            .env("SWITCHBOARD__LIMITS__CONNECTIONS", (2 * clients + OTHERS).to_string())
            .env_remove("SWITCHBOARD_LOG_FORMAT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a broker")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            timeout(START, BufReader::new(stdout).read_line(&mut line)).await.ok();
        }
        let Some(url) = line.trim().strip_prefix("listening on ") else {
            child.start_kill().ok();
            let mut why = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                timeout(START, stderr.read_to_string(&mut why)).await.ok();
            }
            bail!("the broker did not start: {}", why.lines().last().unwrap_or("it said nothing"));
        };
        Ok(Self { url: url.to_owned(), child, data })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.start_kill().ok();
        std::fs::remove_dir_all(&self.data).ok();
    }
}
