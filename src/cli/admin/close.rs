//! `switchboard close`: ends sessions, or sends their clients to connect again.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Arguments, Client};
use crate::cli::Exit;
use crate::cli::output::{Output, counted};

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard close --user alice@example.com --reason 'left the company'
  switchboard close --source dialer --reason 'new version' --reconnect

Closes the sessions that match everything that is given. Their applications get the reason and stop; with --reconnect they \
connect again, at times that are spread. In a cluster, sessions of all nodes are closed. An application is not locked out by this: to keep it out, remove its token and \
reload. Needs a token that may act.")]
pub(crate) struct Close {
    /// Sessions of this source
    #[arg(long, value_name = "NAME", required_unless_present_any = ["user", "session"])]
    source: Option<String>,
    /// Sessions of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The session with this id
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Why, for the application and its user; at most 120 bytes
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Let the applications connect again
    #[arg(long)]
    reconnect: bool,
    #[command(flatten)]
    admin: Arguments,
}

/// Closes the sessions, and prints how many there were.
pub(crate) async fn run(arguments: Close, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::open(&arguments.admin)?;
    let mut body = json!({ "reason": arguments.reason, "reconnect": arguments.reconnect });
    for (key, value) in [("source", arguments.source), ("user", arguments.user), ("session", arguments.session)] {
        if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
            body.insert(key.to_owned(), value.into());
        }
    }
    let answer = client.call(Method::POST, "/v1/sessions/close", Some(&body), None).await?;
    let closed = answer.body.get("closed").and_then(Value::as_u64).unwrap_or_default();
    output.line(&format!("closed {}", counted(usize::try_from(closed).unwrap_or(usize::MAX), "session")))?;
    let silent = answer.body.get("unanswered").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if silent.is_empty() {
        return Ok(Exit::Done);
    }
    let names: Vec<_> = silent.iter().filter_map(Value::as_str).collect();
    anyhow::bail!("no answer within 2 s from {}: sessions of these nodes may still be open", names.join(", "))
}
