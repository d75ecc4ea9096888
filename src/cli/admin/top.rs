//! `switchboard top`: a live view of a broker in the terminal.
//!
//! Each picture is made from two answers, `/v1/stats` and `/v1/sessions`. On a terminal it is drawn again until Ctrl-C; into
//! a pipe it is written once.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use super::client::{Arguments, CallError, Client};
use super::sessions::{self, Session, Sort};
use crate::cli::output::{Output, one_line};
use crate::cli::{Exit, interruption};

/// How much of the past the rates and refusals are about.
const WINDOW: &str = "1m";

/// The alternative screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The upper left corner, and everything below a position.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard top
  switchboard top --sort rate --every 1s
  switchboard top | head

Shows the sessions, what passes through the broker, what it refused in the last minute, and the first sessions by the chosen \
order. Ctrl-C ends it. Into a pipe, it writes one picture.")]
pub(crate) struct Top {
    /// The order of the sessions
    #[arg(long, value_name = "ORDER", default_value = "queue")]
    sort: Sort,
    /// How often to draw
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = every)]
    every: Duration,
    #[command(flatten)]
    admin: Arguments,
}

fn every(text: &str) -> Result<Duration, String> {
    let wanted = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = Duration::from_millis(250)..=Duration::from_hours(1);
    if bounds.contains(&wanted) { Ok(wanted) } else { Err("must be from 250ms to 1h".to_owned()) }
}

/// What is shown of `/v1/stats`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    node: String,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sample {
    seconds: f64,
    sessions: u64,
    envelopes: u64,
    deliveries: u64,
    refusals: std::collections::BTreeMap<String, u64>,
    requests: Requests,
    queue: Queue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Requests {
    count: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

#[derive(Deserialize)]
struct Queue {
    sum: u64,
    max: u64,
}

#[derive(Deserialize)]
struct Sessions {
    items: Vec<Session>,
}

/// Draws until it is interrupted.
pub(crate) async fn run(arguments: Top, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::open(&arguments.admin)?;
    let first = picture(&client, arguments.sort, 20).await?;
    if !output.is_terminal() {
        output.text(&first)?;
        return Ok(Exit::Done);
    }
    output.text(ENTER)?;
    let outcome = tokio::select! {
        drawn = draw(&client, &arguments, output) => drawn,
        () = interruption() => Ok(Exit::Done),
    };
    output.text(LEAVE)?;
    outcome
}

async fn draw(client: &Client, arguments: &Top, output: &mut Output) -> anyhow::Result<Exit> {
    let mut ticks = interval(arguments.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (rows, columns) = size();
        let text = match picture(client, arguments.sort, rows.saturating_sub(9)).await {
            Ok(text) => text,
            // The broker may return.
            Err(error) if error.downcast_ref().is_some_and(CallError::is_passing) => format!("{error:#}\n"),
            Err(error) => return Err(error),
        };
        let mut screen = HOME.to_owned();
        for line in text.lines().take(rows.saturating_sub(1)) {
            let shown: String = line.chars().take(columns).collect();
            write!(screen, "{shown}{CLEAR_LINE}\r\n").ok();
        }
        screen.push_str(CLEAR_BELOW);
        output.text(&screen)?;
    }
}

/// Returns the rows and columns of the terminal.
fn size() -> (usize, usize) {
    #[cfg(unix)]
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout()) {
        return (usize::from(size.ws_row).max(12), usize::from(size.ws_col).max(40));
    }
    (24, 80)
}

async fn picture(client: &Client, sort: Sort, rows: usize) -> anyhow::Result<String> {
    let stats = client.call(Method::GET, &format!("/v1/stats?window={WINDOW}"), None, None).await?.body;
    let path = format!("/v1/sessions?sort={}&limit={}", sort.as_str(), rows.clamp(1, 1000));
    let sessions = client.call(Method::GET, &path, None, None).await?.body;
    let (stats, sessions): (Stats, Sessions) = (serde_json::from_value(stats)?, serde_json::from_value(sessions)?);
    Ok(text(&stats, &sessions.items, sort))
}

/// Returns the picture.
fn text(stats: &Stats, sessions: &[Session], sort: Sort) -> String {
    let last = stats.samples.last();
    let rate = |count: fn(&Sample) -> u64| last.map_or(0.0, |it| per_second(count(it), it.seconds));
    let mut text = format!("switchboard on {}\n\n", one_line(&stats.node, true));
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    if let Some(it) = last {
        writeln!(
            text,
            "{} sessions   {:.0} messages/s   {:.0} deliveries/s   {:.1} requests/s, p50 {}, p99 {}",
            it.sessions,
            rate(|it| it.envelopes),
            rate(|it| it.deliveries),
            rate(|it| it.requests.count),
            ms(it.requests.p50_ms),
            ms(it.requests.p99_ms),
        )
        .ok();
        writeln!(text, "{} messages wait to be sent, {} of them for one session", it.queue.sum, it.queue.max).ok();
    } else {
        text.push_str("no sample yet: the broker takes one every 5 s\n\n");
    }
    let mut refusals = std::collections::BTreeMap::new();
    for (code, count) in stats.samples.iter().flat_map(|it| &it.refusals) {
        *refusals.entry(code.as_str()).or_insert(0) += count;
    }
    let refused: Vec<_> =
        refusals.iter().filter(|(_, count)| **count > 0).map(|(code, count)| format!("{code} {count}")).collect();
    let refused = if refused.is_empty() { "nothing".to_owned() } else { refused.join(", ") };
    writeln!(text, "refused in the last minute: {refused}\n").ok();
    writeln!(text, "sessions by {}", sort.as_str()).ok();
    for line in sessions::table(sessions) {
        writeln!(text, "{}", one_line(&line, true)).ok();
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
