//! `switchboard credentials`: manages the embedded store, also while a broker is using it.
//!
//! A password is read from a prompt or standard input, never from an argument, which other users of the computer can
//! see. It is never printed.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::config::{Config, LoadOptions};
use crate::credentials::{Credentials, Directory, DirectoryError, Entry, Import, KEY_VARIABLE, Settings, read_import};

use super::{Exit, output, prompt, secret};
use wire::ErrorCode;

/// The longest password that the store takes, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// The largest file that is imported, in bytes.
const IMPORT_BYTES_MAX: usize = 64 << 20;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// The folder of the store; default: that of the configuration, or else the platform's data folder
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The configuration file, which names the data folder and the key file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Store a user's credentials; asks for the password, or reads it as one line of standard input
    #[command(after_help = "Examples:
  switchboard credentials set alice@example.com --username 1245456 --extension 5051
  vault read -field=password cti/alice | switchboard credentials set alice@example.com --username 1245456 --extension 5051")]
    Set {
        /// The user, exactly as its sessions are registered
        user: String,
        /// The CTI user name
        #[arg(long, value_name = "NAME")]
        username: String,
        /// The telephone extension
        #[arg(long, value_name = "EXT")]
        extension: String,
        /// The user name at the identity provider, if it is a different one
        #[arg(long, value_name = "NAME")]
        adfs_username: Option<String>,
    },
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
  switchboard credentials import agents.csv
  switchboard credentials import agents.json --partial

Without --partial, nothing is stored if a row is bad. Users that are already stored get the new values.")]
    Import {
        /// CSV or JSON, recognised by the file's name, or else by its first character
        file: PathBuf,
        /// Store the good rows even if others are bad; the exit code is still 1
        #[arg(long)]
        partial: bool,
    },
    /// Encrypt the store with a new key; stop the broker first
    Rekey {
        /// The file of the new key, which is created if it does not exist; default: the present key file is replaced
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
}

/// Runs the command, and prints why it failed.
pub(super) fn run(arguments: &Arguments) -> Exit {
    let outcome = settings(arguments.data_dir.as_deref(), arguments.config.as_deref())
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

    fn no_such_user(user: &str) -> Self {
        let code = ErrorCode::CredentialsNotFound;
        Self::refused(format!("{code}: no credentials are stored for the user '{user}'"))
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::unusable(error.to_string())
    }
}

/// Returns the settings of the store, from arguments, file and environment.
fn settings(data_dir: Option<&Path>, file: Option<&Path>) -> Result<Settings, Failure> {
    let options =
        LoadOptions { data_dir: data_dir.map(Path::to_owned), ..LoadOptions::from_process(file.map(Path::to_owned)) };
    let config = Config::load(options).map_err(|mistakes| Failure::unusable(mistakes.to_string()))?;
    let key = match std::env::var(KEY_VARIABLE) {
        Ok(text) => Some(SecretString::from(text)),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(Failure::unusable(format!("{KEY_VARIABLE} must have 64 hexadecimal digits")));
        }
    };
    Ok(Settings::new(&config, key))
}

fn execute(command: &Command, settings: &Settings, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Set { user, username, extension, adfs_username } => {
            // Before the prompt, so that a store that cannot be used is reported first.
            let directory = Directory::open(settings)?;
            let credentials = Credentials {
                username: username.clone(),
                password: ask_password(user)?,
                extension: extension.clone(),
                adfs_username: adfs_username.clone(),
            };
            let entry = Entry::new(user.clone(), credentials).map_err(|fault| Failure::unusable(fault.to_string()))?;
            let replaced = directory.set(&[entry])?;
            let done = if replaced == 0 { "stored" } else { "replaced" };
            say(out, format_args!("{done} '{user}' in {}\n", settings.data_dir.display()))
        }
        Command::List { json } => list(settings, *json, out),
        Command::Show { user, json } => {
            let credentials = existing(settings, user)?.get(user)?.ok_or_else(|| Failure::no_such_user(user))?;
            let shown = Shown::new(user, &credentials);
            if *json { say_json(out, &shown) } else { shown.say(out) }
        }
        Command::Remove { user } => {
            if existing(settings, user)?.remove(user)? {
                say(out, format_args!("removed '{user}'\n"))
            } else {
                Err(Failure::no_such_user(user))
            }
        }
        Command::Import { file, partial } => import(settings, file, *partial, out),
        Command::Rekey { new_key_file } => {
            let count = Directory::rekey(settings, new_key_file.as_deref())?;
            say(out, format_args!("encrypted the credentials of {count} users with the new key\n"))
        }
    }
}

