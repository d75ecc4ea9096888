//! [`Commands`]: the commands of `switchboard handle --exec`. Each runs in a process group of its own, which ends with
//! the request that it answers.

use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;
#[cfg(unix)]
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connect::TOKEN_VARIABLE;
use super::output::one_line;
use crate::wiped::Wiped;
use switchboard_client::{Failure, Payload, Request};
use wire::ErrorCode;

/// How long processes have to end after SIGTERM, before they get SIGKILL.
#[cfg(unix)]
const GRACE: Duration = Duration::from_secs(1);

/// How often a process group that was signalled is looked at.
#[cfg(unix)]
const LOOK: Duration = Duration::from_millis(10);

/// How long the output is read after a command has ended, if another process keeps it open.
const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// How many process groups may be ending at once after their answers. Further answers wait for their groups.
const ENDING_MAX: usize = 64;

/// The size in bytes of the first buffer for a command's output.
const OUTPUT_BYTES_FIRST: usize = 64 << 10;

/// The longest output of a command in bytes, also if the broker takes longer messages.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Runs a command for each request.
pub(super) struct Commands {
    command: String,
    /// Cancelled when the handler ends.
    ending: CancellationToken,
    /// The commands, and the process groups that are ending.
    running: TaskTracker,
    /// Limits the process groups that are ending to [`ENDING_MAX`].
    ending_groups: Arc<Semaphore>,
}

impl Commands {
    pub(super) fn new(command: String) -> Self {
        let ending_groups = Arc::new(Semaphore::new(ENDING_MAX));
        Self { command, ending: CancellationToken::new(), running: TaskTracker::new(), ending_groups }
    }

    /// Runs the command on one request.
    pub(super) async fn answer(&self, request: &Request) -> Result<Payload, Failure> {
        // Counts as running until the task that ends its processes does.
        let _running = self.running.token();
        if self.ending.is_cancelled() {
            return Err(ending());
        }
        let mut group = Group::spawn(&self.command).map_err(cannot_run)?;
        let limit = request.timeout().unwrap_or(Duration::MAX);
        let output_max = request.message_bytes_max().min(OUTPUT_BYTES_MAX);
        let outcome = tokio::select! {
            outcome = timeout(limit, group.answer(request.text(), output_max)) => {
                outcome.unwrap_or_else(|_| Err(failed(ErrorCode::RequestTimeout, "the command took too long")))
            }
            () = request.cancelled() => Err(failed(ErrorCode::RequestCancelled, "the requester no longer waits")),
            () = self.ending.cancelled() => Err(ending()),
        };
        self.end_group(group).await;
        outcome
    }

    /// Ends what is left of a command, in a task of its own, because that can take [`GRACE`] and the answer is complete.
    async fn end_group(&self, mut group: Group) {
        let Ok(permit) = Arc::clone(&self.ending_groups).try_acquire_owned() else {
            return group.end().await;
        };
        self.running.spawn(async move {
            group.end().await;
            drop(permit);
        });
    }

