//! `switchboard serve`: runs the broker until a signal ends it.

use std::env::VarError;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::ValueEnum as _;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::secret::credentials_key;
use super::signals::{Hangups, Signals, UserSignals};
use super::try_it::Example;
use super::{Exit, dump, open_files, output, reload};
use crate::config::{AuthMode, Config, LoadOptions};
use crate::server::{self, BindError, Inherited, Server};
use crate::telemetry::{self, Format};

/// How long threads that are writing to the store get to finish at the end.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// The long help text.
const LONG_ABOUT: &str = "\
Run the broker

Without --config: open development mode on 127.0.0.1:7420 and [::1]:7420. Prints one line per listener on standard \
output when it is ready; everything else goes to standard error. SIGTERM and SIGINT drain; a second one ends at once. \
SIGHUP reloads the configuration file; the log says what has changed, or why it was refused. SIGUSR1 writes what happened \
last (the flight recorder) to recent-<time>.jsonl in the data folder. Windows has neither signal.";

/// The environment variable of `--log`.
const LOG_VARIABLE: &str = "SWITCHBOARD_LOG";

/// The environment variable of `--log-format`.
const FORMAT_VARIABLE: &str = "SWITCHBOARD_LOG_FORMAT";

const EXAMPLES: &str = "\
Examples:
  switchboard serve
  switchboard serve --config /etc/switchboard.toml
  switchboard serve --listen 127.0.0.1:0 --log switchboard::router=debug,info";

/// Run the broker (the default)
#[derive(clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub(super) struct Serve {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An address to listen on (HOST:PORT or unix:PATH), instead of those in the configuration; can be repeated
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// The folder of the credential store, instead of the one in the configuration
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What to log: a level (error, warn, info, debug, trace), or levels for parts of the program
    #[arg(long, value_name = "FILTER", default_value = "info", env = LOG_VARIABLE)]
    log: String,
    /// The format of log lines
    #[arg(long, value_name = "FORMAT", default_value = "text", env = FORMAT_VARIABLE)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line; then nothing else is written to standard error
    Json,
}

/// Runs the broker until it has drained, and prints why it failed.
pub(super) fn serve(arguments: Serve) -> Exit {
    let format = match arguments.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let outcome =
        telemetry::start(&arguments.log, format).map_err(anyhow::Error::from).and_then(|()| run(arguments, format));
    outcome.unwrap_or_else(|error| {
        match format {
            Format::Text => output::error(&format!("{error:#}")),
            Format::Json => telemetry::print_error(&format!("{error:#}")),
        }
        Exit::of(&error)
    })
}

/// Returns whether the arguments, which may be wrong, ask for JSON lines.
pub(super) fn asks_for_json(arguments: &[OsString]) -> bool {
    let flag = |at: usize| arguments.get(at).is_some_and(|argument| argument == "--log-format");
    let by_flag = (0..arguments.len()).find_map(|at| match arguments.get(at)?.to_str()? {
        "json" | "text" if at > 0 && flag(at - 1) => arguments.get(at).map(|argument| argument == "json"),
        argument => argument.strip_prefix("--log-format=").map(|format| format == "json"),
    });
    by_flag.unwrap_or_else(|| std::env::var_os(FORMAT_VARIABLE).is_some_and(|format| format == "json"))
}

/// The environment variables of `serve` that are not keys of the configuration and that it would refuse, and why.
pub(super) fn wrong_variables() -> impl Iterator<Item = (&'static str, String)> {
    let filter =
        wrong_variable(LOG_VARIABLE, |filter| telemetry::check_filter(filter).map_err(|error| error.to_string()));
    let format = wrong_variable(FORMAT_VARIABLE, |format| {
        LogFormat::from_str(format, false).map(drop).map_err(|_| "must be text or json".to_owned())
    });
    filter.into_iter().chain(format)
}

/// Returns the variable and what is wrong with it, if it is set and wrong.
fn wrong_variable(
    name: &'static str,
    check: impl FnOnce(&str) -> Result<(), String>,
) -> Option<(&'static str, String)> {
    let fault = match std::env::var(name) {
        Ok(text) => check(&text).err()?,
        Err(VarError::NotPresent) => return None,
        Err(VarError::NotUnicode(_)) => "is not UTF-8".to_owned(),
    };
    Some((name, fault))
}

fn load_options(arguments: Serve) -> LoadOptions {
    let mut options = LoadOptions::from_process(arguments.config);
    options.listen = arguments.listen;
    options.data_dir = arguments.data_dir;
    options
}