/// Opens the store if it exists. Otherwise no credentials are stored for the user.
fn existing(settings: &Settings, user: &str) -> Result<Directory, Failure> {
    Directory::open_existing(settings)?.ok_or_else(|| {
        let mut failure = Failure::no_such_user(user);
        failure.message.push_str(&no_store(settings));
        failure
    })
}

fn no_store(settings: &Settings) -> String {
    format!(": there is no credential store in {} yet", settings.data_dir.display())
}

/// The fields of an entry that are printed.
#[derive(Serialize)]
struct Shown<'a> {
    user: &'a str,
    username: &'a str,
    extension: &'a str,
    adfs_username: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn new(user: &'a str, credentials: &'a Credentials) -> Self {
        Self {
            user,
            username: &credentials.username,
            extension: &credentials.extension,
            adfs_username: credentials.adfs_username.as_deref(),
        }
    }

    fn columns(&self) -> [&'a str; 4] {
        [self.user, self.username, self.extension, self.adfs_username.unwrap_or_default()]
    }

    fn say(&self, out: &mut dyn Write) -> Result<(), Failure> {
        for (name, value) in HEADINGS.into_iter().zip(self.columns()) {
            say(out, format_args!("{name:<14}{value}\n"))?;
        }
        Ok(())
    }
}

/// The names of the printed fields, as in an import.
const HEADINGS: [&str; 4] = ["user", "username", "extension", "adfs_username"];

fn list(settings: &Settings, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let entries = match Directory::open_existing(settings)? {
        Some(directory) => directory.list()?,
        None => {
            output::note(no_store(settings).trim_start_matches([':', ' ']));
            Vec::new()
        }
    };
    let shown: Vec<_> = entries.iter().map(|entry| Shown::new(&entry.user, &entry.credentials)).collect();
    if json {
        return say_json(out, &shown);
    }
    let mut widths = HEADINGS.map(str::len);
    for row in &shown {
        for (width, value) in widths.iter_mut().zip(row.columns()) {
            *width = value.chars().count().max(*width);
        }
    }
    let mut line = |columns: [&str; 4]| {
        let cells: Vec<_> = columns.iter().zip(widths).map(|(value, width)| format!("{value:<width$}")).collect();
        say(out, format_args!("{}\n", cells.join("  ").trim_end()))
    };
    line(HEADINGS)?;
    shown.iter().try_for_each(|row| line(row.columns()))
}

fn import(settings: &Settings, file: &Path, partial: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let bytes = read_file(file).map_err(|error| Failure::unusable(format!("{}: {error}", file.display())))?;
    let Import { entries, faults } =
        read_import(file, &bytes).map_err(|fault| Failure::refused(format!("{}: {fault}", file.display())))?;
    let mut words: Vec<_> = faults.iter().map(|fault| format!("{}: {fault}", file.display())).collect();
    if !words.is_empty() && !partial {
        words.push(format!(
            "nothing was imported: {} of {} rows are bad; correct them, or import the others with --partial",
            faults.len(),
            faults.len() + entries.len()
        ));
        return Err(Failure::refused(words.join("\n")));
    }
    let replaced = Directory::open(settings)?.set(&entries)?;
    say(out, format_args!("imported {} users, {replaced} of them replaced\n", entries.len()))?;
    if words.is_empty() {
        return Ok(());
    }
    words.push(format!("{} of {} rows are bad and were skipped", faults.len(), faults.len() + entries.len()));
    Err(Failure::refused(words.join("\n")))
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    // The size of a pipe is 0.
    let expected = usize::try_from(size).unwrap_or(usize::MAX).min(IMPORT_BYTES_MAX);
    secret::read_all(&mut file, if expected == 0 { IMPORT_BYTES_MAX } else { expected })
}

/// Asks for the password, twice, or reads one line of standard input.
fn ask_password(user: &str) -> Result<SecretString, Failure> {
    if !io::stdin().is_terminal() {
        let line = secret::unbuffered_stdin()
            .and_then(|mut stdin| secret::read_line(&mut stdin, PASSWORD_BYTES_MAX))
            .map_err(|error| Failure::unusable(format!("the password cannot be read: {error}")))?;
        return password(&line);
    }
    let ask = |prompt: String| {
        prompt::ask(&prompt, PASSWORD_BYTES_MAX)
            .map_err(|error| Failure::unusable(format!("no password was entered: {error}")))
    };
    let line = ask(format!("CTI password of {user}: "))?;
    if *line != *ask("The same password again: ".to_owned())? {
        return Err(Failure::unusable("the two passwords differ; nothing was stored"));
    }
    password(&line)
}

fn password(line: &[u8]) -> Result<SecretString, Failure> {
    std::str::from_utf8(line).map(SecretString::from).map_err(|_| Failure::unusable("password is not UTF-8"))
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
