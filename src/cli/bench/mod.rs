//! `switchboard bench`: loads a broker and tells how fast it was, and what it cost.
//!
//! `load` makes the traffic, one workload each, within a `window` or at a rate; `connection` opens, registers, reads and
//! writes; a `stamp` is what a message bears. `broker` starts a broker to measure, `process` asks the system what it used,
//! `progress` and `report` print, `chart` draws.

mod broker;
mod chart;
mod connection;
mod load;
mod process;
mod progress;
mod report;
mod stamp;
mod window;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::time::Instant;

use super::connect::token;
use super::open_files::raise_limit;
use super::output::Output;
use super::{Exit, Usage};
use broker::Broker;
use connection::Target;
use load::Plan;
use process::Process;
use progress::Progress;
use report::Report;

/// The broker that is measured where no URL is given.
const OWN: &str = "a broker of its own (limits.rate = 0)";

/// How long it runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// The user that all sessions are of, where the broker believes it.
const USER: &str = "bench";

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Workloads:
  fanout    one publisher, --clients subscribers of one triple
  pairs     --clients publishers, each with a triple and a subscriber of its own
  request   --clients ask one handler, wait for the answer, and ask again
  idle      --clients connections that do nothing

Examples:
  switchboard bench                                   fanout, on a broker that is started for it
  switchboard bench request --clients 50 --seconds 10
  switchboard bench fanout --rate 20                  latency at a fixed rate, not at full load
  switchboard bench request --report latency.svg      the histogram as a picture, for a browser
  switchboard bench pairs --url ws://127.0.0.1:7420/ws --json | jq .latency_us

The broker that it starts runs with limits.rate = 0; one that runs already reads each session at its own limits.rate.
CPU and memory are told of a broker on this machine, on Linux. Exit code 1 says that messages were lost or repeated.")]
pub(crate) struct Bench {
    /// What to measure
    #[arg(value_enum, default_value_t = Workload::Fanout)]
    workload: Workload,
    /// A broker that runs already; without it, one is started
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Subscribers, pairs, askers or connections [default: fanout and idle 1000, others 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    clients: Option<u32>,
    /// Bytes of a payload
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    size: u32,
    /// How long to measure, after a second to warm up
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Messages published a second, by all together; 0: as many as the receivers take
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = rate)]
    rate: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Draw the latencies as SVG
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The process of the broker, where it cannot be found by its port
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The name to register under
    #[arg(long, value_name = "NAME", default_value = "bench", help_heading = "Connection")]
    source: String,
    /// A file that holds the token; without it, the environment variable `SWITCHBOARD_TOKEN`
    #[arg(long, value_name = "FILE", help_heading = "Connection", requires = "url")]
    token_file: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// One publisher, many subscribers
    Fanout,
    /// Many publishers with a subscriber each
    Pairs,
    /// Many askers, one handler
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
        _ => Err("it has to be a number of seconds, from 0.1 to 3600".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("it has to be a number of messages a second, from 0 to 10000000".into()),
    }
}

/// Loads and reports.
pub(crate) async fn run(arguments: Bench, output: &mut Output) -> anyhow::Result<Exit> {
    if arguments.report.is_some() && !arguments.workload.has_messages() {
        return Err(Usage::new("idle connections send nothing, so there is no latency to draw").into());
    }
    // Each connection is an open file here, as it is in the broker.
    raise_limit().ok();
    let clients = arguments.clients.unwrap_or(arguments.workload.clients());
    let broker = match &arguments.url {
        Some(_) => None,
        None => Some(Broker::start(clients).await?),
    };
    let url = arguments.url.clone().or_else(|| broker.as_ref().map(|it| it.url().to_owned())).unwrap_or_default();
    let mut target = Target::of(&url)?;
    target.source.clone_from(&arguments.source);
    USER.clone_into(&mut target.user);
    if broker.is_none() {
        target.token = token(arguments.token_file.as_deref())?;
    }
    let known = arguments.pid.or_else(|| broker.as_ref().and_then(Broker::pid));
    let process = match known {
        Some(pid) => Some(Process::of(pid).ok_or_else(|| Usage::new(format!("cannot look at the process {pid}")))?),
        None => target.address().await.ok().and_then(Process::listening_on),
    };
    let report = measure(&arguments, clients, &target, process.as_ref()).await?;
    let name = broker.as_ref().map_or(url.as_str(), |_| OWN);
    if arguments.json {
        output.line(&report.json())?;
    } else {
        output.text(&report.text(name))?;
    }
    if let Some(file) = &arguments.report {
        let picture = report.svg(name).context("no message was measured, so there is nothing to draw")?;
        std::fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if report.lost == 0 { Exit::Done } else { Exit::Refused })
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
    let load::Outcome { latencies, lost, sent, received } = running.end().await?;
    Ok(Report {
        workload: arguments.workload,
        url: target.url.clone(),
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
