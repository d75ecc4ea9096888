//! The command line: arguments, exit codes, terminal output. No other room knows the terminal.
//!
//! Each command is one file with its arguments, their help, and a `run` that returns an [`Exit`] or an error.
//! [`Exit::of`] turns every error into an exit code.

mod admin;
mod apps;
mod audit;
mod bench;
mod cert;
mod check;
mod cluster;
mod completions;
mod conformance;
mod connect;
mod credentials;
mod data;
mod data_folder;
mod dump;
mod exec;
mod handle;
mod history;
mod man;
pub mod open_files;
mod output;
mod permissions;
mod prompt;
mod publish;
mod reload;
mod request;
mod secret;
mod serve;
mod signals;
#[cfg(feature = "simulator")]
mod simulate;
mod subscribe;
mod token;
mod triple;
mod try_it;
mod usage;

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Mistakes;
use crate::server::{BindError, ClusterError};
use crate::telemetry::TelemetryError;
use admin::CallError;
use output::Output;
use switchboard_client::Error;
use wire::{ErrorCode, Reconnect};

/// What `switchboard --help` shows first.
const EXAMPLES: &str = "\
Try it, each in a terminal of its own:
  switchboard serve                                      run a broker for this machine
  switchboard sub Phone --source log                     print the events of a channel
  switchboard pub Phone Call Ringing '{\"from\":\"+4930123\"}' --source softphone
  switchboard credentials set local --username 1001 --extension 5051
  switchboard request Salesforce User FetchCredentials --source softphone

Exit codes:
  0  done
  1  refused or failed; standard error has CODE: message
  2  wrong usage, configuration, key or store, or an address in use
  3  could not connect, or lost the connection
  4  timed out";

/// The whole command line.
#[derive(Parser)]
#[command(
    name = "switchboard",
    version,
    about = "Message broker for the applications on a call-centre agent's desktop",
    override_usage = "switchboard [COMMAND]",
    after_help = EXAMPLES,
    help_template = "{about-with-newline}\n{usage-heading} {usage}{after-help}\n\n{all-args}",
    max_term_width = 120
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    /// Print the events that a pattern matches
    Sub(subscribe::Subscribe),
    /// Publish an event
    Pub(publish::Publish),
    /// Send a request to a handler, and print the answer
    Request(request::Request),
    /// Answer requests, with fixed JSON or a command
    Handle(handle::Handle),
    /// List the connected applications
    Apps(apps::Apps),
    /// Say whether a broker is ready
    Health(admin::Health),
    /// Watch a broker live
    Top(admin::Top),
    /// List the sessions of a broker
    Sessions(admin::Sessions),
    /// List the nodes of a cluster
    Nodes(admin::Nodes),
    /// Close sessions
    Close(admin::Close),
    /// Say who would get a message, and why others would not
    Explain(admin::Explain),
    /// Open the console of a broker in the browser
    Console(admin::Console),
    /// Find out what keeps a page in a browser from connecting
    Doctor(admin::Doctor),
    /// Reload the configuration of a broker
    Reload(admin::Reload),
    /// Show what happened last in a broker
    Recent(admin::Recent),
    /// Drain a broker, and end its process
    Drain(admin::Drain),
    /// Measure the speed of a broker
    Bench(bench::Bench),
    /// Check a client against the protocol
    Conformance(conformance::Conformance),
    /// Manage the credentials that agents fetch
    Credentials(credentials::Arguments),
    /// Check the audit log
    Audit(audit::Arguments),
    /// Look at the logs of durable channels, and repair their file
    History(history::Arguments),
    /// Move what one broker kept into a cluster
    Cluster(cluster::Arguments),
    /// Make tokens for applications
    Token(token::TokenArgs),
    /// Make and renew certificates for TLS
    Cert(cert::Arguments),
    /// Find the mistakes in a configuration
    Check(check::CheckArgs),
    /// Run a simulated Salesforce org
    #[cfg(feature = "simulator")]
    Simulate(simulate::Simulate),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Write man pages
    Man(man::Man),
}

/// The exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// The operation was refused or failed.
    Refused = 1,
    /// Wrong usage, configuration, key or store, or an address in use.
    Usage = 2,
    /// The connection could not be made, or was lost.
    Unreachable = 3,
    /// No answer within the time limit.
    TimedOut = 4,
}

