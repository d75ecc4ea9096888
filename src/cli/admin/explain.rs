//! `switchboard explain`: says who would get an envelope now, and why others would not.

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Arguments, Client};
use crate::cli::output::Output;
use crate::cli::request::duration;
use crate::cli::triple::{id, triple};
use crate::cli::{Exit, Usage};
use crate::server::explain::{
    Chosen, Details, Differs, Effect, Explanation, Other, Reason, Receiver, SenderPaused, Verdict, Who,
};

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard explain Phone Call Ringing --source gadget --user alice --to screenpop
  switchboard explain Crm Contact Find --source softphone --user alice --timeout 3s
  switchboard explain Queue Stats Changed --source wallboard --json | jq -r '.others[].reason'

Says what the envelope would be if this source sent it now, who would get it, and why the others would not, or the one that --to \
names. Nothing is sent, and the turns of groups and handlers stay as they are. docs/operate.md explains each reason.")]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the command line")]
pub(crate) struct Explain {
    /// Channel
    channel: String,
    /// Topic
    topic: String,
    /// Subtopic
    subtopic: String,
    /// The source that sends, which is connected
    #[arg(long, value_name = "NAME")]
    source: String,
    /// Its user; of a service, the user that it names
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Send to this source only
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// The id of the envelope
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Option<String>,
    /// Make it a request with this time limit
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Make it a request to all handlers
    #[arg(long)]
    gather: bool,
    /// Retain the event
    #[arg(long)]
    retain: bool,
    /// Deliver the event at most once
    #[arg(long)]
    once: bool,
    /// The source that the question is about
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Its user; default: the user of the envelope
    #[arg(long, value_name = "USER", requires = "to")]
    to_user: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Arguments,
}

impl Explain {
    /// The question, as the call takes it.
    fn question(&self) -> Result<Value, Usage> {
        let triple = triple(&self.channel, &self.topic, &self.subtopic)?;
        let mut envelope = Map::new();
        for (name, part) in [("channel", &triple.channel), ("topic", &triple.topic), ("subtopic", &triple.subtopic)] {
            envelope.insert(name.to_owned(), Value::from(&**part));
        }
        for (name, text) in [("user", &self.user), ("target", &self.target), ("id", &self.id)] {
            envelope.extend(text.as_deref().map(|text| (name.to_owned(), Value::from(text))));
        }
        for (name, is_set) in [("gather", self.gather), ("retain", self.retain), ("once", self.once)] {
            envelope.extend(is_set.then(|| (name.to_owned(), Value::from(true))));
        }
        if let Some(timeout) = self.timeout {
            let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            envelope.insert("timeout".to_owned(), ms.into());
        }
        let mut question = json!({ "as": { "source": self.source, "user": self.user }, "envelope": envelope });
        if let (Some(source), Value::Object(question)) = (&self.to, &mut question) {
            question.insert("to".to_owned(), json!({ "source": source, "user": self.to_user }));
        }
        Ok(question)
    }
}

/// Asks, and prints the answer.
pub(crate) async fn run(arguments: Explain, output: &mut Output) -> anyhow::Result<Exit> {
    let question = arguments.question()?;
    let client = Client::open(&arguments.admin)?;
    let answer = client.call(Method::POST, "/v1/explain", Some(&question), None).await?;
    if arguments.json {
        output.line(&answer.body.to_string())?;
        return Ok(Exit::Done);
    }
    let what = format!("{}/{}/{}", arguments.channel, arguments.topic, arguments.subtopic);
    for line in lines(&what, &serde_json::from_value(answer.body)?) {
        output.line(&line)?;
    }
    Ok(Exit::Done)
}