fn run(arguments: Serve, format: Format) -> anyhow::Result<Exit> {
    Hangups::hold().context("signals cannot be received")?;
    let own_folder = arguments.data_dir.clone();
    // Before there are other threads: its variables are removed.
    let inherited = Inherited::take().map_err(BindError::from)?;
    let mut options = load_options(arguments);
    options.listen.extend(inherited.listen());
    let config = Config::load(options.clone())?;
    open_files::make_room(config.limits.connections);
    let runtime = runtime().context("the runtime cannot start")?;
    let outcome = runtime.block_on(serve_until_signalled(config, inherited, &options, own_folder.as_deref(), format));
    runtime.shutdown_timeout(LAST_WRITES);
    outcome
}

/// Tasks that a busy thread runs before it looks at its sockets. Each can take 200 µs (`connection::driver`), so with
/// tokio's 61 a message that had just arrived waited for up to 12 ms (benches/stall, registering).
const TASKS_BETWEEN_POLLS: u32 = 16;

/// Returns a runtime with a worker per core. A single core has the scheduler of one thread: the multi-thread scheduler
/// with one worker used 20 % more CPU per request, and as much more per event (benches/yardstick, request, 100
/// requesters).
fn runtime() -> io::Result<Runtime> {
    let mut builder = match std::thread::available_parallelism() {
        Ok(cores) if cores.get() == 1 => Builder::new_current_thread(),
        Ok(_) | Err(_) => Builder::new_multi_thread(),
    };
    builder.enable_all().event_interval(TASKS_BETWEEN_POLLS).build()
}

async fn serve_until_signalled(
    config: Config,
    inherited: Inherited,
    options: &LoadOptions,
    own_folder: Option<&Path>,
    format: Format,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::new().context("signals cannot be received")?;
    let hangups = Hangups::new().context("signals cannot be received")?;
    let user_signals = UserSignals::new().context("signals cannot be received")?;
    #[expect(clippy::disallowed_methods, reason = "the calendar enters here")]
    let calendar = SystemTime::now();
    let (summary, mut warnings) = (config.summary(), config.warnings.clone());
    warnings.extend(server::certificate_warnings(calendar, &config));
    let example = (config.auth == AuthMode::Open).then(|| Example::of(&config, own_folder));
    let server = Server::bind_with(config, credentials_key(), inherited)?;
    warnings.extend_from_slice(server.warnings());
    // A certificate of its own authority would have to be named in each command.
    let plain = server.urls().iter().find(|url| !url.starts_with("wss:"));
    introduce(&summary, &warnings, example.as_ref().zip(plain), format);
    announce(server.urls());
    announce_admin(&server.admin_urls(), format);
    let shutdown = CancellationToken::new();
    let signalled_twice = async {
        signals.ending().await;
        shutdown.cancel();
        signals.ending().await;
    };
    server.set_source(options.clone());
    let (reloader, dumps) = (server.reloader(), Arc::clone(server.dumps()));
    dumps.at_panics();
    Ok(tokio::select! {
        () = reload::at_each_hangup(hangups, &reloader, options) => Exit::Done,
        () = dump::at_each_signal(user_signals, &dumps) => Exit::Done,
        () = server.run(shutdown.cancelled()) => Exit::Done,
        () = signalled_twice => {
            tracing::warn!("a second signal: the broker ends without draining");
            Exit::Refused
        }
    })
}

/// Prints the lines that scripts wait for.
fn announce(urls: &[String]) {
    let mut lines = String::new();
    for url in urls {
        writeln!(lines, "listening on {url}").ok();
    }
    let mut out = io::stdout().lock();
    // A closed standard output does not keep the broker from serving.
    out.write_all(lines.as_bytes()).and_then(|()| out.flush()).ok();
}

/// Prints where the admin API is.
fn announce_admin(urls: &[String], format: Format) {
    for url in urls {
        match format {
            Format::Json => tracing::info!(url, "admin"),
            Format::Text => drop(writeln!(io::stderr(), "admin on {url}")),
        }
    }
}

/// Prints the version, the configuration with its warnings and, in open mode, what that means and how to try it.
fn introduce(summary: &[String], warnings: &[String], example: Option<(&Example, &String)>, format: Format) {
    let version = env!("CARGO_PKG_VERSION");
    let warnings = example.map(|_| Example::WARNING).into_iter().chain(warnings.iter().map(String::as_str));
    match format {
        Format::Json => {
            tracing::info!(version, configuration = summary.join("; "), "switchboard");
            for warning in warnings {
                tracing::warn!("{warning}");
            }
        }
        Format::Text => {
            let mut text = format!("switchboard {version}\n");
            for line in summary {
                writeln!(text, "  {line}").ok();
            }
            for warning in warnings {
                writeln!(text, "warning: {warning}").ok();
            }
            if let Some((example, url)) = example {
                writeln!(text, "{}", example.text(url)).ok();
            }
            io::stderr().write_all(text.as_bytes()).ok();
        }
    }
}
