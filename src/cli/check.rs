//! `switchboard check`: every mistake of a configuration, without starting anything.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::{self, Config, LoadOptions, Mistake, Mistakes, Place};

use super::plain::print;

/// The exit code for a configuration with mistakes.
const MISTAKEN: u8 = 2;

/// Check a configuration: every mistake at once, with its line
///
/// Reads what `serve` would read, environment variables included, and starts nothing. Ends with 0, or with 2 if there
/// are mistakes.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  switchboard check --config switchboard.toml\n  switchboard check --json")]
pub(crate) struct CheckArgs {
    /// The configuration file; without it, the defaults and the environment are checked
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print {"ok":…,"mistakes":[…]} for programs
    #[arg(long)]
    json: bool,
    /// Print docs/configuration.md
    #[arg(long, hide = true, exclusive = true)]
    print_reference: bool,
}

/// Runs the command.
pub(crate) fn run(args: CheckArgs) -> ExitCode {
    if args.print_reference {
        return print(&config::document());
    }
    let outcome = Config::load(LoadOptions::from_process(args.config));
    let printed = print(&if args.json { in_json(outcome.as_ref().err()) } else { in_words(&outcome) });
    if outcome.is_ok() { printed } else { ExitCode::from(MISTAKEN) }
}

fn in_words(outcome: &Result<Config, Mistakes>) -> String {
    match outcome {
        Ok(config) => {
            let warnings = config.warnings.iter().map(|warning| format!("warning: {warning}\n"));
            let summary = config.summary().into_iter().map(|line| format!("{line}\n"));
            warnings.chain(summary).chain(["no mistakes\n".to_owned()]).collect()
        }
        Err(mistakes) => match mistakes.list().len() {
            1 => format!("{mistakes}\n1 mistake\n"),
            count => format!("{mistakes}\n{count} mistakes\n"),
        },
    }
}

#[derive(Serialize)]
struct Outcome<'a> {
    ok: bool,
    mistakes: Vec<Entry<'a>>,
}

/// A mistake for programs; what does not apply is `null`.
#[derive(Serialize)]
struct Entry<'a> {
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    /// The environment variable it was written in.
    variable: Option<&'a str>,
    key: Option<&'a str>,
    message: &'a str,
    nearest: Option<&'a str>,
}

impl<'a> From<&'a Mistake> for Entry<'a> {
    fn from(mistake: &'a Mistake) -> Self {
        let (file, at, variable) = match &mistake.place {
            Place::File { path, at } => (Some(path.display().to_string()), *at, None),
            Place::Variable(name) => (None, None, Some(name.as_str())),
            Place::Flag(_) => (None, None, None),
        };
        Self {
            file,
            line: at.map(|(line, _)| line),
            column: at.map(|(_, column)| column),
            variable,
            key: mistake.key.as_deref(),
            message: &mistake.message,
            nearest: mistake.nearest.as_deref(),
        }
    }
}

fn in_json(mistakes: Option<&Mistakes>) -> String {
    let list = mistakes.map_or(&[][..], Mistakes::list);
    let outcome = Outcome { ok: mistakes.is_none(), mistakes: list.iter().map(Entry::from).collect() };
    // Strings and numbers only: nothing that could fail to be written as JSON.
    serde_json::to_string(&outcome).map(|line| line + "\n").unwrap_or_default()
}