    /// Ends the commands that are still running, and waits until their processes are gone.
    pub(super) async fn end(&self) {
        self.ending.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

fn failed(code: ErrorCode, message: impl Into<String>) -> Failure {
    Failure::new(code.as_str(), message)
}

#[expect(clippy::needless_pass_by_value, reason = "the form of map_err")]
fn cannot_run(error: io::Error) -> Failure {
    failed(ErrorCode::Internal, format!("the command cannot be run: {error}"))
}

fn ending() -> Failure {
    failed(ErrorCode::HandlerGone, "the handler is ending")
}

/// A running command, with all processes that it starts. On systems without process groups, only the shell.
struct Group {
    child: Child,
    /// Names the group. `None` when the group has ended.
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
}

impl Group {
    fn spawn(command: &str) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // The command does not need the token to answer.
        shell.env_remove(TOKEN_VARIABLE);
        #[cfg(unix)]
        shell.process_group(0);
        let child = shell.spawn()?;
        #[cfg(unix)]
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        Ok(Self {
            child,
            #[cfg(unix)]
            id,
        })
    }

    /// Writes the envelope to the command, and reads its output as the payload of the answer.
    async fn answer(&mut self, envelope: &str, output_max: usize) -> Result<Payload, Failure> {
        let mut output = Output::new(output_max);
        let status = self.exchange(envelope, &mut output).await?;
        if !status.success() {
            return Err(failed(ErrorCode::UpstreamRejected, ended(status)));
        }
        payload(&output.bytes)
    }

    /// Writes the envelope and reads the output until the command ends. A process that it started in the background can
    /// keep its input and output open, which does not delay the answer: what a command printed is in the pipe when it
    /// ends.
    async fn exchange(&mut self, envelope: &str, output: &mut Output) -> Result<ExitStatus, Failure> {
        let (stdin, stdout) = (self.child.stdin.take(), self.child.stdout.take());
        let mut write = pin!(async {
            if let Some(mut stdin) = stdin {
                // A command need not read its input.
                stdin.write_all(one_line(envelope, false).as_bytes()).await.ok();
                stdin.write_all(b"\n").await.ok();
            }
        });
        let mut read = pin!(async {
            match stdout {
                Some(stdout) => output.read(stdout).await,
                None => Ok(()),
            }
        });
        let (mut is_writing, mut is_reading) = (true, true);
        let status = loop {
            tokio::select! {
                () = &mut write, if is_writing => is_writing = false,
                outcome = &mut read, if is_reading => {
                    outcome?;
                    is_reading = false;
                }
                status = self.child.wait() => break status.map_err(cannot_run)?,
            }
        };
        if is_reading && status.success() {
            timeout(OUTPUT_GRACE, read).await.unwrap_or(Ok(()))?;
        }
        Ok(status)
    }

    /// Ends all processes of the group: SIGTERM, and after [`GRACE`] SIGKILL.
    #[cfg(unix)]
    async fn end(&mut self) {
        use rustix::process::{Signal, kill_process_group, test_kill_process_group};
        let Some(id) = self.id else { return };
        // An error means that no process is left.
        kill_process_group(id, Signal::TERM).ok();
        let deadline = Instant::now() + GRACE;
        loop {
            // The shell stays in the group until it is waited for.
            self.child.try_wait().ok();
            if test_kill_process_group(id).is_err() {
                break;
            }
            if Instant::now() >= deadline {
                kill_process_group(id, Signal::KILL).ok();
                timeout(GRACE, self.child.wait()).await.ok();
                break;
            }
            sleep_until(Instant::now() + LOOK).await;
        }
        self.id = None;
    }

    #[cfg(not(unix))]
    async fn end(&mut self) {
        // `kill` also waits.
        self.child.kill().await.ok();
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            rustix::process::kill_process_group(id, rustix::process::Signal::KILL).ok();
        }
    }
}

/// The output of a command. It can be a password.
struct Output {
    bytes: Wiped,
    bytes_max: usize,
}

impl Output {
    fn new(bytes_max: usize) -> Self {
        Self { bytes: Wiped::with_capacity(OUTPUT_BYTES_FIRST.min(bytes_max + 1)), bytes_max }
    }

    /// Reads to the end of the output.
    async fn read(&mut self, stdout: ChildStdout) -> Result<(), Failure> {
        // One byte more shows that the output is too long.
        let read_max = self.bytes_max + 1;
        let mut stdout = stdout.take(read_max as u64);
        while let Some(room) = self.bytes.with_room(read_max) {
            if stdout.read_buf(room).await.map_err(cannot_run)? == 0 {
                return Ok(());
            }
        }
        let message = format!("the command's output is longer than {} bytes", self.bytes_max);
        Err(failed(ErrorCode::TooLarge, message))
    }
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("the command ended with exit code {code}"),
        None => "the command was ended by a signal".to_owned(),
    }
}

/// Reads the output of a command. No output means an answer without a payload.
fn payload(output: &[u8]) -> Result<Payload, Failure> {
    let text =
        std::str::from_utf8(output).map_err(|_| failed(ErrorCode::Internal, "the command's output is not UTF-8"))?;
    match text.trim() {
        "" => Ok(Payload::default()),
        json => Payload::json(json.to_owned())
            .map_err(|error| failed(ErrorCode::Internal, format!("the command's output is {error}"))),
    }
}
