//! `switchboard history`: looks at the logs of durable channels, also while a broker writes them, and repairs their file.

use std::io;

use serde::Serialize;
use serde_json::value::RawValue;

use super::data_folder::DataFolder;
use super::output::{self, Output, counted};
use super::secret::credentials_key;
use super::{Exit, Usage};
use crate::server::history_settings;
use crate::store::history::{Entry, HistorySettings, LogLine, LogName, Look, Repaired, repair, time_of};

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    folder: DataFolder,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the logs of durable channels
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Print the events of one log
    Show {
        /// The channel
        channel: String,
        /// The user; none for the log of a shared channel
        #[arg(long)]
        user: Option<String>,
        /// Print a JSON object for each event, as `export` does
        #[arg(long)]
        json: bool,
    },
    /// Print the events of all logs, a JSON object a line
    Export,
    /// Keep what is sound in a damaged file; stop the broker first
    #[command(after_help = "\
The damaged file stays beside the new one, as history.redb.damaged-TIME. A log that lost something \
gets a new epoch, so that no client takes it for whole: its recover says EPOCH. A sound file is left as \
it is.

After a backup was put back, run it with --new-epochs, before the broker starts and before \
'switchboard cluster adopt': the backup lacks the events since, and its epochs would hide that.")]
    Repair {
        /// Give every log a new epoch, also in a sound file
        #[arg(long)]
        new_epochs: bool,
    },
}

/// Runs the command.
pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let Arguments { command, folder } = arguments;
    let settings = history_settings(&folder.load()?, credentials_key());
    match command {
        Command::List { json } => list(&settings, json, output),
        Command::Show { channel, user, json } => {
            let log = LogName { channel: channel.into(), user: user.map(Into::into) };
            show(&settings, &log, json, output)
        }
        Command::Export => {
            let found = print_entries(&settings, output, |_| true, exported)?;
            Ok(found.map_or_else(|| no_history(&settings), |_| Exit::Done))
        }
        Command::Repair { new_epochs } => run_repair(&settings, new_epochs, output),
    }
}

fn no_history(settings: &HistorySettings) -> Exit {
    output::note(&format!("there is no history in {}", settings.data_dir.display()));
    Exit::Done
}

/// A log as it is printed.
#[derive(Serialize)]
struct Listed<'a> {
    channel: &'a str,
    user: Option<&'a str>,
    epoch: &'a str,
    first: u64,
    last: u64,
    entries: u64,
    bytes: u64,
}

impl<'a> Listed<'a> {
    fn new(line: &'a LogLine) -> Self {
        let LogLine { name, epoch, first, last, bytes } = line;
        let (user, entries) = (name.user.as_deref(), (last + 1).saturating_sub(*first));
        Self { channel: &name.channel, user, epoch, first: *first, last: *last, entries, bytes: *bytes }
    }

    fn cells(&self) -> [String; 7] {
        let numbers = [self.first, self.last, self.entries, self.bytes].map(|number| number.to_string());
        let [first, last, entries, bytes] = numbers;
        let user = self.user.unwrap_or("(shared)").to_owned();
        [self.channel.to_owned(), user, self.epoch.to_owned(), first, last, entries, bytes]
    }
}

fn list(settings: &HistorySettings, json: bool, output: &mut Output) -> anyhow::Result<Exit> {
    let lines = Look::new(settings).logs().map_err(Usage::new)?;
    let Some(lines) = lines else {
        if json {
            output.line("[]")?;
        }
        return Ok(no_history(settings));
    };
    let listed: Vec<_> = lines.iter().map(Listed::new).collect();
    if json {
        output.line(&serde_json::to_string(&listed)?)?;
        return Ok(Exit::Done);
    }
    let head = ["CHANNEL", "USER", "EPOCH", "FIRST", "LAST", "ENTRIES", "BYTES"].map(str::to_owned);
    for line in output::table(&std::iter::once(head).chain(listed.iter().map(Listed::cells)).collect::<Vec<_>>()) {
        output.line(&line)?;
    }
    Ok(Exit::Done)
}

