//! `switchboard audit verify`: checks the chain of the audit log. Also records what `switchboard credentials` did.

use std::path::PathBuf;

use super::output::{self, Output};
use super::{Exit, Usage};
use crate::audit::{self, Entry, Event, Report};
use crate::config::{Config, LoadOptions};
use crate::credentials::Settings;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check that no record of the audit log was removed or altered
    #[command(after_help = "Exit codes:
  0  whole
  1  broken; each place is printed as FILE:LINE
  2  the log cannot be read

Older files (FILE.1 and so on) are checked too, oldest first. Records from before there were hashes are counted.
The last record has to be the one whose hash is in audit.lock. If a person could change that file too, note the \
last hash elsewhere, and look for it in the log later.")]
    Verify {
        /// The log; default: audit.jsonl in the data folder
        file: Option<PathBuf>,
        /// The data folder; default: that of the configuration, or else the platform's data folder
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The configuration file, which names the data folder
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Runs the command.
pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let Command::Verify { file, data_dir, config } = arguments.command;
    let path = match file {
        Some(file) => file,
        None => {
            let options = LoadOptions { data_dir, ..LoadOptions::from_process(config) };
            audit::path_in(&Config::load(options)?.data_dir)
        }
    };
    let report = audit::verify(&path).map_err(|error| Usage::new(format!("the audit log cannot be read: {error}")))?;
    for place in &report.breaks {
        output::error(&format!("{}:{}: {}", place.file.display(), place.line, place.why));
    }
    for line in summary(&report) {
        output.line(&line)?;
    }
    Ok(if report.broken == 0 { Exit::Done } else { Exit::Refused })
}

fn summary(report: &Report) -> Vec<String> {
    let count = |number: u64, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    let verdict = match report.broken {
        0 => "whole".to_owned(),
        broken => format!("broken in {}", count(broken, "place", "places")),
    };
    let files = count(report.files.len() as u64, "file", "files");
    let mut lines = vec![format!("{verdict}: {} in {files}", count(report.records, "record", "records"))];
    let mut say = |number: u64, one: &str, many: &str| {
        if number > 0 {
            lines.push(count(number, one, many));
        }
    };
    say(report.before_chain, "record from before the chain", "records from before the chain");
    say(report.cut, "line cut short by a crash", "lines cut short by a crash");
    say(report.lost, "record could not be written", "records could not be written");
    say(
        report.unrecorded,
        "refusal of an unregistered connection beyond the limit",
        "refusals of unregistered connections beyond the limit",
    );
    if report.begins_later {
        lines.push("the first record follows one in an older file that is not there".to_owned());
    }
    if report.last_is_elsewhere {
        lines.push("the last record is in none of these files; the next one has its hash".to_owned());
    }
    if let Some(hash) = &report.last {
        lines.push(format!("hash of the last line: {hash}"));
    }
    lines
}

/// What `switchboard credentials` did.
pub(super) enum Done<'a> {
    Set { user: &'a str },
    Removed { user: &'a str },
    Imported { users: usize },
    Rekeyed { users: usize },
}

/// Records what `switchboard credentials` did. It is done already, so a record that cannot be written is a warning.
pub(super) fn record(settings: &Settings, done: &Done<'_>) {
    let entry = match done {
        Done::Set { user } => Entry {
            user: Some(user),
            fields: ["username", "password", "extension", "adfs_username"].map(Into::into).to_vec(),
            ..Entry::new(Event::CredentialsSet)
        },
        Done::Removed { user } => Entry { user: Some(user), ..Entry::new(Event::CredentialsRemoved) },
        Done::Imported { users } => Entry { count: Some(*users as u64), ..Entry::new(Event::CredentialsImported) },
        Done::Rekeyed { users } => Entry { count: Some(*users as u64), ..Entry::new(Event::Rekeyed) },
    };
    #[cfg(unix)]
    let entry = Entry { uid: Some(rustix::process::getuid().as_raw()), ..entry };
    if let Err(error) = audit::append(&settings.data_dir, &entry) {
        output::note(&format!("done, but without an audit record: {error}"));
    }
}