impl Exit {
    /// Returns the exit code of an error.
    fn of(error: &anyhow::Error) -> Self {
        if let Some(error) = error.downcast_ref::<Error>() {
            return match error {
                Error::Invalid(_) => Self::Usage,
                Error::Unreachable { .. } | Error::Handshake { .. } | Error::Disconnected | Error::OutcomeUnknown => {
                    Self::Unreachable
                }
                Error::Closed { code: Some(code), .. } => Self::after_close(*code),
                Error::TimedOut(_) => Self::TimedOut,
                Error::Refused(failure) if failure.code() == Some(ErrorCode::RequestTimeout) => Self::TimedOut,
                Error::Refused(_) | Error::Closed { .. } | Error::Protocol(_) | _ => Self::Refused,
            };
        }
        if let Some(error) = error.downcast_ref::<CallError>() {
            return error.exit();
        }
        match error.downcast_ref::<io::Error>() {
            // The reader of the output has stopped, as `head` does.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Self::Done,
            _ if error.is::<Usage>() || error.is::<TelemetryError>() => Self::Usage,
            _ if is_unreachable(error) => Self::Unreachable,
            _ if error.is::<Mistakes>() || error.is::<BindError>() => Self::Usage,
            _ => Self::Refused,
        }
    }

    /// Returns how the program ends after the broker closed its connection: a close after which a client reconnects is a
    /// lost connection, any other a refusal.
    fn after_close(code: u16) -> Self {
        match Reconnect::after(code) {
            Reconnect::BackOff | Reconnect::AfterDelay => Self::Unreachable,
            Reconnect::DropMessage | Reconnect::NewToken | Reconnect::Stop => Self::Refused,
        }
    }
}

/// Whether the broker did not start because NATS does not answer.
fn is_unreachable(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(BindError::Cluster(ClusterError::Unreachable { .. })))
}

/// A mistake in the arguments, or in something that they name.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Usage {
    message: String,
    hint: Option<&'static str>,
}

impl Usage {
    /// A mistake with this message.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), hint: None }
    }

    /// Adds a hint.
    pub(crate) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

/// Runs the command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if serves(arguments.get(1)) {
        arguments.insert(1.min(arguments.len()), "serve".into());
    }
    let words = arguments.clone();
    let command_line = match CommandLine::try_parse_from(arguments) {
        Ok(command_line) => command_line,
        Err(error) => return ExitCode::from(usage::print(error, &words)),
    };
    let mut output = Output::new();
    dispatch(command_line.command, &mut output).unwrap_or_else(|error| {
        let exit = Exit::of(&error);
        if exit != Exit::Done {
            output::error(&format!("{error:#}"));
            if let Some(hint) = hint_for(&error) {
                output::hint(hint);
            }
        }
        ExitCode::from(exit as u8)
    })
}

/// Returns a hint for an error.
fn hint_for(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<CallError>() {
        return error.hint();
    }
    match error.downcast_ref() {
        // Without a file at the path of a Unix socket, the kind is NotFound.
        Some(Error::Unreachable { kind: io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound, .. }) => {
            Some("no broker is listening there; `switchboard serve` starts one, --url gives another address")
        }
        Some(Error::Unreachable { kind: io::ErrorKind::InvalidData, reason, .. })
            if reason.contains("InvalidContentType") =>
        {
            Some("what listens there does not speak TLS; try ws:// in place of wss://, or the port of tls.listen")
        }
        Some(Error::Unreachable { kind: io::ErrorKind::InvalidData, .. }) => {
            Some("--ca-file names the certificate authority of a broker whose certificate this computer does not trust")
        }
        // The answer of the probe, or that of an unknown path.
        Some(Error::Handshake { status: 200 | 404, .. }) => {
            Some("the WebSocket is at /ws; --url is like ws://127.0.0.1:7420/ws")
        }
        Some(error) if error.code() == Some(ErrorCode::Unauthenticated) => {
            Some("--token-file or SWITCHBOARD_TOKEN gives the token of the application in --source")
        }
        _ => error.downcast_ref::<Usage>().and_then(|usage| usage.hint),
    }
}

