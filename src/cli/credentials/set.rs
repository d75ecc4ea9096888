//! `switchboard credentials set`: stores the credentials of one user.

use std::io::{self, ErrorKind, IsTerminal, Write};

use secrecy::{ExposeSecret, SecretString};

use super::{Failure, erase_old_records, note_new_store, say};
use crate::cli::audit::{self, Done};
use crate::cli::{output, prompt, secret};
use crate::credentials::{Credentials, Directory, Entry, FieldFault, PASSWORD_BYTES_MAX, Settings, has_blank_end};
use crate::short_text;

/// What standard input may have around the password: a byte order mark, CR and LF.
const MARKS_BYTES_MAX: usize = 5;

/// The arguments of `credentials set`.
#[derive(Debug, clap::Args)]
pub(super) struct Set {
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
}

/// Asks for the password and stores the credentials.
pub(super) fn run(new: &Set, settings: &Settings, out: &mut dyn Write) -> Result<(), Failure> {
    let user = &new.user;
    // Before the prompt, so that a store that cannot be used is reported first.
    let directory = Directory::open(settings)?;
    let credentials = Credentials {
        username: new.username.clone(),
        password: ask_password(user)?,
        extension: new.extension.clone(),
        adfs_username: new.adfs_username.clone(),
    };
    let entry = Entry::new(user.clone(), credentials).map_err(|fault| Failure::unusable(fault.to_string()))?;
    warn_of_blanks(&entry);
    let replaced = directory.set(&[entry])?;
    audit::record(settings, &Done::Set { user });
    let done = if replaced == 0 { "stored" } else { "replaced" };
    say(out, format_args!("{done} '{user}' in {}\n", settings.data_dir.display()))?;
    note_new_store(&directory, settings);
    erase_old_records(&directory, settings, replaced);
    Ok(())
}

/// Asks for the password, twice, or reads one line of standard input.
fn ask_password(user: &str) -> Result<SecretString, Failure> {
    if !io::stdin().is_terminal() {
        let text = secret::unbuffered_stdin()
            .and_then(|mut stdin| secret::read_all(&mut stdin, PASSWORD_BYTES_MAX + MARKS_BYTES_MAX))
            .map_err(|error| match error.kind() {
                ErrorKind::FileTooLarge => Failure::unusable(FieldFault::PASSWORD_TOO_LONG.to_string()),
                _ => Failure::unusable(format!("the password cannot be read: {error}")),
            })?;
        return one_line(&text);
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

/// Returns the only line of standard input.
fn one_line(text: &[u8]) -> Result<SecretString, Failure> {
    let password = password(text)?;
    let line = short_text::trim(password.expose_secret());
    if line.contains(['\n', '\r']) {
        return Err(Failure::unusable(
            "standard input has more than one line, and a password is one; nothing was stored",
        ));
    }
    Ok(SecretString::from(line))
}

/// Warns of blanks that may come with copying, or with `echo x |` on Windows. They are kept.
fn warn_of_blanks(entry: &Entry) {
    let Entry { user, credentials } = entry;
    for (name, text) in [
        ("user", user.as_str()),
        ("username", &credentials.username),
        ("password", credentials.password.expose_secret()),
        ("extension", &credentials.extension),
        ("adfs_username", credentials.adfs_username.as_deref().unwrap_or_default()),
    ] {
        if has_blank_end(text) {
            output::note(&format!(
                "warning: {name} begins or ends with white space or an invisible character, which is kept"
            ));
        }
    }
}

fn password(line: &[u8]) -> Result<SecretString, Failure> {
    std::str::from_utf8(line).map(SecretString::from).map_err(|_| Failure::unusable("password is not UTF-8"))
}
