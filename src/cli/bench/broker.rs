//! [`Broker`]: a broker of this very program in a process of its own, so that its CPU time and memory are its own too.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);

/// Connections beside the load's own.
const OTHERS: u32 = 100;

/// Ends with it.
pub(super) struct Broker {
    child: Child,
    url: String,
    data: PathBuf,
}

impl Broker {
    /// Starts a broker that takes so many clients, pairs of them included, at any rate.
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
        // It serves nobody any more, and its folder is nobody's.
        self.child.start_kill().ok();
        std::fs::remove_dir_all(&self.data).ok();
    }
}
