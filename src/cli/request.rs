//! `switchboard request`: sends a request to a handler, or to all, and prints the answers.

use std::time::Duration;

use clap::Args;

use super::connect::Connection;
use super::output::{Output, note};
use super::triple::{id, triple};
use super::{Exit, data, interruption};
use switchboard_client::{Answers, Error, Failure, Gather, Gathered, Message, Summary};
use wire::ErrorCode;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard request Salesforce User FetchCredentials --source softphone
  switchboard request Crm Contact Find '\"+49301234\"' --source softphone --timeout 3s
  switchboard request Phone Agent GetState --source wallboard --gather
  switchboard request Crm Contact Find @query.json --source softphone | jq -r .Name

Prints the payload of each answer on a line.
An answer with \"Success\":false is also printed; the exit code is 1.
No answer within the time limit is exit code 4.
With --gather, exit code 1 means that a handler failed, or that there is none.
Ctrl-C cancels the request; the exit code is 1.")]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the command line")]
pub(crate) struct Request {
    /// Channel
    channel: String,
    /// Topic
    topic: String,
    /// Subtopic
    subtopic: String,
    /// The payload: JSON, @FILE, or - for standard input; default: no payload
    #[arg(value_name = "DATA|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// The time limit
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// Send the request to all handlers
    #[arg(long)]
    gather: bool,
    /// Let the broker give the request to a second handler if the first one goes away
    #[arg(long)]
    idempotent: bool,
    /// The id of the request, by which a handler recognises a repeated one; default: a new one
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Option<String>,
    /// Put the payload into the field message instead of data
    #[arg(long)]
    message: bool,
    /// Print whole envelopes, not payloads
    #[arg(long)]
    envelope: bool,
    /// Print JSON lines, also on a terminal
    #[arg(long)]
    json: bool,
    /// Send only to handlers of this source
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// The user whom the request is for; a service must name one on a user-scoped channel
    #[arg(long = "for", value_name = "USER")]
    for_user: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Reads a duration with its unit. The shortest one on the wire is a millisecond.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration < Duration::from_millis(1) => Err("must be 1ms or more".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it with its unit, such as 250ms or 10s")),
    }
}

/// Sends the request and prints the answers.
pub(crate) async fn run(arguments: Request, output: &mut Output) -> anyhow::Result<Exit> {
    let triple = triple(&arguments.channel, &arguments.topic, &arguments.subtopic)?;
    let payload = data::read(arguments.data.as_deref())?;
    let payload = if arguments.message { payload.in_message() } else { payload };
    let client = arguments.connection.connect().await?;
    let mut request = client.request(triple, payload).timeout(arguments.timeout);
    if arguments.idempotent {
        request = request.idempotent();
    }
    if let Some(source) = arguments.target {
        request = request.target(source);
    }
    if let Some(user) = arguments.for_user {
        request = request.user(user);
    }
    if let Some(id) = arguments.id {
        request = request.id(id);
    }
    if arguments.json {
        output.as_json();
    }
    let mut printer = Printer { output, envelope: arguments.envelope };
    let interrupted = interruption();
    let answered = async {
        if arguments.gather {
            let gather = request.gather().await?;
            printer.gathered(gather).await
        } else {
            let answers = request.answers().await?;
            printer.answers(answers).await
        }
    };
    let outcome = tokio::select! {
        outcome = answered => outcome.map(|()| Exit::Done),
        // The stream of answers is dropped, which cancels the request.
        () = interrupted => {
            note("cancelled");
            Ok(Exit::Refused)
        }
    };
    client.close().await;
    outcome
}

struct Printer<'o> {
    output: &'o mut Output,
    envelope: bool,
}

impl Printer<'_> {
    async fn answers(&mut self, mut answers: Answers) -> anyhow::Result<()> {
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(message) => self.print(&message)?,
                Err(error) => {
                    if let Error::Refused(failure) = &error
                        && let Some(reply) = failure.reply()
                    {
                        self.print(reply)?;
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    async fn gathered(&mut self, mut gather: Gather) -> anyhow::Result<()> {
        let mut refused = None;
        while let Some(item) = gather.next().await {
            match item? {
                Gathered::Answer(message) => {
                    self.print(&message)?;
                    refused = refused.or_else(|| message.failure());
                }
                Gathered::End(summary) => end(&summary, refused.take())?,
            }
        }
        Ok(())
    }

    fn print(&mut self, message: &Message) -> std::io::Result<()> {
        match message.payload() {
            _ if self.envelope => self.output.envelope(message),
            Some(payload) => self.output.line(payload),
            None => Ok(()),
        }
    }
}

/// Reports which handlers answered, and fails if one did not.
fn end(summary: &Summary, refused: Option<Failure>) -> Result<(), Error> {
    note(&format!("{} of {} handlers answered", summary.answered, summary.expected));
    for failed in &summary.failed {
        note(&format!("{}: {}", failed.source, failed.error_code));
    }
    if summary.expected == 0 {
        return Err(Failure::new(ErrorCode::NoHandler.as_str(), "there is no handler").into());
    }
    match (refused, summary.failed.first()) {
        (Some(failure), _) => Err(failure.into()),
        (None, Some(failed)) => Err(Failure::new(&failed.error_code, "not every handler answered").into()),
        (None, None) => Ok(()),
    }
}
