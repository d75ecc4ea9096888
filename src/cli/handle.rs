//! `switchboard handle`: answers requests with a fixed payload or with the output of a command. It can stand in for an
//! adapter.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::connect::{Connection, TOKEN_VARIABLE};
use super::output::{Output, note, one_line};
use super::subscribe::narrate;
use super::triple::pattern;
use super::{Exit, Usage, data, interruption};
use switchboard_client::{Failure, Payload, Request, Triple};
use wire::ErrorCode;

/// How many notes about finished requests are queued.
const NOTES: usize = 64;

/// The longest output of a command, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard handle Crm Contact Find --source crm --reply '{\"Success\":true,\"Name\":\"Ada\"}'
  switchboard handle Crm Contact Find --source crm --reply @contact.json --count 1
  switchboard handle Crm Contact '*' --source crm --exec 'jq \"{Success: true, Number: .data}\"'
  switchboard handle Salesforce User FetchCredentials --source fake --exec ./credentials.sh

The command is run with `sh -c`, once per request, several at a time.
It reads the envelope as one line of standard input, and prints the payload of the answer: JSON, or nothing.
If its exit code is not 0, the answer is a failure.
It is ended when its answer is no longer wanted.
Ctrl-C ends the handler, with exit code 0.")]
#[command(group = clap::ArgGroup::new("answer").required(true))]
pub(crate) struct Handle {
    /// Channel, or '*'
    channel: String,
    /// Topic, or '*'
    topic: String,
    /// Subtopic, or '*'
    subtopic: String,
    /// Answer every request with this JSON
    #[arg(long, value_name = "DATA|@FILE", group = "answer", allow_hyphen_values = true)]
    reply: Option<String>,
    /// Answer with the output of this command
    #[arg(long, value_name = "COMMAND", group = "answer")]
    exec: Option<String>,
    /// End after N requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Take one request at a time
    #[arg(long)]
    ordered: bool,
    /// A further triple of answers, for --ordered; can be repeated
    #[arg(long, value_name = "TOPIC/SUBTOPIC", requires = "ordered")]
    replies: Vec<String>,
    /// Print a JSON line for each request
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Where the answers come from.
enum Answer {
    Fixed(Payload),
    Command(String),
}

/// Answers until the count is reached or a signal arrives.
pub(crate) async fn run(arguments: Handle, output: &mut Output) -> anyhow::Result<Exit> {
    let Handle { channel, topic, subtopic, reply, exec, count, ordered, replies, json, connection } = arguments;
    let pattern = pattern(&channel, &topic, &subtopic)?;
    let answer = match (reply, exec) {
        (Some(reply), _) => Answer::Fixed(data::read(Some(&reply))?),
        (None, Some(command)) => Answer::Command(command),
        (None, None) => return Err(Usage::new("--reply or --exec is required").into()),
    };
    let client = connection.connect().await?;
    let (notes, mut finished) = mpsc::channel(NOTES);
    let answer = Arc::new(answer);
    let serve = client.serve(pattern.clone(), move |request| {
        let (answer, notes) = (Arc::clone(&answer), notes.clone());
        async move {
            let outcome = answer.give(&request).await;
            // Fails only when this program ends.
            notes.send(Note::of(&request, &outcome)).await.ok();
            outcome
        }
    });
    let serve = if ordered { serve.ordered(replies) } else { serve };
    let mut serving = serve.await?;
    let interrupted = interruption();
    note(&format!("answering requests of {pattern}"));
    let report = async {
        let mut left = count;
        while left != Some(0) {
            let Some(finished) = finished.recv().await else { break };
            if json {
                output.line(&finished.json())?;
            } else {
                note(&finished.text());
            }
            left = left.map(|left| left.saturating_sub(1));
        }
        Ok(Exit::Done)
    };
    let outcome = tokio::select! {
        outcome = report => outcome,
        error = serving.ended() => Err(error.into()),
        error = narrate(client.states()) => Err(error.into()),
        () = interrupted => Ok(Exit::Done),
    };
    drop(finished);
    if outcome.is_ok() {
        // The answers that were reported are sent before the connection is closed.
        timeout(Duration::from_secs(2), serving.stop()).await.ok();
    }
    client.close().await;
    outcome
}

/// A finished request, without its payload.
struct Note {
    source: Option<String>,
    user: Option<String>,
    triple: Triple<'static>,
    failure: Option<Failure>,
}

impl Note {
    fn of(request: &Request, outcome: &Result<Payload, Failure>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            source: owned(request.source()),
            user: owned(request.user()),
            triple: request.triple().clone(),
            failure: outcome.as_ref().err().cloned(),
        }
    }

