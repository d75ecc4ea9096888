//! `switchboard handle`: answers requests with a fixed payload or with what a command prints, so that an adapter can be
//! faked from a shell.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connect::{Connection, TOKEN_VARIABLE};
use super::output::{note, one_line};
use super::subscribe::narrate;
use super::triple::pattern;
use super::{Exit, Usage, data, interruption};
use switchboard_client::{Failure, Payload, Request};
use wire::ErrorCode;

/// How many finished requests wait to be told of.
const NOTES: usize = 64;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard handle Crm Contact Find --source crm --reply '{\"Success\":true,\"Name\":\"Ada\"}'
  switchboard handle Crm Contact Find --source crm --reply @contact.json --count 1
  switchboard handle Crm Contact '*' --source crm --exec 'jq \"{Success: true, Number: .data}\"'
  switchboard handle Salesforce User FetchCredentials --source fake --exec ./credentials.sh

The command is run with `sh -c` once for each request, several at a time.
It reads the envelope, one line, on standard input and prints the answer's payload: JSON, or nothing.
Another exit code than 0 makes the answer a failure.
It is ended when nobody waits for its answer any longer.
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
    /// Answer with what this command prints
    #[arg(long, value_name = "COMMAND", group = "answer")]
    exec: Option<String>,
    /// End after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

/// What the answers are made of.
enum Answer {
    Fixed(Payload),
    Command(String),
}

/// Answers until the count is reached or a signal comes.
pub(crate) async fn run(arguments: Handle) -> anyhow::Result<Exit> {
    let Handle { channel, topic, subtopic, reply, exec, count, connection } = arguments;
    let pattern = pattern(&channel, &topic, &subtopic)?;
    let answer = match (reply, exec) {
        (Some(reply), _) => Answer::Fixed(data::read(Some(&reply))?),
        (None, Some(command)) => Answer::Command(command),
        (None, None) => return Err(Usage::new("one of --reply and --exec is needed").into()),
    };
    let client = connection.connect().await?;
    let (notes, mut finished) = mpsc::channel(NOTES);
    let answer = Arc::new(answer);
    let serve = client.serve(pattern.clone(), move |request| {
        let (answer, notes) = (Arc::clone(&answer), notes.clone());
        async move {
            let outcome = answer.give(&request).await;
            // Refused only when this program ends.
            notes.send(describe(&request, &outcome)).await.ok();
            outcome
        }
    });
    let mut serving = serve.await?;
    let interrupted = interruption();
    note(&format!("answering requests of {pattern}"));
    let told = async {
        let mut left = count;
        while left != Some(0) {
            let Some(text) = finished.recv().await else { return };
            note(&text);
            left = left.map(|left| left.saturating_sub(1));
        }
    };
    let outcome = tokio::select! {
        () = told => Ok(Exit::Done),
        error = serving.ended() => Err(error.into()),
        error = narrate(client.states()) => Err(error.into()),
        () = interrupted => Ok(Exit::Done),
    };
    drop(finished);
    if outcome.is_ok() {
        // An answer that has been told of is on its way, and is sent before the connection is closed.
        timeout(Duration::from_secs(2), serving.stop()).await.ok();
    }
    client.close().await;
    outcome
}

/// Who asked what, and how that ended; never the payload.
fn describe(request: &Request, outcome: &Result<Payload, Failure>) -> String {
    let source = request.source().unwrap_or("somebody");
    let user = request.user().map(|user| format!(" for {user}")).unwrap_or_default();
    let outcome = match outcome {
        Ok(_) => "answered".to_owned(),
        Err(failure) => failure.to_string(),
    };
    format!("{source}{user} asked {}: {outcome}", request.triple())
}

impl Answer {
    async fn give(&self, request: &Request) -> Result<Payload, Failure> {
        match self {
            Self::Fixed(payload) => Ok(payload.clone()),
            Self::Command(command) => {
                let limit = request.timeout().unwrap_or(Duration::MAX);
                let useless = async {
                    match timeout(limit, request.cancelled()).await {
                        Ok(()) => failed(ErrorCode::RequestCancelled, "nobody waits for the answer any longer"),
                        Err(_) => failed(ErrorCode::RequestTimeout, "the command took too long"),
                    }
                };
                ask(command, request.text(), useless).await
            }
        }
    }
}

fn failed(code: ErrorCode, message: impl Into<String>) -> Failure {
    Failure::new(code.as_str(), message)
}

/// Runs the command on one envelope, and ends it when its answer has become useless.
async fn ask(command: &str, envelope: &str, useless: impl Future<Output = Failure>) -> Result<Payload, Failure> {
    let internal = |error: std::io::Error| failed(ErrorCode::Internal, format!("the command cannot be run: {error}"));
    let mut child = spawn(command).map_err(internal)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it is asked.
            stdin.write_all(one_line(envelope, false).as_bytes()).await.ok();
            stdin.write_all(b"\n").await.ok();
        }
    };
    let read = async {
        let mut bytes = Vec::new();
        match stdout {
            Some(mut stdout) => stdout.read_to_end(&mut bytes).await.map(|_| bytes),
            None => Ok(bytes),
        }
    };
    let outcome = tokio::select! {
        ((), output, status) = async { tokio::join!(write, read, child.wait()) } => Ok((output, status)),
        failure = useless => Err(failure),
    };
    let (output, status) = match outcome {
        Ok((output, status)) => (output.map_err(internal)?, status.map_err(internal)?),
        Err(failure) => {
            // Waited for, so that no zombie is left.
            child.kill().await.ok();
            return Err(failure);
        }
    };
    if !status.success() {
        return Err(failed(ErrorCode::UpstreamRejected, ended(status)));
    }
    let text =
        String::from_utf8(output).map_err(|_| failed(ErrorCode::Internal, "the command's output is not UTF-8"))?;
    match text.trim() {
        "" => Ok(Payload::default()),
        json => Payload::json(json.to_owned())
            .map_err(|error| failed(ErrorCode::Internal, format!("the command's output is {error}"))),
    }
}

fn spawn(command: &str) -> std::io::Result<Child> {
    Command::new("sh")
        .args(["-c", command])
        // The command answers for this application, and need not be able to be it.
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
