//! `switchboard pub`: publishes one event.

use clap::Args;
use serde_json::Value;

use super::connect::Connection;
use super::output::{Output, hint, note};
use super::triple::{id, triple};
use super::{Exit, data};
use switchboard_client::Receipt;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard pub Phone Call Ringing '{\"from\":\"+49301234\"}' --source softphone
  switchboard pub Phone Agent State '\"ready\"' --source softphone --retain
  switchboard pub Phone Agent State null --source softphone --retain   clears the retained value
  switchboard pub Crm Contact Changed @contact.json --source crm --receipt
  switchboard pub Crm Case Opened 4711 --source crm --id case-4711 --once   safe to repeat
  date +%s | switchboard pub Clock Tick Now - --source clock

A refused event is exit code 1, also without --receipt.
After exit code 3 or 4, it is unknown whether the event was delivered. With --id and --once, the
command can be repeated: in a channel with history, the event is delivered once.")]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the command line")]
pub(crate) struct Publish {
    /// Channel
    channel: String,
    /// Topic
    topic: String,
    /// Subtopic
    subtopic: String,
    /// The payload: JSON, @FILE, or - for standard input; default: no payload
    #[arg(value_name = "DATA|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// Print the broker's receipt: the number of receivers
    #[arg(long)]
    receipt: bool,
    /// Print the receipt as JSON, also on a terminal
    #[arg(long)]
    json: bool,
    /// Retain the event as the last value of its triple, for later subscribers
    #[arg(long)]
    retain: bool,
    /// The id of the event; default: a new one
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Option<String>,
    /// Deliver an event with this id at most once, in a channel with history
    #[arg(long, requires = "id")]
    once: bool,
    /// Put the payload into the field message instead of data
    #[arg(long)]
    message: bool,
    /// Send only to sessions of this source
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// The user whom the event is for; a service must name one on a user-scoped channel
    #[arg(long = "for", value_name = "USER")]
    for_user: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Publishes, and waits for the receipt: only then is it known that the event was accepted.
pub(crate) async fn run(arguments: Publish, output: &mut Output) -> anyhow::Result<Exit> {
    let triple = triple(&arguments.channel, &arguments.topic, &arguments.subtopic)?;
    let payload = data::read(arguments.data.as_deref())?;
    let payload = if arguments.message { payload.in_message() } else { payload };
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
    let mut event = event.receipt();
    if let Some(id) = arguments.id {
        event = event.id(id);
    }
    if arguments.once {
        event = event.once();
    }
    let receipt = event.await;
    client.close().await;
    let receipt = receipt?;
    if receipt.reply.is_some() {
        note("a handler serves this triple, so this was a request, not an event");
        hint("`switchboard request` prints the answer");
    } else if arguments.json || arguments.receipt && !output.is_terminal() {
        output.line(&line(&receipt).to_string())?;
    } else if arguments.receipt {
        let repeated = if receipt.duplicate { "; published before, so not delivered again" } else { "" };
        output.line(&format!("{} receivers{repeated}", receipt.receivers))?;
    }
    if let Some(text) = &receipt.hint {
        hint(text);
    }
    Ok(Exit::Done)
}

/// Returns the receipt as the broker wrote it.
fn line(receipt: &Receipt) -> Value {
    let fields = [
        ("Receivers", Some(receipt.receivers.into())),
        ("Offset", receipt.offset.map(Value::from)),
        ("Epoch", receipt.epoch.as_deref().map(Value::from)),
        ("Duplicate", receipt.duplicate.then(|| true.into())),
        ("Hint", receipt.hint.as_deref().map(Value::from)),
    ];
    fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
