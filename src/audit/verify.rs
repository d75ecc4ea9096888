//! [`verify`]: checks the chain of a log and of its older files, and says where it is broken.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::log::{lock_if_there, lock_path, noted};
use super::record::{Hash, Line, hash};
use super::rotation::older;
use super::tail::LINE_BYTES_MAX;
use crate::store::open_regular;

/// The most breaks that are described; further ones are counted.
const BREAKS_MAX: usize = 20;

/// What was found in a log.
#[derive(Debug, Default)]
pub struct Report {
    /// The files, oldest first.
    pub files: Vec<PathBuf>,
    /// Records of the chain.
    pub records: u64,
    /// Lines from before the chain.
    pub before_chain: u64,
    /// Lines that a crash cut short.
    pub cut: u64,
    /// Records that could not be written, as later ones count them.
    pub lost: u64,
    /// Refused registrations and requests beyond the limit for unregistered connections, as later records count them.
    pub unrecorded: u64,
    /// The first record follows one that is in none of the files.
    pub begins_later: bool,
    /// The last record is in none of the files, and the present file has no record: another program may have moved it.
    pub last_is_elsewhere: bool,
    /// The hash of the last line, which the next record will have.
    pub last: Option<String>,
    /// Where the chain is broken, at most the first twenty.
    pub breaks: Vec<Break>,
    /// How often it is broken.
    pub broken: u64,
}

/// A place at which a chain is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Break {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong there.
    pub why: &'static str,
}

/// Checks a log, with its older files (`FILE.1` and so on) before it.
///
/// # Errors
/// A file cannot be read, or there is none.
pub fn verify(path: &Path) -> io::Result<Report> {
    let Opened { files, last } = open_all(path)?;
    let mut check = Check { last, ..Check::default() };
    for (file_path, file) in files {
        check.file(file_path, BufReader::new(file))?;
    }
    Ok(check.end(path))
}

/// The files of a log at one moment.
struct Opened {
    /// Oldest first, each up to its size at that moment.
    files: Vec<(PathBuf, Take<File>)>,
    /// The hash of the last record, from the file of the lock.
    last: Option<Hash>,
}

/// Opens all files while no broker appends or rotates.
fn open_all(path: &Path) -> io::Result<Opened> {
    let named = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let lock = lock_if_there(path);
    let last = lock.as_ref().map_or(Ok(None), noted).map_err(|error| named(&lock_path(path), error))?;
    let mut paths = older(path).map_err(|error| named(path, error))?;
    // Between the two renames of a rotation that was interrupted, only older files exist.
    if paths.is_empty() || path.exists() {
        paths.push(path.to_owned());
    }
    let open = |path: PathBuf| {
        let opened = open_regular(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = opened.map_err(|error| named(&path, error))?;
        Ok((path, file.take(size)))
    };
    Ok(Opened { files: paths.into_iter().map(open).collect::<io::Result<_>>()?, last })
}

/// A check in progress.
#[derive(Default)]
struct Check {
    report: Report,
    /// Hashes the text that the next record has to follow: the last record, and lines behind it that are not records.
    text: Option<Sha256>,
    /// The first line of that text that is not a record: cut short by a crash if the next record follows it.
    doubt: Option<(Break, u64)>,
    /// A record of the chain was seen.
    chained: bool,
    /// The last line had no line end.
    open: bool,
    /// The hash of the last record, until that record or one that follows it is seen.
    last: Option<Hash>,
    /// Lines of the file that is being read.
    lines: u64,
    /// The file that is being read has a record.
    has_record: bool,
}

impl Check {
    fn file(&mut self, path: PathBuf, mut reader: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        (self.lines, self.has_record) = (0, false);
        while read_line(&mut reader, &mut line)? {
            self.lines += 1;
            self.open = line.pop_if(|last| *last == b'\n').is_none();
            self.line(&path, &line);
        }
        self.report.files.push(path);
        Ok(())
    }

    fn line(&mut self, path: &Path, line: &[u8]) {
        let number = self.lines;
        let at = |why| Break { file: path.to_owned(), line: number, why };
        match Line::read(line) {
            Line::Chained { previous, lost, unrecorded } => {
                if !self.follows(previous) {
                    let doubt = self.doubt.take().map(|(place, _)| place);
                    self.broken(doubt.unwrap_or_else(|| {
                        at("it does not follow the line before it: a record was removed, inserted or altered there")
                    }));
                }
                self.accept_doubt();
                self.last.take_if(|last| previous == Some(*last) || hash(line) == *last);
                (self.chained, self.has_record) = (true, true);
                self.report.records += 1;
                self.report.lost += lost;
                self.report.unrecorded += unrecorded;
                self.text = Some(Sha256::new_with_prefix(line));
            }
            Line::Unchained => {
                if self.chained {
                    self.broken(at("it has no hash of the line before it, although the chain has begun"));
                } else {
                    self.report.before_chain += 1;
                }
                self.accept_doubt();
                self.has_record = true;
                self.text = Some(Sha256::new_with_prefix(line));
            }
            Line::Unreadable => {
                match &mut self.doubt {
                    Some((_, lines)) => *lines += 1,
                    None => self.doubt = Some((at("it is not a record: it was altered, or is damaged"), 1)),
                }
                // What a crash left at the start of a file belongs to no record.
                if let Some(text) = self.text.as_mut().filter(|_| self.has_record) {
                    text.update(b"\n");
                    text.update(line);
                }
            }
        }
    }

    /// Whether a record with this hash can come next.
    fn follows(&mut self, previous: Option<Hash>) -> bool {
        let before: Option<Hash> = self.text.as_ref().map(|text| text.clone().finalize().into());
        if before.is_none() && previous.is_some() {
            // A line before it that is not a record may have been the one that it follows.
            self.report.begins_later = self.doubt.is_none();
            return self.report.begins_later;
        }
        before == previous
    }

    /// The lines that are not records were there when the record after them was written.
    fn accept_doubt(&mut self) {
        self.report.cut += self.doubt.take().map_or(0, |(_, lines)| lines);
    }

    fn broken(&mut self, place: Break) {
        self.report.broken += 1;
        if self.report.breaks.len() < BREAKS_MAX {
            self.report.breaks.push(place);
        }
    }

    /// Ends the check of the log at `path`.
    fn end(mut self, path: &Path) -> Report {
        let is_present = self.report.files.last().is_some_and(|last| last == path);
        let is_last_missing = self.last.is_some() && is_present && self.has_record;
        self.report.last_is_elsewhere = self.last.is_some() && !is_last_missing;
        match self.doubt.take() {
            // Its hash is noted only after the whole line, so a crash does not leave this.
            doubt if is_last_missing => {
                let why = "the last record was removed or altered: no record has the hash that is in audit.lock";
                let line = doubt.map_or(self.lines + 1, |(place, _)| place.line);
                self.broken(Break { file: path.to_owned(), line, why });
            }
            // A crash leaves one line without its end, and the next record completes it.
            Some((place, lines)) if self.chained && !(self.open && lines == 1) => self.broken(place),
            Some((_, lines)) => self.report.cut += lines,
            None => {}
        }
        self.report.last = self.text.map(|text| hex::encode(text.finalize()));
        self.report
    }
}

/// Reads the next line with its line end, and returns whether there was one. Of a line that is too long for a record, the
/// rest is skipped, so that it is not one.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)?;
    if read as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        reader.skip_until(b'\n')?;
        line.clear();
        line.push(b'\n');
    }
    Ok(read > 0)
}
