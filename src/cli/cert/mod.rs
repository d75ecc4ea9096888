//! `switchboard cert`: makes, renews and shows the certificates of a broker without a company's authority.

mod trust;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;

use super::Exit;
use super::output::{self, Output};
use crate::certificates::{Folder, Host, Leaf};
use crate::config::{Config, LoadOptions};

/// The most days that a certificate lives: Safari accepts no more.
const DAYS_MAX: i64 = 825;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// The folder of the certificates; default: tls in the data folder
    #[arg(long, global = true, value_name = "DIR")]
    out: Option<PathBuf>,

    /// The data folder; default: that of the configuration, or else the platform's data folder
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "out")]
    data_dir: Option<PathBuf>,

    /// The configuration file, which names the data folder
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "out")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a certificate authority of this machine, and a certificate that it signs
    #[command(after_help = "Examples:
  switchboard cert new
  switchboard cert new --host broker.example.com --host 10.1.2.3 --out /etc/switchboard/tls
  switchboard cert trust

Writes ca.pem, ca.key, cert.pem and key.pem. Existing files are never overwritten. The authority can sign \
certificates of these hosts only, and of names below them (app.broker.example.com), for 10 years. Programs that connect have to \
trust ca.pem.")]
    New(New),
    /// Replace cert.pem by a new certificate of the same authority with the same names, key and number of days
    Renew,
    /// Show names, end and fingerprint of the certificate and its authority
    Show,
    /// Print how to make this system and browsers trust the authority; changes nothing
    Trust,
}

#[derive(Debug, clap::Args)]
struct New {
    /// A name or an address that clients connect to; can be repeated
    #[arg(long = "host", value_name = "HOST", default_values = ["localhost", "127.0.0.1", "::1"])]
    hosts: Vec<Host>,
    /// The number of days that the certificate is valid, 1 to 825
    #[arg(long, value_name = "DAYS", default_value = "397", value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
}

/// Runs the command.
pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    #[expect(clippy::disallowed_methods, reason = "the calendar enters here, once")]
    let now = SystemTime::now();
    let folder = folder(arguments.out, arguments.data_dir, arguments.config)?;
    let text = match arguments.command {
        Command::New(New { hosts, days }) => {
            let hosts = distinct(hosts);
            let life = Duration::from_hours(24 * u64::from(days));
            let leaf = folder.create(now, &machine(), &hosts, life)?;
            made(&folder, &leaf)
        }
        Command::Renew => {
            let leaf = folder.renew(now)?;
            format!("{}\n{}", folder.certificate().display(), facts(&leaf))
        }
        Command::Show => {
            let (leaf, (_, authority)) = (folder.read()?, folder.read_authority()?);
            if leaf.is_warning_due(now) {
                output::note(&warning(&leaf, now));
            }
            shown(&folder, &leaf, &authority)
        }
        Command::Trust => {
            let (der, authority) = folder.read_authority()?;
            let path = std::path::absolute(folder.authority())?;
            trust::text(trust::System::this(), &path, &der, &authority)
        }
    };
    output.text(&text)?;
    Ok(Exit::Done)
}

/// Returns the folder that the arguments name. Only the default needs the configuration.
fn folder(out: Option<PathBuf>, data_dir: Option<PathBuf>, config: Option<PathBuf>) -> anyhow::Result<Folder> {
    if let Some(out) = out {
        return Ok(Folder::new(out));
    }
    let options = LoadOptions { data_dir, ..LoadOptions::from_process(config) };
    Ok(Folder::new(Config::load(options)?.data_dir.join("tls")))
}

/// Returns each host once, in the order of the command line.
fn distinct(hosts: Vec<Host>) -> Vec<Host> {
    let mut distinct = Vec::with_capacity(hosts.len());
    for host in hosts {
        if !distinct.contains(&host) {
            distinct.push(host);
        }
    }
    distinct
}

/// The name of this computer.
fn machine() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    if name.is_empty() { "this computer".to_owned() } else { name }
}

fn made(folder: &Folder, leaf: &Leaf) -> String {
    format!(
        "{}  the authority, for programs that connect (switchboard cert trust)\n\
         {}  its key: keep it here, or move it away if the certificate is not to be renewed here\n\
         {}\n{}{}  its key\n",
        folder.authority().display(),
        folder.authority_key().display(),
        folder.certificate().display(),
        facts(leaf),
        folder.key().display(),
    )
}

fn shown(folder: &Folder, leaf: &Leaf, authority: &Leaf) -> String {
    format!("{}\n{}{}\n{}", folder.certificate().display(), facts(leaf), folder.authority().display(), facts(authority))
}

/// Names, if there are any, end and fingerprint.
fn facts(leaf: &Leaf) -> String {
    let names = if leaf.names.is_empty() { String::new() } else { format!("  names:   {}\n", leaf.names.join(", ")) };
    let (end, fingerprint) = (format_rfc3339_seconds(leaf.not_after), hex::encode(leaf.sha256));
    format!("{names}  ends:    {end}\n  SHA-256: {fingerprint}\n")
}

fn warning(leaf: &Leaf, now: SystemTime) -> String {
    match leaf.not_after.duration_since(now) {
        Ok(left) => format!(
            "the certificate ends in {}; 'switchboard cert renew' renews it",
            output::counted(usize::try_from(left.as_secs() / 86400).unwrap_or(usize::MAX), "day")
        ),
        Err(_) => "the certificate has expired; 'switchboard cert renew' renews it".to_owned(),
    }
}
