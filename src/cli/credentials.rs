//! `switchboard credentials`: looks after the embedded store, also while a broker runs on it.
//!
//! A password comes in from a prompt or standard input, never from an argument (which other users of the machine can
//! read), and never goes out.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use secrecy::SecretString;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::config::{Config, LoadOptions};
use crate::credentials::{Credentials, Directory, DirectoryError, Entry, Import, KEY_VARIABLE, Settings, read_import};

/// The operation was refused or failed.
const REFUSED: u8 = 1;

/// Wrong usage, configuration, key or store.
const UNUSABLE: u8 = 2;

/// The longest line that may hold a password: one byte over the store's limit, with its line end.
const PASSWORD_LINE_BYTES: u64 = 1027;

/// The largest file that is imported.
const IMPORT_BYTES_MAX: u64 = 64 << 20;

/// Looks after the credentials that agents fetch.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// The folder of the store; default: the configuration's, else the platform's data folder
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The configuration file, for its data folder and its key file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Stores a user's credentials; asks for the password, or reads one line of it from standard input
    #[command(after_help = "Examples:
  switchboard credentials set alice@example.com --username 1245456 --extension 5051
  vault read -field=password cti/alice | switchboard credentials set alice@example.com --username 1245456 --extension 5051")]
    Set {
        /// The user, as sessions are proved to be it
        user: String,
        /// The CTI user name
        #[arg(long, value_name = "NAME")]
        username: String,
        /// The telephone extension
        #[arg(long, value_name = "EXT")]
        extension: String,
        /// The user name at the identity provider, where it is another one
        #[arg(long, value_name = "NAME")]
        adfs_username: Option<String>,
    },
    /// Lists all users, without passwords
    List {
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Shows what is stored for a user, without the password
    Show {
        /// The user
        user: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Removes a user's credentials
    Remove {
        /// The user
        user: String,
    },
    /// Stores the rows of a CSV or JSON file
    #[command(after_help = "Columns of CSV, keys of JSON objects in an array:
  user,username,password,extension,adfs_username

Examples:
  switchboard credentials import agents.csv
  switchboard credentials import agents.json --partial

Nothing is stored if a row is bad, unless --partial. Users who are stored already get the new values.")]
    Import {
        /// CSV or JSON, by the name's ending or else by the first character
        file: PathBuf,
        /// Stores the good rows even if others are bad; the exit code is 1 all the same
        #[arg(long)]
        partial: bool,
    },
    /// Gives the store a new key; no broker may run meanwhile
    Rekey {
        /// Takes the new key from this file, or makes it there; default: a new one in the present key file
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
}

/// Runs the command that the arguments name; says on standard error why it failed.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let outcome = settings(arguments.data_dir.as_deref(), arguments.config.as_deref())
        .and_then(|settings| execute(&arguments.command, &settings, &mut anstream::stdout().lock()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Standard error may be closed: then there is nobody to tell, and the exit code says it.
            let _told = writeln!(anstream::stderr().lock(), "error: {}", failure.words);
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command ends otherwise than done.
struct Failure {
    code: u8,
    words: String,
}

impl Failure {
    fn refused(words: impl Into<String>) -> Self {
        Self { code: REFUSED, words: words.into() }
    }

    fn unusable(words: impl Into<String>) -> Self {
        Self { code: UNUSABLE, words: words.into() }
    }

    fn no_such_user(user: &str) -> Self {
        Self::refused(format!("no credentials are stored for the user '{user}'"))
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::unusable(error.to_string())
    }
}

/// Where the store is, by flags, file and environment.
fn settings(data_dir: Option<&Path>, file: Option<&Path>) -> Result<Settings, Failure> {
    let options =
        LoadOptions { data_dir: data_dir.map(Path::to_owned), ..LoadOptions::from_process(file.map(Path::to_owned)) };
    let config = Config::load(options).map_err(|mistakes| Failure::unusable(mistakes.to_string()))?;
    let key = match std::env::var(KEY_VARIABLE) {
        Ok(text) => Some(SecretString::from(text)),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(Failure::unusable(format!("{KEY_VARIABLE} has to hold 64 hexadecimal digits, and does not")));
        }
    };
    Ok(Settings::new(&config, key))
}

fn execute(command: &Command, settings: &Settings, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Set { user, username, extension, adfs_username } => {
            // Before the prompt: nobody should type a password for a store that cannot take it.
            let directory = Directory::open(settings)?;
            let credentials = Credentials {
                username: username.clone(),
                password: ask_password(user)?,
                extension: extension.clone(),
                adfs_username: adfs_username.clone(),
            };
            let entry = Entry::new(user.clone(), credentials).map_err(|fault| Failure::unusable(fault.to_string()))?;
            let replaced = directory.set(&[entry])?;
            say(out, format_args!("{} '{user}'\n", if replaced == 0 { "stored" } else { "replaced" }))
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
            say(out, format_args!("{count} users have a new key\n"))
        }
    }
}

/// The store; without one, nothing is stored for the user, and none is made.
fn existing(settings: &Settings, user: &str) -> Result<Directory, Failure> {
    Directory::open_existing(settings)?.ok_or_else(|| {
        let mut failure = Failure::no_such_user(user);
        failure.words.push_str(&no_store(settings));
        failure
    })
}

fn no_store(settings: &Settings) -> String {
    format!(": there is no credential store in {} yet", settings.data_dir.display())
}

/// What may be shown of an entry.
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

/// The import's names of what is shown.
const HEADINGS: [&str; 4] = ["user", "username", "extension", "adfs_username"];

fn list(settings: &Settings, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let entries = match Directory::open_existing(settings)? {
        Some(directory) => directory.list()?,
        None => Vec::new(),
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
            "nothing was imported: {} of {} rows are bad; mend them, or import the others with --partial",
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
    words.push(format!("{} of {} rows are bad and were left out", faults.len(), faults.len() + entries.len()));
    Err(Failure::refused(words.join("\n")))
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let size = usize::try_from(file.metadata()?.len().min(IMPORT_BYTES_MAX)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(IMPORT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > IMPORT_BYTES_MAX {
        return Err(io::Error::other("larger than 64 MiB; import it in parts"));
    }
    Ok(bytes)
}

fn ask_password(user: &str) -> Result<SecretString, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return rpassword::prompt_password(format!("CTI password of {user}: "))
            .map(SecretString::from)
            .map_err(|error| Failure::unusable(format!("the password cannot be asked for: {error}")));
    }
    read_password(&mut stdin.lock())
}

/// The first line, without its end.
fn read_password(input: &mut dyn BufRead) -> Result<SecretString, Failure> {
    let mut line = Zeroizing::new(Vec::with_capacity(1 + usize::try_from(PASSWORD_LINE_BYTES).unwrap_or_default()));
    input
        .take(PASSWORD_LINE_BYTES)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::unusable(format!("the password cannot be read: {error}")))?;
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    std::str::from_utf8(text).map(SecretString::from).map_err(|_| Failure::unusable("password is not UTF-8"))
}

fn say_json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::refused(error.to_string()))?;
    say(out, format_args!("{text}\n"))
}

/// Writes to standard output; that nobody reads on is no error.
fn say(out: &mut dyn Write, words: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    match out.write_fmt(words).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::refused(format!("standard output cannot be written: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