/// An event as it is exported.
#[derive(Serialize)]
struct Exported<'a> {
    channel: &'a str,
    topic: &'a str,
    subtopic: &'a str,
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    epoch: &'a str,
    offset: u64,
    time: String,
    envelope: &'a RawValue,
}

fn exported(log: &LogName, epoch: &str, offset: u64, entry: &Entry) -> serde_json::Result<String> {
    serde_json::to_string(&Exported {
        channel: &log.channel,
        topic: &entry.topic,
        subtopic: &entry.subtopic,
        user: log.user.as_deref().or(entry.user.as_deref()),
        target: entry.target.as_deref(),
        epoch,
        offset,
        time: time(entry),
        envelope: serde_json::from_str(&entry.text)?,
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the same signature as `exported`")]
fn shown(_: &LogName, _: &str, offset: u64, entry: &Entry) -> serde_json::Result<String> {
    let Entry { topic, subtopic, text, .. } = entry;
    Ok(format!("{offset}  {}  {topic}/{subtopic}  {text}", time(entry)))
}

fn time(entry: &Entry) -> String {
    humantime::format_rfc3339_millis(time_of(entry.at)).to_string()
}

fn show(settings: &HistorySettings, log: &LogName, json: bool, output: &mut Output) -> anyhow::Result<Exit> {
    let print = if json { exported } else { shown };
    match print_entries(settings, output, |name| name == log, print)? {
        None => {
            no_history(settings);
            Ok(Exit::Refused)
        }
        Some(0) if !has_log(settings, log)? => {
            output::error(&format!("there is no log of {log}; 'switchboard history list' shows which there are"));
            Ok(Exit::Refused)
        }
        Some(_) => Ok(Exit::Done),
    }
}

fn has_log(settings: &HistorySettings, log: &LogName) -> anyhow::Result<bool> {
    let lines = Look::new(settings).logs().map_err(Usage::new)?;
    Ok(lines.is_some_and(|lines| lines.iter().any(|line| line.name == *log)))
}

/// Prints the events of the logs that are wanted. Returns how many; `None` if there is no history.
fn print_entries(
    settings: &HistorySettings,
    output: &mut Output,
    wants: impl Fn(&LogName) -> bool,
    text: impl Fn(&LogName, &str, u64, &Entry) -> serde_json::Result<String>,
) -> anyhow::Result<Option<u64>> {
    let (mut printed, mut outcome) = (0, Ok(()));
    let found = Look::new(settings).entries(&mut |log, epoch, offset, entry| {
        if outcome.is_ok() && wants(log) {
            printed += 1;
            outcome = text(log, epoch, offset, &entry).map_err(io::Error::other).and_then(|line| output.line(&line));
        }
    });
    let found = found.map_err(Usage::new)?;
    outcome?;
    Ok(found.then_some(printed))
}

fn run_repair(settings: &HistorySettings, new_epochs: bool, output: &mut Output) -> anyhow::Result<Exit> {
    let Some(repaired) = repair(settings, new_epochs).map_err(Usage::new)? else { return Ok(no_history(settings)) };
    for line in summary(&repaired) {
        output.line(&line)?;
    }
    Ok(Exit::Done)
}

fn summary(repaired: &Repaired) -> Vec<String> {
    let Repaired { old_file, whole, renewed, is_older, lost_others } = repaired;
    let Some(old_file) = old_file else { return vec!["the history is sound; nothing was changed".to_owned()] };
    let mut lines =
        vec![format!("{} kept as they were; the old file is {}", counted(*whole, "log"), old_file.display())];
    for (log, kept, lost) in renewed {
        let of = |number: u64| counted(usize::try_from(number).unwrap_or(usize::MAX), "event");
        lines.push(format!("{log}: a new epoch; {} kept, {} lost", of(*kept), of(*lost)));
    }
    if *is_older {
        lines.push(
            "the last commit cannot be read: each log may have lost its last events, so each has a new epoch"
                .to_owned(),
        );
    }
    if *lost_others {
        lines.push(
            "records whose names cannot be read were lost too: logs, which begin anew, ids of events with 'once', or retained \
             values"
                .to_owned(),
        );
    }
    lines
}
