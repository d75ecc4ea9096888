//! `switchboard sub`: prints the events that a pattern matches, one per line.

use std::pin::pin;

use clap::Args;
use futures_util::StreamExt;

use super::connect::Connection;
use super::output::{Output, note};
use super::triple::pattern;
use super::{Exit, interruption};
use switchboard_client::{Error, State, Subscription};
use wire::ErrorCode;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard sub --source log                              every event
  switchboard sub Phone Call --source log                   every event of the topic Call
  switchboard sub '*' Call Ringing --source log --count 1   the next one, whatever its channel
  switchboard sub Phone --source log | jq .data             JSON lines when piped
  switchboard sub Broker Application Joined --source log    applications that register

'*' as channel does not match the channel Broker.
A broker in open mode sends the events of all users, unless --user names one.
The command reconnects by itself; events that were published meanwhile are missed.
Ctrl-C ends it, with exit code 0.")]
pub(crate) struct Subscribe {
    /// Channel, or '*'
    #[arg(default_value = "*")]
    channel: String,
    /// Topic, or '*'
    #[arg(default_value = "*")]
    topic: String,
    /// Subtopic, or '*'
    #[arg(default_value = "*")]
    subtopic: String,
    /// End after N events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Share the events with the other members of a group: each event goes to one member
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Print the events of this user, or of all users ('*'); needs the permission to observe
    #[arg(long, value_name = "USER")]
    observe: Option<String>,
    /// Print JSON lines, also on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Subscribes and prints until the count is reached or a signal arrives.
pub(crate) async fn run(arguments: Subscribe, output: &mut Output) -> anyhow::Result<Exit> {
    let Subscribe { channel, topic, subtopic, count, group, observe, json, connection } = arguments;
    if json {
        output.as_json();
    }
    let pattern = pattern(&channel, &topic, &subtopic)?;
    let client = connection.connect().await?;
    let subscribe = |user: Option<&str>| {
        let mut subscribing = client.subscribe(pattern.clone());
        if let Some(group) = &group {
            subscribing = subscribing.group(group);
        }
        match user {
            Some(user) => subscribing.observe(user),
            None => subscribing,
        }
    };
    let mut subscription = match &observe {
        Some(user) => subscribe(Some(user)).await?,
        None if connection.is_anyone() => match subscribe(Some("*")).await {
            // Not in open mode: the connection has another proof than a token.
            Err(error) if error.code() == Some(ErrorCode::Forbidden) => subscribe(None).await?,
            outcome => outcome?,
        },
        None => subscribe(None).await?,
    };
    let interrupted = interruption();
    note(&format!("subscribed to {pattern}"));
    let outcome = tokio::select! {
        outcome = print(&mut subscription, count, output) => outcome,
        error = narrate(client.states()) => Err(error.into()),
        () = interrupted => Ok(()),
    };
    client.close().await;
    outcome.map(|()| Exit::Done)
}

async fn print(subscription: &mut Subscription, count: Option<u64>, output: &mut Output) -> anyhow::Result<()> {
    let mut left = count;
    while left != Some(0) {
        let Some(message) = subscription.next().await else {
            return Err(subscription.error().cloned().unwrap_or(Error::Disconnected).into());
        };
        output.envelope(&message)?;
        left = left.map(|left| left.saturating_sub(1));
    }
    Ok(())
}

/// Reports lost and regained connections, until the client gives up.
pub(crate) async fn narrate(states: impl futures_util::Stream<Item = State>) -> Error {
    let mut states = pin!(states);
    let mut was_lost = false;
    while let Some(state) = states.next().await {
        match state {
            State::Connected(_) if was_lost => note("connected again"),
            State::Connected(_) | State::Connecting => {}
            State::Disconnected { reason, retry_in } => {
                was_lost = true;
                let retry_in = retry_in.as_secs_f32();
                note(&format!("{reason}; next attempt in {retry_in:.1} s"));
            }
            State::Closed { code, reason } => return Error::Closed { code, reason },
        }
    }
    Error::Disconnected
}
