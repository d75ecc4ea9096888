//! `switchboard credentials import`: stores the rows of a CSV or JSON file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Failure, erase_old_records, note_new_store, say, users};
use crate::cli::audit::{self, Done};
use crate::cli::{output, secret};
use crate::credentials::{Change, Delimiter, Directory, Entry, Import, Settings, read_import};

/// The largest file that is imported, in bytes.
const IMPORT_BYTES_MAX: usize = 64 << 20;

/// How many warnings are printed.
const WARNINGS_MAX: usize = 100;

/// The arguments of `credentials import`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// CSV or JSON, recognised by the file's name, or else by its first character
    file: PathBuf,
    /// Store the good rows even if others are bad; the exit code is still 1
    #[arg(long)]
    partial: bool,
    /// Print what would change, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// What separates the columns of a CSV file; auto: what the first line has most of
    #[arg(long, value_name = "CHARACTER", default_value = "auto")]
    delimiter: Separator,
}

/// The values of `--delimiter`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Separator {
    Auto,
    #[value(name = ",", alias = "comma")]
    Comma,
    #[value(name = ";", alias = "semicolon")]
    Semicolon,
    #[value(alias = "\t", alias = "\\t")]
    Tab,
}

/// Stores the rows, all or none of them unless `partial`.
pub(super) fn run(arguments: &Arguments, settings: &Settings, out: &mut dyn Write) -> Result<(), Failure> {
    let mut import = read(arguments)?;
    let stored = stored(settings, arguments.dry_run)?;
    let changes = import.compare(&stored);
    drop(stored);
    report(&import, &arguments.file);
    let bad = import.faults.len();
    if bad > 0 && !arguments.partial {
        let nothing = if arguments.dry_run { "nothing would be imported" } else { "nothing was imported" };
        return Err(bad_rows(
            arguments,
            &import,
            &format!(
                "{nothing}: {} bad; correct them, or import the others with --partial",
                of_rows(bad, import.rows())
            ),
        ));
    }
    if arguments.dry_run {
        show(&import, &changes, out)?;
    } else {
        store(&import, settings, out)?;
    }
    if bad == 0 {
        return Ok(());
    }
    let skipped = if arguments.dry_run { "would be skipped" } else { "skipped" };
    Err(bad_rows(arguments, &import, &format!("{} bad and {skipped}", of_rows(bad, import.rows()))))
}

/// Reads the file, which must have a row.
fn read(arguments: &Arguments) -> Result<Import, Failure> {
    let file = &arguments.file;
    let bytes = read_file(file).map_err(|error| Failure::unusable(format!("{}: {error}", file.display())))?;
    let delimiter = match arguments.delimiter {
        Separator::Auto => Delimiter::Auto,
        Separator::Comma => Delimiter::Comma,
        Separator::Semicolon => Delimiter::Semicolon,
        Separator::Tab => Delimiter::Tab,
    };
    let refused = |why: &str| Failure::refused(format!("{}: {why}", file.display()));
    let import = read_import(file, &bytes, delimiter).map_err(|fault| refused(&fault))?;
    match (import.rows(), import.skipped) {
        (0, 0) => Err(refused("the file has no rows, so nothing was imported")),
        (0, _) => Err(refused("all rows of the file are empty, so nothing was imported")),
        _ => Ok(import),
    }
}

/// Returns the entries of the store. Those that cannot be read can still be replaced.
fn stored(settings: &Settings, dry_run: bool) -> Result<Vec<Entry>, Failure> {
    let Some(directory) = Directory::open_existing(settings)? else { return Ok(Vec::new()) };
    match directory.list() {
        Err(error) if !dry_run => {
            output::note(&format!("warning: the rows cannot be compared with the store: {error}"));
            Ok(Vec::new())
        }
        listed => Ok(listed?),
    }
}

/// Prints the warnings, and how many rows are skipped.
fn report(import: &Import, file: &Path) {
    for warning in import.warnings.iter().take(WARNINGS_MAX) {
        output::note(&format!("warning: {}: {warning}", file.display()));
    }
    if let Some(more @ 1..) = import.warnings.len().checked_sub(WARNINGS_MAX) {
        output::note(&format!("warning: {}: and {more} more warnings", file.display()));
    }
    match import.skipped {
        0 => {}
        1 => output::note("skipped 1 empty row"),
        skipped => output::note(&format!("skipped {skipped} empty rows")),
    }
}

fn store(import: &Import, settings: &Settings, out: &mut dyn Write) -> Result<(), Failure> {
    let directory = Directory::open(settings)?;
    let replaced = directory.set(&import.entries)?;
    audit::record(settings, &Done::Imported { users: import.entries.len() });
    let (count, folder) = (users(import.entries.len()), settings.data_dir.display());
    say(out, format_args!("imported {count}, {replaced} of them replaced, in {folder}\n"))?;
    note_new_store(&directory, settings);
    erase_old_records(&directory, settings, replaced);
    Ok(())
}

/// Prints what storing each entry changes.
fn show(import: &Import, changes: &[Change], out: &mut dyn Write) -> Result<(), Failure> {
    let (mut added, mut replaced, mut same) = (0, 0, 0);
    for (Entry { user, .. }, change) in import.entries.iter().zip(changes) {
        match change {
            Change::Added => {
                added += 1;
                say(out, format_args!("add '{user}'\n"))?;
            }
            Change::Replaced { username, password, extension, adfs_username } => {
                replaced += 1;
                let fields = [
                    (*username, "username"),
                    (*password, "password"),
                    (*extension, "extension"),
                    (*adfs_username, "adfs_username"),
                ];
                let fields: Vec<_> = fields.into_iter().filter_map(|(differs, name)| differs.then_some(name)).collect();
                say(out, format_args!("replace '{user}': {}\n", fields.join(", ")))?;
            }
            Change::Same => {
                same += 1;
                say(out, format_args!("keep '{user}'\n"))?;
            }
        }
    }
    say(out, format_args!("dry run: {added} to add, {replaced} to replace, {same} the same; nothing was stored\n"))
}

/// A failure with a line for each bad row.
fn bad_rows(arguments: &Arguments, import: &Import, summary: &str) -> Failure {
    let mut lines: Vec<_> =
        import.faults.iter().map(|fault| format!("{}: {fault}", arguments.file.display())).collect();
    lines.push(summary.to_owned());
    Failure::refused(lines.join("\n"))
}

fn of_rows(bad: usize, rows: usize) -> String {
    format!("{bad} of {rows} {} {}", if rows == 1 { "row" } else { "rows" }, if bad == 1 { "is" } else { "are" })
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    // The size of a pipe is 0.
    let expected = usize::try_from(size).unwrap_or(usize::MAX).min(IMPORT_BYTES_MAX);
    secret::read_all(&mut file, if expected == 0 { IMPORT_BYTES_MAX } else { expected })
}
