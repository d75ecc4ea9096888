//! `switchboard sub`: prints the events that a pattern matches, one per line.

use std::pin::pin;

use clap::Args;
use futures_util::StreamExt;

use super::connect::Connection;
use super::output::{Output, note};
use super::triple::pattern;
use super::{Exit, interruption};
use switchboard_client::{Client, Error, Reconnection, Recover, State, Subscription};
use wire::ErrorCode;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard sub --source log                              every event
  switchboard sub Phone Call --source log                   every event of the topic Call
  switchboard sub '*' Call Ringing --source log --count 1   the next one, whatever its channel
  switchboard sub Phone --source log | jq .data             JSON lines when piped
  switchboard sub Phone --source log --recover last:50      the last 50 kept events, then live ones
  switchboard sub Broker Application Joined --source log    applications that register

'*' as channel does not match the channel Broker.
A broker in open mode sends the events of all users, unless --user names one.
The command reconnects by itself, and says whether events may be missing. None are if the channel
has history, or with --resume within the broker's grace.
--recover needs a channel with history, and prints what one user receives (see --observe).
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
    /// Begin with kept events: the last N, or those after a position
    #[arg(long, value_name = "last:N|EPOCH:OFFSET", conflicts_with = "group")]
    recover: Option<Recover>,
    /// Continue the session after a lost connection, so that nothing is missed
    #[arg(long)]
    resume: bool,
    /// Print JSON lines, also on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Subscribes and prints until the count is reached or a signal arrives.
pub(crate) async fn run(arguments: Subscribe, output: &mut Output) -> anyhow::Result<Exit> {
    let Subscribe { channel, topic, subtopic, count, group, observe, recover, resume, json, connection } = arguments;
    if json {
        output.as_json();
    }
    let pattern = pattern(&channel, &topic, &subtopic)?;
    let client = connection.connect_to_resume(resume).await?;
    let subscribe = |user: Option<&str>| {
        let mut subscribing = client.subscribe(pattern.clone());
        if let Some(group) = &group {
            subscribing = subscribing.group(group);
        }
        if let Some(recover) = &recover {
            subscribing = subscribing.recover(recover.clone());
        }
        match user {
            Some(user) => subscribing.observe(user),
            None => subscribing,
        }
    };
    let mut subscription = match &observe {
        Some(user) => subscribe(Some(user)).await?,
        // Of all users there is no log.
        None if connection.is_anyone() && recover.is_none() => match subscribe(Some("*")).await {
            // Not in open mode: the connection has another proof than a token.
            Err(error) if error.code() == Some(ErrorCode::Forbidden) => subscribe(None).await?,
            outcome => outcome?,
        },
        None => subscribe(None).await?,
    };
    let interrupted = interruption();
    note(&format!("subscribed to {pattern}"));
    if let Some(reason) = subscription.recover_reason() {
        note(&format!("no kept events are printed, because the broker cannot replay them: {reason}"));
    }
    let outcome = tokio::select! {
        outcome = print(&mut subscription, count, output) => outcome,
        error = narrate(&client, meaning) => Err(error.into()),
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

/// Returns what a reconnection means for the events that are printed.
fn meaning(reconnection: Reconnection) -> String {
    match reconnection {
        Reconnection::Resumed | Reconnection::Recovered => "; nothing was missed".to_owned(),
        Reconnection::Lost { since } => {
            format!("; events since {} may be missing", humantime::format_rfc3339_seconds(since))
        }
    }
}

/// Reports lost and regained connections, until the client gives up. `meaning` is added to the report of a reconnection.
pub(crate) async fn narrate(client: &Client, meaning: impl Fn(Reconnection) -> String) -> Error {
    let (mut states, mut reconnections) = (pin!(client.states()), pin!(client.reconnections()));
    loop {
        tokio::select! {
            biased;
            Some(reconnection) = reconnections.next() => note(&format!("connected again{}", meaning(reconnection))),
            state = states.next() => match state {
                Some(State::Connected(_) | State::Connecting) => {}
                Some(State::Disconnected { reason, retry_in }) => {
                    let retry_in = retry_in.as_secs_f32();
                    note(&format!("{reason}; next attempt in {retry_in:.1} s"));
                }
                Some(State::Closed { code, reason }) => return Error::Closed { code, reason },
                None => return Error::Disconnected,
            }
        }
    }
}
