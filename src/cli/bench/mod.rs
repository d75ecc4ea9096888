//! `switchboard bench`: puts load on a broker, and reports its speed and what it used.
//!
//! `load` runs a workload over `connection`s: `traffic` within a `window` or at a fixed rate. A `stamp` is the content of
//! each message, and a `tally` counts them. `broker` starts a broker to measure, `process` reads its CPU time and memory,
//! `progress` and `report` print, `chart` draws.

mod broker;
mod chart;
mod connection;
mod load;
mod process;
mod progress;
mod report;
mod stamp;
mod tally;
mod traffic;
mod window;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use switchboard_client::Endpoint;
use tokio::time::Instant;

use super::connect::{TOKEN_HELP, token};
use super::open_files::raise_limit;
use super::output::{Output, note};
use super::{Exit, Usage};
use broker::Broker;
use connection::Target;
use load::Plan;
use process::Process;
use progress::Progress;
use report::Report;

/// The name of the broker that is started if no URL is given.
const OWN: &str = "a broker of its own (limits.rate = 0)";

/// How long the load runs before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(1);

/// The user of all sessions, for a broker in open mode.
const USER: &str = "bench";

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Workloads:
  fanout    one publisher, --clients subscribers of one triple
  pairs     --clients publishers, each with a triple and a subscriber of its own
  request   --clients requesters of one handler, each with one request at a time
  idle      --clients connections that do nothing

Examples:
  switchboard bench                                   fanout, with a broker started for it
  switchboard bench request --clients 50 --seconds 10
  switchboard bench fanout --rate 20                  latency at a fixed rate, not at full load
  switchboard bench request --report latency.svg      the histogram as a picture, for a browser
  switchboard bench pairs --url ws://127.0.0.1:7420/ws --json | jq .latency_us

The broker that it starts has limits.rate = 0. A running broker (--url) applies its own limits.rate to each session.
CPU time and memory are reported for a broker on this machine, on Linux.
A message that was due by --rate and could not be sent counts as lost, with its lateness.
Exit code 1 means that messages were lost or repeated, or that none were delivered.")]
pub(crate) struct Bench {
    /// What to measure
    #[arg(value_enum, default_value_t = Workload::Fanout)]
    workload: Workload,
    // Not a doc comment, which would be a link.
    #[arg(
        long,
        value_name = "URL",
        help = "A running broker; wss:// for TLS, ws+unix://PATH:/ws for a Unix socket. Without it, one is started"
    )]
    url: Option<String>,
    /// Number of subscribers, pairs, requesters or connections [default: fanout and idle 1000, others 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    clients: Option<u32>,
    /// Size of a payload in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    size: u32,
    /// How long to measure, after one second of warming up
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Messages per second, of all publishers together; 0: as many as the receivers take
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = rate)]
    rate: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write a histogram of the latencies as SVG
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The process of the broker, if it cannot be found by its port
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The name to register
    #[arg(long, value_name = "NAME", default_value = "bench", help_heading = "Connection")]
    source: String,
    #[arg(long, value_name = "FILE", help_heading = "Connection", requires = "url", help = TOKEN_HELP)]
    token_file: Option<PathBuf>,
    /// A PEM file with further certificate authorities to trust for wss://
    #[arg(long, value_name = "FILE", help_heading = "Connection", requires = "url")]
    ca_file: Option<PathBuf>,
}

/// The kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// One publisher, many subscribers
    Fanout,
    /// Many publishers with a subscriber each
    Pairs,
    /// Many requesters, one handler
    Request,
    /// Connections that do nothing
    Idle,
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Pairs => "pairs",
            Self::Request => "request",
            Self::Idle => "idle",
        }
    }

    fn has_messages(self) -> bool {
        self != Self::Idle
    }

    fn clients(self) -> u32 {
        match self {
            Self::Fanout | Self::Idle => 1000,
            Self::Pairs | Self::Request => 100,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds from 0.1 to 3600".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("must be a number of messages per second from 0 to 10000000".into()),
    }
}

/// Runs the load and prints the report.
pub(crate) async fn run(arguments: Bench, output: &mut Output) -> anyhow::Result<Exit> {
    if arguments.report.is_some() && !arguments.workload.has_messages() {
        return Err(Usage::new("idle connections send no messages, so there is no latency to draw").into());
    }
    // Each connection is an open file, here as in the broker.
    raise_limit().ok();
    let clients = arguments.clients.unwrap_or(arguments.workload.clients());
    let broker = match &arguments.url {
        Some(_) => None,
        None => Some(Broker::start(clients).await?),
    };
    let url = arguments.url.clone().or_else(|| broker.as_ref().map(|it| it.url().to_owned())).unwrap_or_default();
    let target = Target {
        endpoint: Endpoint::new(&url, arguments.ca_file.as_deref())?,
        source: arguments.source.clone(),
        user: USER.to_owned(),
        token: if broker.is_none() { token(arguments.token_file.as_deref())? } else { None },
    };
    let known = arguments.pid.or_else(|| broker.as_ref().and_then(Broker::pid));
    let process = match known {
        Some(pid) => Some(Process::of(pid).ok_or_else(|| Usage::new(format!("the process {pid} cannot be examined")))?),
        None => target.process().await,
    };
    let report = measure(&arguments, clients, &target, process.as_ref()).await;
    let name = broker.as_ref().map_or(url.as_str(), |_| OWN);
    let said = match broker {
        Some(broker) => broker.end().await,
        None => None,
    };
    if let (Err(_), Some(line)) = (&report, said) {
        note(&format!("the broker's last line: {line}"));
    }
    let report = report?;
    if arguments.json {
        output.line(&report.json())?;
    } else {
        output.text(&report.text(name))?;
    }
    if let Some(file) = &arguments.report {
        let picture = report.svg(name).context("no message was measured, so there is no picture")?;
        std::fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if report.is_complete() { Exit::Done } else { Exit::Refused })
}

async fn measure(
    arguments: &Bench,
    clients: u32,
    target: &Target,
    process: Option<&Process>,
) -> anyhow::Result<Report> {
    let progress = Progress::new(arguments.workload.name());
    let before = process.and_then(Process::usage);
    let plan = Plan { clients, size: arguments.size, rate: arguments.rate };
    let ready = load::connect(arguments.workload, target, plan, &progress).await?;
    let connections = ready.connections();
    let set_up = process.and_then(Process::usage);
    let start = Instant::now() + WARM_UP;
    let end = start + Duration::from_secs_f64(arguments.seconds);
    let running = ready.begin(start, end)?;
    progress.until(start, "warming up").await;
    let (begun, delivered) = (process.and_then(Process::usage), progress.count());
    progress.until(end, "measuring").await;
    let (ended, delivered) = (process.and_then(Process::usage), progress.count() - delivered);
    progress.clear();
    let tally::Outcome { latencies, lost, sent, received } = running.end().await?;
    Ok(Report {
        workload: arguments.workload,
        url: target.endpoint.url().to_owned(),
        clients,
        connections,
        size: arguments.size,
        rate: arguments.rate,
        seconds: arguments.seconds,
        latencies,
        delivered,
        lost,
        sent,
        received,
        usage: report::Usage { before, set_up, begun, ended },
    })
}
