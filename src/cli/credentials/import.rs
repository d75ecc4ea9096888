//! `switchboard credentials import`: stores the rows of a CSV or JSON file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Failure, erase_old_records, say, users};
use crate::cli::secret;
use crate::credentials::{Directory, Import, Settings, read_import};

/// The largest file that is imported, in bytes.
const IMPORT_BYTES_MAX: usize = 64 << 20;

/// The arguments of `credentials import`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// CSV or JSON, recognised by the file's name, or else by its first character
    file: PathBuf,
    /// Store the good rows even if others are bad; the exit code is still 1
    #[arg(long)]
    partial: bool,
}

/// Stores the rows, all or none of them unless `partial`.
pub(super) fn run(arguments: &Arguments, settings: &Settings, out: &mut dyn Write) -> Result<(), Failure> {
    let Arguments { file, partial } = arguments;
    let bytes = read_file(file).map_err(|error| Failure::unusable(format!("{}: {error}", file.display())))?;
    let Import { entries, faults } =
        read_import(file, &bytes).map_err(|fault| Failure::refused(format!("{}: {fault}", file.display())))?;
    let mut words: Vec<_> = faults.iter().map(|fault| format!("{}: {fault}", file.display())).collect();
    if !words.is_empty() && !*partial {
        words.push(format!(
            "nothing was imported: {} of {} rows are bad; correct them, or import the others with --partial",
            faults.len(),
            faults.len() + entries.len()
        ));
        return Err(Failure::refused(words.join("\n")));
    }
    let directory = Directory::open(settings)?;
    let replaced = directory.set(&entries)?;
    say(out, format_args!("imported {}, {replaced} of them replaced\n", users(entries.len())))?;
    erase_old_records(&directory, settings, replaced);
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
