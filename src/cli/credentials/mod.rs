//! `switchboard credentials`: manages the embedded store, also while a broker is using it.
//!
//! A password is read from a prompt or standard input, never from an argument, which other users of the computer can
//! see. It is never printed.

mod import;
mod list;
mod set;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::credentials::{Directory, DirectoryError, OldRecords, Rekeyed, Settings};

use super::audit::{self, Done};
use super::data_folder::DataFolder;
use super::secret::credentials_key;
use super::{Exit, output};
use wire::ErrorCode;

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
    /// Store a user's credentials; asks for the password twice, or reads it as the only line of standard input
    #[command(after_help = "Examples:
  switchboard credentials set alice@example.com --username 1245456 --extension 5051
  vault read -field=password cti/alice | switchboard credentials set alice@example.com --username 1245456 --extension 5051")]
    Set(set::Set),
    /// List all users, without passwords
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Show the credentials of a user, without the password
    Show {
        /// The user
        user: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove a user's credentials
    Remove {
        /// The user
        user: String,
    },
    /// Store the rows of a CSV or JSON file
    #[command(after_help = "Columns of the CSV file, or keys of the JSON objects in an array:
  user,username,password,extension,adfs_username

Examples:
  switchboard credentials import agents.csv --dry-run
  switchboard credentials import agents.csv
  switchboard credentials import agents.json --partial

Without --partial, nothing is stored if a row is bad. Users that are already stored get the new values.")]
    Import(import::Arguments),
    /// Encrypt the store with a new key; stop the broker first
    Rekey {
        /// The file of the new key, which is created if it does not exist; default: the present key file is replaced
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
}

/// Runs the command, and prints why it failed.
pub(super) fn run(arguments: &Arguments) -> Exit {
    let outcome = settings(&arguments.folder)
        .and_then(|settings| execute(&arguments.command, &settings, &mut anstream::stdout().lock()));
    match outcome {
        Ok(()) => Exit::Done,
        Err(failure) => {
            output::error(&failure.message);
            failure.exit
        }
    }
}

/// Why a command failed.
struct Failure {
    exit: Exit,
    /// Begins with an error code if there is one.
    message: String,
}

impl Failure {
    fn refused(message: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, message: message.into() }
    }

    fn unusable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    fn no_such_user(user: &str, settings: &Settings) -> Self {
        let (code, folder) = (ErrorCode::CredentialsNotFound, settings.data_dir.display());
        Self::refused(format!("{code}: no credentials are stored for the user '{user}' in {folder}"))
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::unusable(error.to_string())
    }
}

/// Returns the settings of the store, from arguments, file and environment.
fn settings(folder: &DataFolder) -> Result<Settings, Failure> {
    let config = folder.clone().load().map_err(|mistakes| Failure::unusable(mistakes.to_string()))?;
    Ok(Settings::new(&config, credentials_key()))
}

fn execute(command: &Command, settings: &Settings, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Set(new) => set::run(new, settings, out),
        Command::List { json } => list::run(settings, *json, out),
        Command::Show { user, json } => list::show(settings, user, *json, out),
        Command::Remove { user } => remove(settings, user, out),
        Command::Import(arguments) => import::run(arguments, settings, out),
        Command::Rekey { new_key_file } => rekey(settings, new_key_file.as_deref(), out),
    }
}

fn remove(settings: &Settings, user: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let directory = existing(settings, user)?;
    if !directory.remove(user)? {
        return Err(Failure::no_such_user(user, settings));
    }
    audit::record(settings, &Done::Removed { user });
    say(out, format_args!("removed '{user}' from {}\n", settings.data_dir.display()))?;
    erase_old_records(&directory, settings, 1);
    Ok(())
}

fn rekey(settings: &Settings, new_key_file: Option<&Path>, out: &mut dyn Write) -> Result<(), Failure> {
    let Rekeyed { users: count, old_records, key_fault } = Directory::rekey(settings, new_key_file)?;
    // The store has its new key, whatever could not be done afterwards.
    audit::record(settings, &Done::Rekeyed { users: count });
    say(out, format_args!("encrypted the credentials of {} with the new key\n", users(count)))?;
    if let OldRecords::LeftOnDisk(error) = old_records {
        output::note(&left_on_disk(&error));
    }
    key_fault.map_or(Ok(()), |error| Err(error.into()))
}

/// Erases the records that were replaced or removed; this command did that to `count` of them. The change itself is done,
/// so a failure is only reported.
fn erase_old_records(directory: &Directory, settings: &Settings, count: usize) {
    match directory.erase_old_records() {
        Ok(OldRecords::Kept) if count > 0 => output::note(&format!(
            "a broker runs on {}: the old values stay in its store, encrypted, until it is restarted",
            settings.data_dir.display()
        )),
        Ok(OldRecords::Erased | OldRecords::Kept) => {}
        Ok(OldRecords::LeftOnDisk(error)) => output::note(&left_on_disk(&error)),
        Err(error) => output::note(&format!(
            "the old values are still in the store, encrypted; the next command that changes it, or the broker's next \
             start, tries to erase them again: {error}"
        )),
    }
}

fn left_on_disk(error: &DirectoryError) -> String {
    format!(
        "the store has no old values any more, but blocks of its old file on the disk have them, encrypted, until they are \
         used again: {error}"
    )
}

/// Notes that there was no store: the folder may be another one than the broker's.
fn note_new_store(directory: &Directory, settings: &Settings) {
    if directory.is_new() {
        output::note(&format!("made a credential store in {}, where there was none", settings.data_dir.display()));
    }
}

fn users(count: usize) -> String {
    if count == 1 { "1 user".to_owned() } else { format!("{count} users") }
}

/// Opens the store if it exists. Otherwise no credentials are stored for the user.
fn existing(settings: &Settings, user: &str) -> Result<Directory, Failure> {
    Directory::open_existing(settings)?.ok_or_else(|| {
        let code = ErrorCode::CredentialsNotFound;
        Failure::refused(format!("{code}: no credentials are stored for the user '{user}': {}", no_store(settings)))
    })
}

fn no_store(settings: &Settings) -> String {
    format!("there is no credential store in {} yet", settings.data_dir.display())
}

fn say_json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::refused(error.to_string()))?;
    say(out, format_args!("{text}\n"))
}

/// Writes to standard output. A closed pipe is not an error.
fn say(out: &mut dyn Write, words: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    match out.write_fmt(words).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::refused(format!("standard output cannot be written: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
