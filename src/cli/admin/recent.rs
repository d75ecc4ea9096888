//! `switchboard recent`: shows what happened last in a broker.

use std::fmt::Write as _;

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::client::{Arguments, Client};
use crate::cli::Exit;
use crate::cli::output::{self, Output};
use crate::http::encode;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard recent --source softphone
  switchboard recent --id 4711
  switchboard recent --code FORBIDDEN --follow --json | jq -r .source

Shows registrations, subscriptions and their ends, refusals, requests with outcome and latency, changes of state, closes, \
and events, oldest first. The broker keeps them in memory (recorder.bytes); the last line, on standard error, says how far \
back. Of one session, it keeps 64 events a second, and the number of the rest.")]
pub(crate) struct Recent {
    /// Of sessions with this source, or handled by them
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Of sessions of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Of the session with this id
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// With this id: of a message, or the broker's of a request or a subscription
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// On this channel
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// With this error code, or this status code of a Close frame
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Go on with what happens, until interrupted
    #[arg(long)]
    follow: bool,
    /// Print each entry as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Arguments,
}

/// The most entries that the broker answers.
const LIMIT: usize = 10_000;

/// Asks, and prints the answer.
pub(crate) async fn run(arguments: Recent, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::open(&arguments.admin)?;
    let mut path = format!("/v1/recent?limit={LIMIT}");
    let wanted = [
        ("source", &arguments.source),
        ("user", &arguments.user),
        ("session", &arguments.session),
        ("id", &arguments.id),
        ("channel", &arguments.channel),
        ("code", &arguments.code),
    ];
    for (name, value) in wanted {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            write!(path, "&{name}={}", encode(value)).ok();
        }
    }
    if arguments.follow {
        path.push_str("&follow=true");
        let mut events = client.stream(&path).await?;
        while let Some((event, data)) = events.next().await? {
            match event.as_str() {
                "entry" => print(output, &data, arguments.json)?,
                "reach" => output::note(&reach(&data)),
                "skipped" => {
                    output::note(&format!("{} entries were overwritten before they were read", field(&data, "count")));
                }
                _ => {}
            }
        }
        return Ok(Exit::Unreachable);
    }
    let answer = client.call(Method::GET, &path, None, None).await?.body;
    for row in field(&answer, "items").as_array().into_iter().flatten() {
        print(output, row, arguments.json)?;
    }
    if let Some(older @ 1..) = field(&answer, "older").as_u64() {
        output::note(&format!("{older} older entries match too; POST /v1/recent/dump writes all to a file"));
    }
    output::note(&reach(field(&answer, "reach")));
    Ok(Exit::Done)
}

/// How far back the rings reach.
fn reach(reach: &Value) -> String {
    let since = |ring: &str| field(reach, ring).as_str().unwrap_or("?").to_owned();
    format!("recorded since {} (events since {})", since("important"), since("events"))
}

/// A member of an object; `null` without it.
fn field<'v>(value: &'v Value, key: &str) -> &'v Value {
    value.get(key).unwrap_or(&Value::Null)
}

fn print(output: &mut Output, row: &Value, json: bool) -> std::io::Result<()> {
    match json {
        true => output.line(&row.to_string()),
        false => output.line(&line(row)),
    }
}

/// One entry for a person.
fn line(row: &Value) -> String {
    let text = |key: &str| field(row, key).as_str().unwrap_or_default();
    let mut line = format!("{}  {:<12}", text("at"), text("what").replace('_', " "));
    // Writing to a string cannot fail.
    match (text("source"), text("user")) {
        ("", "") => {}
        (source, "") => write!(line, " {source}").unwrap_or_default(),
        (source, user) => write!(line, " {source} of {user}").unwrap_or_default(),
    }
    if !text("handler").is_empty() {
        write!(line, " -> {}", text("handler")).ok();
    }
    if field(row, "channel").is_string() {
        write!(line, "  {}/{}/{}", text("channel"), text("topic"), text("subtopic")).ok();
    }
    for key in ["role", "state", "outcome", "code", "reason"] {
        if !text(key).is_empty() {
            write!(line, "  {}", text(key)).ok();
        }
    }
    let named = [
        ("closeCode", "code"),
        ("latencyMs", "ms"),
        ("receivers", "receivers"),
        ("bytes", "bytes"),
        ("offset", "offset"),
        ("count", "count"),
        ("id", "id"),
        ("requestId", "request"),
        ("subscriptionId", "subscription"),
        ("traceparent", "traceparent"),
    ];
    for (key, name) in named {
        match field(row, key) {
            Value::Null => {}
            Value::String(text) => write!(line, "  {name}={text}").unwrap_or_default(),
            other => write!(line, "  {name}={other}").unwrap_or_default(),
        }
    }
    if *field(row, "duplicate") == true {
        line.push_str("  duplicate");
    }
    line
}
