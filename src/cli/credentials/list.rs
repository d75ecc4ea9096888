//! `switchboard credentials list` and `show`: everything but the password.

use std::io::Write;

use serde::Serialize;

use super::{Failure, existing, no_store, say, say_json};
use crate::cli::output;
use crate::credentials::{Credentials, Directory, Settings};

/// Prints one user.
pub(super) fn show(settings: &Settings, user: &str, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let credentials = existing(settings, user)?.get(user)?.ok_or_else(|| Failure::no_such_user(user, settings))?;
    let shown = Shown::new(user, &credentials);
    if json { say_json(out, &shown) } else { shown.say(out) }
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

/// Prints all users.
pub(super) fn run(settings: &Settings, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let entries = match Directory::open_existing(settings)? {
        Some(directory) => directory.list()?,
        None => {
            output::note(&no_store(settings));
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