/// Returns whether the arguments begin without a command. Then the command is `serve`.
fn serves(first: Option<&OsString>) -> bool {
    let own = ["-h", "--help", "-V", "--version"];
    first.is_none_or(|first| first.to_string_lossy().starts_with('-') && !own.iter().any(|flag| first == flag))
}

fn dispatch(command: Command, output: &mut Output) -> anyhow::Result<ExitCode> {
    let exit = match command {
        Command::Serve(arguments) => Ok(serve::serve(arguments)),
        Command::Credentials(arguments) => Ok(credentials::run(&arguments)),
        Command::Audit(arguments) => audit::run(arguments, output),
        Command::History(arguments) => history::run(arguments, output),
        Command::Cluster(arguments) => cluster::run(arguments, output),
        Command::Token(arguments) => token::run(&arguments, output),
        Command::Cert(arguments) => cert::run(arguments, output),
        Command::Check(arguments) => check::run(&arguments, output),
        Command::Sub(arguments) => block_on(subscribe::run(arguments, output)),
        Command::Pub(arguments) => block_on(publish::run(arguments, output)),
        Command::Request(arguments) => block_on(request::run(arguments, output)),
        Command::Handle(arguments) => block_on(handle::run(arguments, output)),
        Command::Apps(arguments) => block_on(apps::run(arguments, output)),
        Command::Health(arguments) => block_on(admin::health(arguments, output)),
        Command::Top(arguments) => block_on(admin::top(arguments, output)),
        Command::Sessions(arguments) => block_on(admin::sessions(arguments, output)),
        Command::Nodes(arguments) => block_on(admin::nodes(arguments, output)),
        Command::Close(arguments) => block_on(admin::close(arguments, output)),
        Command::Explain(arguments) => block_on(admin::explain(arguments, output)),
        Command::Console(arguments) => block_on(admin::console(arguments, output)),
        Command::Doctor(arguments) => block_on(admin::doctor(arguments, output)),
        Command::Reload(arguments) => block_on(admin::reload(arguments, output)),
        Command::Recent(arguments) => block_on(admin::recent(arguments, output)),
        Command::Drain(arguments) => block_on(admin::drain(arguments)),
        Command::Bench(arguments) => block_on(bench::run(arguments, output)),
        Command::Conformance(arguments) => block_on(conformance::run(arguments, output)),
        #[cfg(feature = "simulator")]
        Command::Simulate(arguments) => block_on(simulate::run(arguments, output)),
        Command::Completions(arguments) => completions::run(&arguments, CommandLine::command(), output),
        Command::Man(arguments) => man::run(&arguments, CommandLine::command()),
    };
    exit.map(|exit| ExitCode::from(exit as u8))
}

/// Runs a command that connects to a broker.
fn block_on(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    // A test can have set another subscriber.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(output::colours())
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_target(false)
        .try_init()
        .ok();
    // One worker, which serves the connection while this thread is blocked on a full pipe.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(command)
}

/// Waits for Ctrl-C, on Unix also for SIGTERM, and for SIGHUP unless `nohup` is in effect. Signals are received from this
/// call on, not from the first poll: a script can send one as soon as it reads that a command is ready.
fn interruption() -> impl Future<Output = ()> {
    #[cfg(unix)]
    {
        use std::task::Poll;
        use tokio::signal::unix::{SignalKind, signal};
        // A signal that cannot be received ends the program.
        let hangup = (!ignores_hangup()).then(SignalKind::hangup);
        let kinds = [Some(SignalKind::interrupt()), Some(SignalKind::terminate()), hangup];
        let mut signals = kinds.map(|kind| kind.and_then(|kind| signal(kind).ok()));
        std::future::poll_fn(move |context| {
            let mut signals = signals.iter_mut().flatten();
            if signals.any(|signal| signal.poll_recv(context).is_ready()) { Poll::Ready(()) } else { Poll::Pending }
        })
    }
    #[cfg(not(unix))]
    async {
        tokio::signal::ctrl_c().await.ok();
    }
}

/// Returns whether this program was started with SIGHUP ignored, as by `nohup`. Without `/proc`, it is left as it is.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Bit 0 is signal 1, which is SIGHUP.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 == 1)
}
