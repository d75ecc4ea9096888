//! `switchboard request`: asks a handler, or all of them, and prints what they answer.

use std::time::Duration;

use clap::Args;

use super::connect::Connection;
use super::output::{Output, note};
use super::triple::triple;
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

Prints the payload of the answer, or of each: one a line.
An answer with \"Success\":false is printed too and is exit code 1.
No answer in time is exit code 4.
With --gather, exit code 1 says that a handler failed, or that there is none.
Ctrl-C cancels the request, with exit code 1.")]
pub(crate) struct Request {
    /// Channel
    channel: String,
    /// Topic
    topic: String,
    /// Subtopic
    subtopic: String,
    /// The payload: JSON, @FILE, or - for standard input; none if left out
    #[arg(value_name = "DATA|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// Ask every handler, and print what each answers
    #[arg(long)]
    gather: bool,
    /// Let the broker ask another handler if the first one dies
    #[arg(long)]
    idempotent: bool,
    /// Print whole envelopes, not payloads
    #[arg(long)]
    envelope: bool,
    /// Only handlers of this source
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// For this user; for services
    #[arg(long = "for", value_name = "USER")]
    for_user: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// A duration with its unit, of a millisecond at least: the wire knows no shorter one.
fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration < Duration::from_millis(1) => Err("it has to be 1ms or more".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it with its unit, such as 250ms or 10s")),
    }
}

/// Asks and prints.
pub(crate) async fn run(arguments: Request, output: &mut Output) -> anyhow::Result<Exit> {
    let triple = triple(&arguments.channel, &arguments.topic, &arguments.subtopic)?;
    let payload = data::read(arguments.data.as_deref())?;
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
    let mut printer = Printer { output, envelope: arguments.envelope };
    let interrupted = interruption();
    let asked = async {
        if arguments.gather {
            let gather = request.gather().await?;
            printer.gathered(gather).await
        } else {
            let answers = request.answers().await?;
            printer.answers(answers).await
        }
    };
    let outcome = tokio::select! {
        outcome = asked => outcome.map(|()| Exit::Done),
        // What waited for the answer is dropped, which cancels the request.
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

/// Says who has answered; fails where somebody has not.
fn end(summary: &Summary, refused: Option<Failure>) -> Result<(), Error> {
    note(&format!("{} of {} handlers answered", summary.answered, summary.expected));
    for failed in &summary.failed {
        note(&format!("{}: {}", failed.source, failed.error_code));
    }
    if summary.expected == 0 {
        return Err(Failure::new(ErrorCode::NoHandler.as_str(), "nobody who could answer is connected").into());
    }
    match (refused, summary.failed.first()) {
        (Some(failure), _) => Err(failure.into()),
        (None, Some(failed)) => Err(Failure::new(&failed.error_code, "not every handler answered").into()),
        (None, None) => Ok(()),
    }
}
