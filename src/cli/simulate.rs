//! `switchboard simulate`: a stand-in for a system that the broker asks, to try the broker and to test against.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::net::lookup_host;

use super::output::{Output, note};
use super::{Exit, Usage, interruption};
use salesforce_stand_in::{CONTROL_HELP, DEMO_SEED, Options, Org, Seed, StartError};

/// What `switchboard simulate salesforce --help` shows after the arguments.
const EXAMPLES: &str = "\
Examples:
  switchboard simulate salesforce
  switchboard simulate salesforce --print-seed > org.json
  switchboard simulate salesforce --listen 127.0.0.1:0 --tls --seed org.json
  curl -d '{\"fault\":\"unavailable\",\"times\":3}' http://127.0.0.1:7480/simulator/faults

Without --seed it knows the client 'demo' with the secret 'demo-secret' (client credentials).
JWT bearer needs a seed whose client has \"certificate_file\": an X.509 certificate in PEM.
It is for tests and demonstrations, and trusts every caller: give it no real secrets.
";

/// Run a stand-in for a system that the broker asks
#[derive(clap::Args)]
pub(super) struct Simulate {
    #[command(subcommand)]
    system: System,
}

#[derive(clap::Subcommand)]
enum System {
    /// A Salesforce org: logins, queries, rows, and faults on demand
    Salesforce(Salesforce),
}

/// Run a Salesforce org's stand-in until a signal
#[derive(clap::Args)]
#[command(after_help = EXAMPLES.to_owned() + "\n" + CONTROL_HELP)]
struct Salesforce {
    /// Where to listen; port 0 takes any
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7480")]
    listen: String,
    /// Speak https, with a certificate authority made at start
    #[arg(long)]
    tls: bool,
    /// What the org holds (JSON)
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Print the seed that is used without --seed, and end
    #[arg(long)]
    print_seed: bool,
}

/// Runs a stand-in until it is interrupted.
pub(super) async fn run(arguments: Simulate, output: &mut Output) -> anyhow::Result<Exit> {
    let System::Salesforce(arguments) = arguments.system;
    if arguments.print_seed {
        output.text(DEMO_SEED)?;
        return Ok(Exit::Done);
    }
    let seed = match &arguments.seed {
        Some(file) => Seed::read(file),
        None => Seed::demo(),
    };
    let seed = seed.map_err(Usage::new)?;
    let listen = address(&arguments.listen).await?;
    let org = Org::start(Options { listen, tls: arguments.tls, seed }).await.map_err(|error| match error {
        StartError::Listen(..) | StartError::Seed(_) => Usage::new(error).into(),
        StartError::Tls(_) | StartError::Gadget(_) => anyhow::Error::from(error),
    })?;
    let authority = org.ca_pem().map(write_authority).transpose()?;
    let interrupted = interruption();
    output.line(&format!("salesforce stand-in on {}", org.url()))?;
    if let Some(authority) = &authority {
        output.line(&format!("certificate authority in {}", authority.display()))?;
    }
    if !listen.ip().to_canonical().is_loopback() {
        note(&format!(
            "warning: {} can be reached from other computers: anyone who reaches the stand-in can read what it holds and \
             change its faults; listen on 127.0.0.1 unless that is intended",
            org.url()
        ));
    }
    note("its control API is under /simulator; Ctrl-C ends it");
    interrupted.await;
    if let Some(authority) = &authority {
        // A file that somebody removed meanwhile is removed.
        std::fs::remove_file(authority).ok();
    }
    Ok(Exit::Done)
}

async fn address(listen: &str) -> anyhow::Result<SocketAddr> {
    let found = lookup_host(listen).await.map(|mut it| it.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) | Err(_) => Err(Usage::new(format!("--listen {listen}: not HOST:PORT")).into()),
    }
}

/// Writes the authority into a new file of the temporary folder, for clients to trust.
fn write_authority(pem: &str) -> anyhow::Result<PathBuf> {
    let name = format!("switchboard-stand-in-{:016x}.pem", rand::random::<u64>());
    let file = std::env::temp_dir().join(name);
    // New, so that nobody can lead us through a link of theirs.
    let written = |file: &Path| OpenOptions::new().write(true).create_new(true).open(file)?.write_all(pem.as_bytes());
    written(&file).with_context(|| format!("could not write {}", file.display()))?;
    Ok(file)
}
