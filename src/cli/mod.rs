//! The command line: arguments, exit codes, what a terminal shows. Nothing else knows the terminal.
//!
//! Each command is one file: its arguments with their help, and a `run` that gives an [`Exit`] or an error. What an
//! error means for the exit code is decided in one place, [`Exit::of`].

mod apps;
mod bench;
mod check;
mod completions;
mod connect;
mod credentials;
mod data;
mod handle;
mod open_files;
mod output;
mod publish;
mod request;
mod serve;
mod simulate;
mod subscribe;
mod token;
mod triple;

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use output::Output;
use switchboard_client::Error;
use wire::ErrorCode;

/// What `switchboard --help` shows first.
const EXAMPLES: &str = "\
Try it, each in a terminal of its own:
  switchboard serve                                      run a broker for this machine
  switchboard sub Phone --source log                     register, and hear a channel
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
    /// Ask a handler, and print its answer
    Request(request::Request),
    /// Answer requests, from a file or a command
    Handle(handle::Handle),
    /// List the applications that are connected
    Apps(apps::Apps),
    /// Load a broker, and tell how fast it is
    Bench(bench::Bench),
    /// Look after the credentials that agents fetch
    Credentials(credentials::Arguments),
    /// Make tokens for applications
    Token(token::TokenArgs),
    /// Find the mistakes in a configuration
    Check(check::CheckArgs),
    /// Run a stand-in for a system that the broker asks
    Simulate(simulate::Simulate),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// The operation was refused or failed.
    Refused = 1,
    /// Wrong usage or configuration, a key or store that will not do, an address in use.
    Usage = 2,
    /// No connection, or no longer.
    Unreachable = 3,
    /// No answer in time.
    TimedOut = 4,
}

impl Exit {
    /// What an error means.
    fn of(error: &anyhow::Error) -> Self {
        if let Some(error) = error.downcast_ref::<Error>() {
            return match error {
                Error::Invalid(_) => Self::Usage,
                Error::Unreachable { .. } | Error::Handshake { .. } | Error::Disconnected => Self::Unreachable,
                Error::TimedOut(_) => Self::TimedOut,
                Error::Refused(failure) if failure.code() == Some(ErrorCode::RequestTimeout) => Self::TimedOut,
                Error::Refused(_) | Error::Closed { .. } | Error::Protocol(_) | _ => Self::Refused,
            };
        }
        match error.downcast_ref::<io::Error>() {
            // Whoever read the output has had enough, as `head` has.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Self::Done,
            _ if error.is::<Usage>() => Self::Usage,
            _ => Self::Refused,
        }
    }
}

/// A mistake in the arguments, or in what they name.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Usage {
    message: String,
    hint: Option<&'static str>,
}

impl Usage {
    /// A mistake in words.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), hint: None }
    }

    /// With what may help.
    pub(crate) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

/// Runs the command that the arguments name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if serves(arguments.get(1)) {
        arguments.insert(1.min(arguments.len()), "serve".into());
    }
    let command_line = match CommandLine::try_parse_from(arguments) {
        Ok(command_line) => command_line,
        Err(error) => {
            // Help that nobody reads to its end is no failure.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
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

/// What may help against an error.
fn hint_for(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref() {
        Some(Error::Unreachable { kind: io::ErrorKind::ConnectionRefused, .. }) => {
            Some("nothing listens there; `switchboard serve` starts a broker, --url names another address")
        }
        // The probe's answer, or that of a path which nobody knows.
        Some(Error::Handshake { status: 200 | 404, .. }) => {
            Some("the WebSocket is at /ws; --url is like ws://127.0.0.1:7420/ws")
        }
        Some(error) if error.code() == Some(ErrorCode::Unauthenticated) => {
            Some("--token-file or SWITCHBOARD_TOKEN gives the token of the application that --source names")
        }
        _ => error.downcast_ref::<Usage>().and_then(|usage| usage.hint),
    }
}

/// Whether no command is named: then it is `serve`, with the flags that follow.
fn serves(first: Option<&OsString>) -> bool {
    let own = ["-h", "--help", "-V", "--version"];
    first.is_none_or(|first| first.to_string_lossy().starts_with('-') && !own.iter().any(|flag| first == flag))
}

fn dispatch(command: Command, output: &mut Output) -> anyhow::Result<ExitCode> {
    let exit = match command {
        Command::Serve(arguments) => return Ok(serve::serve(arguments)),
        Command::Credentials(arguments) => return Ok(credentials::run(&arguments)),
        Command::Token(arguments) => token::run(&arguments, output),
        Command::Check(arguments) => check::run(&arguments, output),
        Command::Sub(arguments) => block_on(subscribe::run(arguments, output)),
        Command::Pub(arguments) => block_on(publish::run(arguments, output)),
        Command::Request(arguments) => block_on(request::run(arguments, output)),
        Command::Handle(arguments) => block_on(handle::run(arguments)),
        Command::Apps(arguments) => block_on(apps::run(arguments, output)),
        Command::Bench(arguments) => block_on(bench::run(arguments, output)),
        Command::Simulate(arguments) => block_on(simulate::run(arguments, output)),
        Command::Completions(arguments) => completions::run(&arguments, CommandLine::command(), output),
    };
    exit.map(|exit| ExitCode::from(exit as u8))
}

/// Runs a command that speaks to a broker.
fn block_on(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    // Another subscriber stands where a test has set one.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(output::colours())
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_target(false)
        .try_init()
        .ok();
    // One worker: the connection is looked after there, also while this thread waits for a pipe to be read.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(command)
}

/// Ends with Ctrl-C, on Unix also with SIGTERM. Both are listened for from this call on, not from the first poll: a
/// script may send one as soon as it reads that a command is ready.
fn interruption() -> impl Future<Output = ()> {
    #[cfg(unix)]
    {
        use std::task::Poll;
        use tokio::signal::unix::{SignalKind, signal};
        // A signal that cannot be listened for ends the program by itself.
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok());
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
