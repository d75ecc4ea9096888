//! `switchboard serve`: runs the broker until a signal, and says on standard error what it runs with.

use std::env::VarError;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::open_files;
use crate::config::{AuthMode, Config, LoadOptions, Store, UserKey};
use crate::credentials::KEY_VARIABLE;
use crate::server::Server;
use crate::telemetry::{self, Format};

/// How long threads that are in the middle of a write to the store may take at the end.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// What `switchboard serve --help` adds to the arguments.
const LONG_ABOUT: &str = "\
Run the broker

Without --config: open development mode on 127.0.0.1:7420 and [::1]:7420. Prints one line per listener on standard
output when it is ready; everything else goes to standard error. SIGTERM and SIGINT drain; a second one ends at once.";

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
    /// Where to listen, in place of the configuration's addresses; may be given several times
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,
    /// Where the credential store lives, in place of the configuration's folder
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What to log: a level (error, warn, info, debug, trace), or directives for parts of the program
    #[arg(long, value_name = "FILTER", default_value = "info", env = "SWITCHBOARD_LOG")]
    log: String,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "SWITCHBOARD_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

/// Runs the broker; returns when it has drained. 2: wrong configuration, or an address that cannot be listened on.
pub(super) fn serve(arguments: Serve) -> ExitCode {
    let format = match arguments.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let outcome = telemetry::start(&arguments.log, format).map_err(anyhow::Error::from).and_then(|()| run(arguments));
    outcome.unwrap_or_else(|error| {
        tell(&format!("error: {error:#}\n"));
        ExitCode::from(2)
    })
}

fn configuration(arguments: Serve) -> anyhow::Result<Config> {
    let mut options = LoadOptions::from_process(arguments.config);
    options.listen = arguments.listen;
    options.data_dir = arguments.data_dir;
    Ok(Config::load(options)?)
}

/// The key of the credential store, where the environment holds it.
fn credentials_key() -> anyhow::Result<Option<SecretString>> {
    match std::env::var(KEY_VARIABLE) {
        Ok(text) => Ok(Some(SecretString::from(text))),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => bail!("{KEY_VARIABLE} has to hold 64 hexadecimal digits, and does not"),
    }
}

fn run(arguments: Serve) -> anyhow::Result<ExitCode> {
    let own_folder = arguments.data_dir.clone();
    let config = configuration(arguments)?;
    open_files::make_room(config.limits.connections);
    let runtime = runtime().context("no runtime")?;
    let outcome = runtime.block_on(serve_until_signalled(config, own_folder.as_deref()));
    runtime.shutdown_timeout(LAST_WRITES);
    outcome
}

/// A worker for each core. On one core the scheduler of one thread: the other, with its single worker, took 20 % more CPU
/// a request and as much an event (benches/yardstick, request, 100 askers).
fn runtime() -> io::Result<Runtime> {
    let mut builder = match std::thread::available_parallelism() {
        Ok(cores) if cores.get() == 1 => Builder::new_current_thread(),
        Ok(_) | Err(_) => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

async fn serve_until_signalled(config: Config, own_folder: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("could not listen for signals")?;
    let summary = summary(&config);
    let example = (config.auth == AuthMode::Open).then(|| Example::of(&config, own_folder));
    let server = Server::bind(config, credentials_key()?)?;
    tell(&summary);
    if let (Some(example), Some(address)) = (&example, server.addresses().first()) {
        tell(&open_mode(*address, example));
    }
    announce(server.addresses());
    let shutdown = CancellationToken::new();
    let signalled_twice = async {
        signals.next().await;
        shutdown.cancel();
        signals.next().await;
    };
    Ok(tokio::select! {
        () = server.run(shutdown.cancelled()) => ExitCode::SUCCESS,
        () = signalled_twice => {
            tell("a second signal: ended without waiting\n");
            ExitCode::FAILURE
        }
    })
}

/// The lines that scripts wait for.
fn announce(addresses: &[SocketAddr]) {
    let mut lines = String::new();
    for address in addresses {
        writeln!(lines, "listening on ws://{address}/ws").ok();
    }
    let mut out = io::stdout().lock();
    // Nobody listening to standard output is no reason not to serve.
    out.write_all(lines.as_bytes()).and_then(|()| out.flush()).ok();
}

fn tell(text: &str) {
    io::stderr().write_all(text.as_bytes()).ok();
}

fn summary(config: &Config) -> String {
    let lines: Vec<String> = config.summary().into_iter().map(|line| format!("  {line}\n")).collect();
    format!("switchboard {}\n{}", env!("CARGO_PKG_VERSION"), lines.concat())
}

/// Whose credentials the try-it fetches.
struct Example {
    user: &'static str,
    /// How they come into the store; nothing where Salesforce has them.
    stored: String,
}

impl Example {
    /// In an org, of a user of the stand-in's.
    fn of(config: &Config, own_folder: Option<&Path>) -> Self {
        let folder = own_folder.map(|folder| format!(" --data-dir '{}'", folder.display())).unwrap_or_default();
        match (config.credentials.store, config.salesforce.credentials.key) {
            (Store::Directory, _) => Self {
                user: "alice",
                stored: format!("credentials set alice --username 1245456 --extension 5051{folder}"),
            },
            (Store::Salesforce, UserKey::UserId) => Self { user: "005000000000002AAA", stored: String::new() },
            (Store::Salesforce, UserKey::Username | UserKey::Email) => {
                Self { user: "alice@example.com", stored: String::new() }
            }
            (Store::Salesforce, UserKey::FederationId) => Self { user: "alice", stored: String::new() },
        }
    }
}

/// What open mode means, and how to try it.
fn open_mode(address: SocketAddr, Example { user, stored }: &Example) -> String {
    let me = program();
    let url = format!("ws://{address}/ws");
    let stored = if stored.is_empty() { String::new() } else { format!("  {me} {stored}\n") };
    let at = if address.port() == 7420 { String::new() } else { format!(" --url {url}") };
    format!(
        "warning: open mode believes any local program: whoever connects from this computer is the `user` it says it \
         is, and may fetch that user's credentials. Use auth.mode = \"tokens\" for anything but development.\n\
         try it:\n  \
           {me} sub '*' --source spy{at}\n  \
           {me} pub Demo Hello World '{{\"n\":1}}' --source demo{at}\n\
         {stored}  \
           {me} request Salesforce User FetchCredentials --source myapp --user {user}{at}\n\
         or with any WebSocket client at {url}, a line each:\n  \
           {{\"channel\":\"Broker\",\"topic\":\"Application\",\"subtopic\":\"Register\",\"source\":\"myapp\",\
         \"data\":{{\"user\":\"{user}\"}}}}\n  \
           {{\"channel\":\"Salesforce\",\"topic\":\"User\",\"subtopic\":\"FetchCredentials\",\"source\":\"myapp\"}}\n"
    )
}

/// How this program was called: after `cargo run` there is no `switchboard` on the path.
fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default().to_string_lossy().into_owned();
    match called.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
        true if called.is_empty() => "switchboard".to_owned(),
        true => called,
        false => format!("'{called}'"),
    }
}

/// SIGTERM and SIGINT; Ctrl-C where there are no signals.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        tokio::signal::ctrl_c().await.ok();
    }
}