    fn text(&self) -> String {
        let source = self.source.as_deref().unwrap_or("an application");
        let user = self.user.as_ref().map(|user| format!(" for {user}")).unwrap_or_default();
        let outcome = self.failure.as_ref().map_or_else(|| "answered".to_owned(), ToString::to_string);
        format!("{source}{user} requested {}: {outcome}", self.triple)
    }

    fn json(&self) -> String {
        let Triple { channel, topic, subtopic } = &self.triple;
        let note = json!({
            "Source": self.source, "User": self.user, "Channel": channel, "Topic": topic, "Subtopic": subtopic,
            "Success": self.failure.is_none(), "ErrorCode": self.failure.as_ref().map(Failure::code_text),
        });
        note.to_string()
    }
}

impl Answer {
    async fn give(&self, request: &Request) -> Result<Payload, Failure> {
        match self {
            Self::Fixed(payload) => Ok(payload.clone()),
            Self::Command(command) => {
                let limit = request.timeout().unwrap_or(Duration::MAX);
                let unwanted = async {
                    match timeout(limit, request.cancelled()).await {
                        Ok(()) => failed(ErrorCode::RequestCancelled, "the answer is no longer wanted"),
                        Err(_) => failed(ErrorCode::RequestTimeout, "the command took too long"),
                    }
                };
                answer_of(command, request.text(), unwanted).await
            }
        }
    }
}

fn failed(code: ErrorCode, message: impl Into<String>) -> Failure {
    Failure::new(code.as_str(), message)
}

/// Runs the command on one envelope, and ends it when its answer is no longer wanted.
async fn answer_of(command: &str, envelope: &str, unwanted: impl Future<Output = Failure>) -> Result<Payload, Failure> {
    let internal = |error: std::io::Error| failed(ErrorCode::Internal, format!("the command cannot be run: {error}"));
    let mut child = spawn(command).map_err(internal)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command need not read its input.
            stdin.write_all(one_line(envelope, false).as_bytes()).await.ok();
            stdin.write_all(b"\n").await.ok();
        }
    };
    let read = async {
        // Of the final size and zeroised, because the answer can be a password. Untouched pages cost no memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX + 1));
        if let Some(stdout) = stdout {
            let mut stdout = stdout.take(ANSWER_BYTES_MAX as u64 + 1);
            while bytes.len() <= ANSWER_BYTES_MAX && stdout.read_buf(&mut *bytes).await? > 0 {}
        }
        Ok(bytes)
    };
    let outcome = tokio::select! {
        ((), output, status) = async { tokio::join!(write, read, child.wait()) } => Ok((output, status)),
        failure = unwanted => Err(failure),
    };
    let (output, status) = match outcome {
        Ok((output, status)) => (output.map_err(internal)?, status.map_err(internal)?),
        Err(failure) => {
            // `kill` also waits, so that no zombie is left.
            child.kill().await.ok();
            return Err(failure);
        }
    };
    if !status.success() {
        return Err(failed(ErrorCode::UpstreamRejected, ended(status)));
    }
    if output.len() > ANSWER_BYTES_MAX {
        return Err(failed(ErrorCode::Internal, "the command's output is longer than 1 MiB"));
    }
    let text =
        std::str::from_utf8(&output).map_err(|_| failed(ErrorCode::Internal, "the command's output is not UTF-8"))?;
    match text.trim() {
        "" => Ok(Payload::default()),
        json => Payload::json(json.to_owned())
            .map_err(|error| failed(ErrorCode::Internal, format!("the command's output is {error}"))),
    }
}

fn spawn(command: &str) -> std::io::Result<Child> {
    Command::new("sh")
        .args(["-c", command])
        // The command does not need the token to answer.
        .env_remove(TOKEN_VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("the command ended with exit code {code}"),
        None => "the command was ended by a signal".to_owned(),
    }
}