/// The answer for a person.
fn lines(what: &str, answer: &Explanation) -> Vec<String> {
    let mut lines = vec![verdict(what, answer)];
    match answer.sender_paused {
        None => {}
        Some(SenderPaused::Rate) => {
            lines.push("The sender is not being read at this moment: it is faster than its rate.".to_owned());
        }
        Some(SenderPaused::Pressure) => {
            lines.push(
                "The sender is not being read at this moment: its queue, or a receiver's, is over half.".to_owned(),
            );
        }
    }
    let (there, others): (Vec<_>, Vec<_>) = answer.others.iter().partition(|it| it.details.receives.is_some());
    if !answer.receives.is_empty() {
        lines.push("Receives it:".to_owned());
        lines.extend(answer.receives.iter().map(|receiver| format!("  {}", of_receiver(receiver))));
    } else if there.is_empty() && matches!(answer.verdict, Verdict::Event | Verdict::Gather | Verdict::Reply) {
        lines.push("Nobody receives it.".to_owned());
    }
    if answer.more_receivers > 0 {
        lines.push(format!("  and {} more", answer.more_receivers));
    }
    if !there.is_empty() {
        lines.push("Receives it from another node:".to_owned());
        lines.extend(there.iter().map(|other| format!("  {}", of_other(other))));
    }
    if !others.is_empty() {
        lines.push("Does not receive it:".to_owned());
        lines.extend(others.iter().map(|other| format!("  {}", of_other(other))));
    }
    for (reason, count) in &answer.more_others {
        lines.push(format!("  and {count} more: {}", name(*reason)));
    }
    if answer.partial {
        lines.push("A node of the cluster did not answer, so this may not be all.".to_owned());
    }
    lines
}

/// What the envelope is.
fn verdict(what: &str, answer: &Explanation) -> String {
    let rule = match answer.rule.starts_with(|first: char| first.is_ascii_digit() || first == 'O') {
        true => format!("rule {}", answer.rule),
        false => format!("docs/protocol.md, {}", answer.rule),
    };
    let is = match answer.verdict {
        Verdict::Event => "is an event",
        Verdict::Request => "is a request",
        Verdict::Command => "is a request whose handler does not answer",
        Verdict::Gather => "is a request to every handler",
        Verdict::Reply => "is a reply",
        Verdict::Duplicate => "was sent before, and is not delivered again",
        Verdict::Refused => {
            let code = answer.code.as_deref().unwrap_or_default();
            let message = answer.message.as_deref().unwrap_or_default();
            return format!("{what} is refused with {code}: {message} ({rule}).");
        }
    };
    format!("{what} {is} ({rule}).")
}

/// The source of a session, and whose it is.
fn of_who(who: &Who) -> String {
    match (&who.user, &who.session) {
        (Some(user), _) => format!("{} of {user}", who.source),
        (None, Some(_)) => format!("{} (a service)", who.source),
        (None, None) => who.source.clone(),
    }
}

fn of_receiver(receiver: &Receiver) -> String {
    let node = receiver.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
    format!("{}{node}{}: {}", of_who(&receiver.who), by_pattern(receiver), at_receiver(receiver))
}

/// By which subscription a session gets an envelope.
fn by_pattern(receiver: &Receiver) -> String {
    let mut words = String::new();
    if let (Some(pattern), Some(since)) = (&receiver.pattern, &receiver.since) {
        words = format!("{words}, by {pattern} since {since}");
    }
    if let Some(group) = &receiver.group {
        words = format!("{words}, in group '{group}'");
    }
    words
}

/// What an envelope does at its receiver.
fn at_receiver(receiver: &Receiver) -> String {
    let effect = match receiver.effect {
        Effect::Queued => "the message is queued",
        Effect::DropsOldest => "its oldest events are dropped for the message",
        Effect::Dropped => "its queue is full, and the message is dropped",
        Effect::Closes => "its queue overflows, and the session is closed",
        Effect::Waits => "its late reply is awaited first, so the request waits",
    };
    let chosen = match receiver.chosen {
        None => "",
        Some(Chosen::Only) => "; it is the only handler",
        Some(Chosen::Rank) => "; it comes before the other handlers by rank",
        Some(Chosen::Load) => "; it is less busy than the next handler",
        Some(Chosen::Asleep) => "; the next handler is asleep",
        Some(Chosen::Away) => "; the next handler is away",
        Some(Chosen::Missed) => "; the next handler missed its last time limit",
        Some(Chosen::Turn) => "; the late reply of the next handler is awaited",
    };
    format!("{}, {} waiting; {effect}{chosen}", receiver.state, receiver.queue.messages)
}

