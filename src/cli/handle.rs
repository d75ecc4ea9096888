//! `switchboard handle`: answers requests with a fixed payload or with the output of a command. It can stand in for an
//! adapter.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connect::Connection;
use super::exec::Commands;
use super::output::{Output, note};
use super::subscribe::narrate;
use super::triple::pattern;
use super::{Exit, Usage, data, interruption};
use switchboard_client::{Failure, Payload, Request, Triple};

/// How many notes about finished requests are queued.
const NOTES: usize = 64;

/// How long requests that are being answered may take when the handler ends.
const ENDING_MAX: Duration = Duration::from_secs(2);

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
If its exit code is not 0, or its output is longer than the broker's messages, the answer is a failure.
The answer is sent when the command ends, whatever it left running in the background.
Then, or when the requester no longer waits, all processes that it started are ended.
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
    /// Put the payloads of answers into the field message instead of data
    #[arg(long)]
    message: bool,
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
    Command(Commands),
}

/// Answers until the count is reached or a signal arrives.
pub(crate) async fn run(arguments: Handle, output: &mut Output) -> anyhow::Result<Exit> {
    let Handle { channel, topic, subtopic, reply, exec, message, count, ordered, replies, json, connection } =
        arguments;
    let pattern = pattern(&channel, &topic, &subtopic)?;
    let answer = match (reply, exec) {
        (Some(reply), _) => Answer::Fixed(data::read(Some(&reply))?),
        (None, Some(command)) => Answer::Command(Commands::new(command)),
        (None, None) => return Err(Usage::new("--reply or --exec is required").into()),
    };
    let client = connection.connect().await?;
    let (notes, mut finished) = mpsc::channel(NOTES);
    let answer = Arc::new(answer);
    let answering = Arc::clone(&answer);
    let serve = client.serve(pattern.clone(), move |request| {
        let (answer, notes) = (Arc::clone(&answering), notes.clone());
        async move {
            let outcome = answer.give(&request).await;
            // Fails only when this program ends.
            notes.send(Note::of(&request, &outcome)).await.ok();
            outcome.map(|payload| if message { payload.in_message() } else { payload }.into())
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
        error = narrate(&client, |_| String::new()) => Err(error.into()),
        () = interrupted => Ok(Exit::Done),
    };
    drop(finished);
    if outcome.is_ok() {
        // The answers that were reported are sent before the connection is closed.
        let mut stop = pin!(serving.stop());
        if timeout(ENDING_MAX, &mut stop).await.is_err() {
            answer.end().await;
            timeout(ENDING_MAX, stop).await.ok();
        }
    }
    answer.end().await;
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
            Self::Command(commands) => commands.answer(request).await,
        }
    }

    /// Ends what still works on answers.
    async fn end(&self) {
        match self {
            Self::Fixed(_) => {}
            Self::Command(commands) => commands.end().await,
        }
    }
}
