//! [`Broker`]: this program as a broker, in a process of its own, so that its CPU time and memory can be measured.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long the broker may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many connections the broker allows beside those of the load.
const OTHERS: u32 = 100;

/// How much of the broker's standard error is kept, in bytes.
const TAIL_BYTES: usize = 8 << 10;

/// A running broker, which ends when this is dropped.
pub(super) struct Broker {
    child: Child,
    url: String,
    data: PathBuf,
    said: Arc<Mutex<Tail>>,
    /// Reads the broker's standard error.
    reader: JoinSet<()>,
}

impl Broker {
    /// Starts a broker without a rate limit, for this number of clients or of pairs.
    pub(super) async fn start(clients: u32) -> anyhow::Result<Self> {
        let data = private_folder(&env::temp_dir()).context("cannot make a folder for the broker's data")?;
        let program = env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--data-dir"]).arg(&data);
        // The settings of another broker are not for this one.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("SWITCHBOARD") {
                command.env_remove(name);
            }
        }
        let child = command
            .env("SWITCHBOARD__LIMITS__RATE", "0")
            .env("SWITCHBOARD__LIMITS__CONNECTIONS", (2 * clients + OTHERS).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a broker")?;
        let mut broker = Self { child, url: String::new(), data, said: Arc::default(), reader: JoinSet::new() };
        if let Some(stderr) = broker.child.stderr.take() {
            broker.reader.spawn(Tail::read(stderr, Arc::clone(&broker.said)));
        }
        let mut line = String::new();
        if let Some(stdout) = broker.child.stdout.take() {
            timeout(PATIENCE, BufReader::new(stdout).read_line(&mut line)).await.ok();
        }
        match line.trim().strip_prefix("listening on ") {
            Some(url) => {
                url.clone_into(&mut broker.url);
                Ok(broker)
            }
            None => {
                let said = broker.end().await;
                bail!("the broker did not start: {}", said.as_deref().unwrap_or("it printed nothing"))
            }
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the broker. Returns the last line of its standard error.
    pub(super) async fn end(mut self) -> Option<String> {
        timeout(PATIENCE, self.child.kill()).await.ok();
        timeout(PATIENCE, self.reader.join_next()).await.ok();
        self.said.lock().last_line()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.start_kill().ok();
        fs::remove_dir_all(&self.data).ok();
    }
}

/// Makes a folder that only this user can enter. Its name is random, so that no other user can make it first.
fn private_folder(parent: &Path) -> io::Result<PathBuf> {
    let path = parent.join(format!("switchboard-bench-{:032x}", rand::random::<u128>()));
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&path)?;
    Ok(path)
}

/// The end of a stream of text.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads a stream to its end, so that its writer never has to wait.
    async fn read(mut stream: impl AsyncRead + Unpin, tail: Arc<Mutex<Self>>) {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            tail.lock().push(bytes.get(..count).unwrap_or_default());
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let excess = self.0.len().saturating_sub(TAIL_BYTES);
        self.0.drain(..excess);
    }

    fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0);
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn all_of_a_stream_is_read_and_its_end_is_kept() {
        let (mut writer, stream) = duplex(100);
        let tail = Arc::default();
        let write = async move {
            for number in 0..10_000 {
                writer.write_all(format!("warning {number}\n").as_bytes()).await.unwrap();
            }
        };
        tokio::join!(Tail::read(stream, Arc::clone(&tail)), write);
        let tail = tail.lock();
        assert_eq!((tail.0.len(), tail.last_line().as_deref()), (TAIL_BYTES, Some("warning 9999")));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_private_and_has_a_name_of_its_own() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let [one, other] = [(), ()].map(|()| private_folder(parent.path()).unwrap());
        assert_ne!(one, other);
        assert_eq!(fs::metadata(one).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