fn of_other(other: &Other) -> String {
    let mut line = format!("{}: {}, {}", of_who(&other.who), name(other.reason), why(other.reason, &other.details));
    if !other.also.is_empty() {
        let also: Vec<String> = other.also.iter().copied().map(name).collect();
        line = format!("{line}; also {}", also.join(", "));
    }
    line
}

/// A reason as the answer has it.
fn name(reason: Reason) -> String {
    serde_json::to_value(reason).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
}

/// A reason in words.
fn why(reason: Reason, details: &Details) -> String {
    let or_other = |who: &Option<Who>| who.as_ref().map_or_else(|| "another session".to_owned(), of_who);
    match reason {
        Reason::NotRegistered => not_registered(details),
        Reason::Elsewhere => elsewhere(details),
        Reason::IsSender => "it is the sender".to_owned(),
        Reason::OtherUser => "it belongs to another user, and the channel is user-scoped".to_owned(),
        Reason::Target => "the envelope names another source as its target".to_owned(),
        Reason::NoMatch => no_match(details),
        Reason::IsRequest => match &details.handler {
            Some(handler) => format!("it only subscribes, and this is a request, for {}", of_who(handler)),
            None => "it only subscribes, and this is a request".to_owned(),
        },
        Reason::IsEvent => {
            format!("it only handles, and this is an event: {}", details.why.as_deref().unwrap_or_default())
        }
        Reason::Protected => {
            let pattern = details.protected_by.as_deref().unwrap_or_default();
            format!("the triple is protected by {pattern}, and it may not handle it")
        }
        Reason::Permission => match (&details.right, &details.decided_by) {
            (Some(right), Some(rule)) => format!("its pattern matches, but its right '{right}' does not: {rule}"),
            _ => "its pattern matches, but its permission does not".to_owned(),
        },
        Reason::UserFilter => match &details.named {
            Some(named) => format!("it subscribed for {named}"),
            None => "it subscribed for other users".to_owned(),
        },
        Reason::Group => format!("{} gets it, of the same group", or_other(&details.member)),
        Reason::NotChosen => format!("another handler is chosen: {}", not_chosen(details)),
    }
}

/// What is known of a session of another node.
fn elsewhere(details: &Details) -> String {
    let node = details.node.as_deref().unwrap_or("another node");
    match &details.receives {
        Some(receiver) => {
            format!(
                "it is connected to {node}, and receives it there{}: {}",
                by_pattern(receiver),
                at_receiver(receiver)
            )
        }
        None => format!("it is connected to {node}"),
    }
}

fn not_registered(details: &Details) -> String {
    let mut words = "no session of this name is registered".to_owned();
    if let Some(nearest) = &details.nearest {
        words = format!("{words}; did you mean '{}'?", nearest.name);
    }
    if let Some(left) = &details.left {
        let code = left.code.map(|code| format!(" with {code}")).unwrap_or_default();
        words = format!("{words}; the last one left at {}{code}: {}", left.at, left.reason);
    }
    words
}

fn no_match(details: &Details) -> String {
    let mut words = "none of its subscriptions matches".to_owned();
    if let Some(nearest) = &details.nearest {
        let differs = match nearest.differs {
            Differs::Case => "letter case",
            Differs::Swapped => "the order of the parts",
            Differs::Spelling => "the spelling",
        };
        words = format!("{words}; {} differs in {differs}", nearest.name);
    }
    for ended in &details.ended {
        let role = if ended.role == "handler" { "handler of" } else { "subscription to" };
        words = format!("{words}; its {role} {} ended at {}: {}", ended.pattern, ended.at, ended.reason);
    }
    words
}

fn not_chosen(details: &Details) -> &str {
    match details.why.as_deref() {
        Some("rank") => "one that comes before it by rank",
        Some("load") => "one that is less busy",
        Some("asleep") => "this one is asleep",
        Some("away") => "this one is away",
        Some("missed") => "this one missed its last time limit",
        Some("turn") => "the late reply of this one is awaited",
        Some(other) => other,
        None => "by rank or load",
    }
}
