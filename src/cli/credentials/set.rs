//! `switchboard credentials set`: stores the credentials of one user.

use std::io::{self, IsTerminal, Write};

use secrecy::SecretString;

use super::{Failure, erase_old_records, say};
use crate::cli::{prompt, secret};
use crate::credentials::{Credentials, Directory, Entry, Settings};

/// The longest password that the store takes, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

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
    let replaced = directory.set(&[entry])?;
    let done = if replaced == 0 { "stored" } else { "replaced" };
    say(out, format_args!("{done} '{user}' in {}\n", settings.data_dir.display()))?;
    erase_old_records(&directory, settings, replaced);
    Ok(())
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
