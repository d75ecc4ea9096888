//! `switchboard sessions`: lists the sessions of a broker.

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Arguments, Client};
use crate::cli::Exit;
use crate::cli::output::{self, Output};
use crate::http::encode;

/// The sessions that are asked for at once.
const PAGE: usize = 1000;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard sessions
  switchboard sessions --user alice@example.com
  switchboard sessions --sort queue --json | jq '.[0]'

With --sort, the first 1,000 sessions in that order: longest registered, longest queue, most messages a second, or most \
events lost. QUEUE is messages that wait to be sent to the session, RATE messages a second that it sends, and DROPPED the \
events that its full queue has lost.")]
pub(crate) struct Sessions {
    /// Of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The order of the list
    #[arg(long, value_name = "ORDER")]
    sort: Option<Sort>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Arguments,
}

/// What sessions are sorted by.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Sort {
    Queue,
    Rate,
    Since,
    Dropped,
}

impl Sort {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Rate => "rate",
            Self::Since => "since",
            Self::Dropped => "dropped",
        }
    }
}

/// What is shown of a session.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session {
    id: String,
    source: String,
    user: Option<String>,
    state: String,
    since: String,
    queue: Queue,
    rate: f64,
    dropped: u64,
    subscriptions: usize,
    handlers: usize,
}

#[derive(Deserialize)]
struct Queue {
    messages: usize,
}

/// Asks for the list and prints it.
pub(crate) async fn run(arguments: Sessions, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::open(&arguments.admin)?;
    let mut parameters = vec![format!("limit={PAGE}")];
    let named = [("source", &arguments.source), ("user", &arguments.user)];
    parameters.extend(named.iter().filter_map(|(key, value)| Some(format!("{key}={}", encode(value.as_ref()?)))));
    parameters.extend(arguments.sort.map(|sort| format!("sort={}", sort.as_str())));
    let items = all(&client, "/v1/sessions", &parameters.join("&")).await?;
    if arguments.json {
        output.line(&Value::from(items).to_string())?;
        return Ok(Exit::Done);
    }
    let sessions = items.into_iter().map(serde_json::from_value).collect::<Result<Vec<Session>, _>>()?;
    for line in table(&sessions) {
        output.line(&line)?;
    }
    Ok(Exit::Done)
}

/// Returns every item of a list, of all its pages.
async fn all(client: &Client, path: &str, parameters: &str) -> anyhow::Result<Vec<Value>> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut page = client.call(Method::GET, &format!("{path}?{parameters}{cursor}"), None, None).await?.body;
        if let Some(found) = page.get_mut("items").and_then(Value::as_array_mut) {
            items.append(found);
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={}", encode(next)),
            None => return Ok(items),
        }
    }
}

/// Returns sessions as a table.
pub(super) fn table(sessions: &[Session]) -> Vec<String> {
    let head = ["SOURCE", "USER", "STATE", "SINCE", "SUBSCRIBED", "QUEUE", "RATE", "DROPPED", "ID"].map(str::to_owned);
    let row = |it: &Session| {
        [
            it.source.clone(),
            it.user.as_deref().unwrap_or("(service)").to_owned(),
            it.state.clone(),
            it.since.clone(),
            (it.subscriptions + it.handlers).to_string(),
            it.queue.messages.to_string(),
            format!("{:.1}", it.rate),
            it.dropped.to_string(),
            it.id.clone(),
        ]
    };
    output::table(&std::iter::once(head).chain(sessions.iter().map(row)).collect::<Vec<_>>())
}
