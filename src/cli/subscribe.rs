//! `switchboard sub`: prints the events that a pattern matches, one a line.

use std::pin::pin;

use clap::Args;
use futures_util::StreamExt;

use super::connect::Connection;
use super::output::{Output, note};
use super::triple::pattern;
use super::{Exit, interruption};
use switchboard_client::{Error, State, Subscription};

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard sub --source log                              every event
  switchboard sub Phone Call --source log                   every event of the topic Call
  switchboard sub '*' Call Ringing --source log --count 1   the next one, whatever its channel
  switchboard sub Phone --source log | jq .data             JSON lines when piped
  switchboard sub Broker Application Joined --source log    who comes

Events of the channel Broker have to be named.
It reconnects by itself; what was published meanwhile is missed.
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
    /// End after this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Share the events with the other members of a group, one each
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Hear a user's events, or with '*' everybody's; needs the permission to observe
    #[arg(long, value_name = "USER")]
    observe: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Subscribes and prints until the count is reached or a signal comes.
pub(crate) async fn run(arguments: Subscribe, output: &mut Output) -> anyhow::Result<Exit> {
    let Subscribe { channel, topic, subtopic, count, group, observe, connection } = arguments;
    let pattern = pattern(&channel, &topic, &subtopic)?;
    let client = connection.connect().await?;
    let mut subscribing = client.subscribe(pattern.clone());
    if let Some(group) = group {
        subscribing = subscribing.group(group);
    }
    if let Some(user) = observe {
        subscribing = subscribing.observe(user);
    }
    let mut subscription = subscribing.await?;
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

/// Tells of lost and regained connections, until there is no hope of another.
pub(crate) async fn narrate(states: impl futures_util::Stream<Item = State>) -> Error {
    let mut states = pin!(states);
    let mut was_lost = false;
    while let Some(state) = states.next().await {
        match state {
            // That everything is well from the start needs no words.
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
