//! `switchboard pub`: publishes one event.

use clap::Args;
use serde_json::json;

use super::connect::Connection;
use super::output::{Output, hint, note};
use super::triple::triple;
use super::{Exit, data};

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard pub Phone Call Ringing '{\"from\":\"+49301234\"}' --source softphone
  switchboard pub Phone Agent State '\"ready\"' --source softphone --retain
  switchboard pub Phone Agent State null --source softphone --retain   forgets it
  switchboard pub Crm Contact Changed @contact.json --source crm --receipt
  date +%s | switchboard pub Clock Tick Now - --source clock

A refused event is exit code 1, with or without --receipt.")]
pub(crate) struct Publish {
    /// Channel
    channel: String,
    /// Topic
    topic: String,
    /// Subtopic
    subtopic: String,
    /// The payload: JSON, @FILE, or - for standard input; none if left out
    #[arg(value_name = "DATA|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// Print the broker's receipt: how many received the event
    #[arg(long)]
    receipt: bool,
    /// Keep the event as the last value, for later subscribers
    #[arg(long)]
    retain: bool,
    /// Only for sessions of this source
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// For this user; a service has to say so on a user-scoped channel
    #[arg(long = "for", value_name = "USER")]
    for_user: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Publishes, and waits for the broker's word: only then is it known that the event was accepted.
pub(crate) async fn run(arguments: Publish, output: &mut Output) -> anyhow::Result<Exit> {
    let triple = triple(&arguments.channel, &arguments.topic, &arguments.subtopic)?;
    let payload = data::read(arguments.data.as_deref())?;
    let client = arguments.connection.connect().await?;
    let mut event = client.publish(triple, payload);
    if arguments.retain {
        event = event.retain();
    }
    if let Some(source) = arguments.target {
        event = event.target(source);
    }
    if let Some(user) = arguments.for_user {
        event = event.user(user);
    }
    let receipt = event.receipt().await;
    client.close().await;
    let receipt = receipt?;
    if receipt.reply.is_some() {
        note("a handler serves this triple: the broker took the event for a request");
        hint("`switchboard request` prints the answer");
    } else if arguments.receipt && output.is_terminal() {
        output.line(&format!("in {} outbound queues", receipt.receivers))?;
    } else if arguments.receipt {
        // As the broker says it: no hint where there is none.
        let line = match &receipt.hint {
            Some(hint) => json!({ "Receivers": receipt.receivers, "Hint": hint }),
            None => json!({ "Receivers": receipt.receivers }),
        };
        output.line(&line.to_string())?;
    }
    if let Some(text) = &receipt.hint {
        hint(text);
    }
    Ok(Exit::Done)
}
