//! Reads a file of credentials in CSV or JSON, row by row: the rows that can be stored, and a message for each other row.
//!
//! A value is stored as it is in the file, or its row is bad. Messages never quote the file's fields: a password may be in
//! the wrong column.

mod csv;
mod encoding;
mod header;
mod json;
mod marks;

pub use csv::Delimiter;
pub use marks::has_blank_end;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::Entry;
use crate::credentials::Credentials;
use marks::Mark;

/// The columns in their documented order. The last one is optional.
const COLUMNS: [&str; 5] = ["user", "username", "password", "extension", "adfs_username"];

/// The rows of a file.
#[derive(Debug, Default)]
pub struct Import {
    /// The rows that can be stored, one for each user.
    pub entries: Vec<Entry>,
    /// The rows that cannot.
    pub faults: Vec<RowMessage>,
    /// What may be a mistake in a row that can be stored.
    pub warnings: Vec<RowMessage>,
    /// The number of rows without a value, which are skipped.
    pub skipped: usize,
    /// Where each of the entries is in the file.
    places: Vec<Place>,
}

/// A row's place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    row: usize,
    line: Option<u64>,
}

/// A message about a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMessage {
    place: Place,
    text: String,
}

impl fmt::Display for RowMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place: Place { row, line }, text } = self;
        match line {
            Some(line) => write!(f, "row {row} (line {line}): {text}"),
            None => write!(f, "row {row}: {text}"),
        }
    }
}

/// What an import does to the store for one of its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The user is not stored yet.
    Added,
    /// The user gets other values; the names of the fields that change have `true`.
    Replaced {
        /// Whether the CTI user name changes.
        username: bool,
        /// Whether the password changes.
        password: bool,
        /// Whether the extension changes.
        extension: bool,
        /// Whether the user name at the identity provider changes.
        adfs_username: bool,
    },
    /// The user has these values already.
    Same,
}

impl Import {
    /// Compares the entries with those that are stored: returns what storing each of them changes, and adds a warning for
    /// each that differs from a stored user only in letter case.
    pub fn compare(&mut self, stored: &[Entry]) -> Vec<Change> {
        let by_user: HashMap<_, _> = stored.iter().map(|entry| (entry.user.as_str(), &entry.credentials)).collect();
        let folded: HashSet<_> = stored.iter().map(|entry| entry.user.to_lowercase()).collect();
        let mut changes = Vec::with_capacity(self.entries.len());
        for (entry, place) in self.entries.iter().zip(&self.places) {
            let present = by_user.get(entry.user.as_str());
            if present.is_none() && folded.contains(&entry.user.to_lowercase()) {
                let text = "the user differs from a stored one only in letter case, and is another user".to_owned();
                self.warnings.push(RowMessage { place: *place, text });
            }
            changes.push(present.map_or(Change::Added, |present| Change::between(present, &entry.credentials)));
        }
        self.warnings.sort_by_key(|warning| warning.place);
        changes
    }

    /// The number of rows, without those that are skipped.
    pub fn rows(&self) -> usize {
        self.entries.len() + self.faults.len()
    }
}

impl Change {
    fn between(old: &Credentials, new: &Credentials) -> Self {
        let username = old.username != new.username;
        let password = old.password.expose_secret() != new.password.expose_secret();
        let extension = old.extension != new.extension;
        let adfs_username = old.adfs_username != new.adfs_username;
        match username || password || extension || adfs_username {
            true => Self::Replaced { username, password, extension, adfs_username },
            false => Self::Same,
        }
    }
}

/// Reads the bytes of a file: JSON by the name's ending or the first character, otherwise CSV.
///
/// # Errors
/// The file as a whole is unreadable: a missing or unknown column, broken JSON, an encoding other than UTF-8 and UTF-16.
pub fn read(path: &Path, bytes: &[u8], delimiter: Delimiter) -> Result<Import, String> {
    let bytes = encoding::decode(bytes)?;
    let ending = path.extension().and_then(|it| it.to_str()).unwrap_or_default().to_ascii_lowercase();
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let mut reader = Reader::default();
    match ending.as_str() {
        "json" => reader.json(&bytes)?,
        "csv" => reader.csv(&bytes, delimiter)?,
        _ if matches!(first, Some(b'[' | b'{')) => reader.json(&bytes)?,
        _ => reader.csv(&bytes, delimiter)?,
    }
    Ok(reader.import)
}

/// One value for each column, in the order of [`COLUMNS`].
type Fields = [Option<SecretString>; COLUMNS.len()];

#[derive(Default)]
struct Reader {
    import: Import,
    /// The row of each user.
    seen: HashMap<String, usize>,
    /// The first row of each user in lower case.
    folded: HashMap<String, usize>,
    row: usize,
}

impl Reader {
    fn take(&mut self, line: Option<u64>, fields: Result<Fields, String>) {
        self.row += 1;
        let place = Place { row: self.row, line };
        let mut warnings = Vec::new();
        let read = fields.and_then(|fields| {
            warnings = marked(&fields)?;
            self.once(entry(fields)?)
        });
        match read {
            Ok(entry) => {
                warnings.extend(self.case_twin(&entry));
                self.import.entries.push(entry);
                self.import.places.push(place);
                self.import.warnings.extend(warnings.into_iter().map(|text| RowMessage { place, text }));
            }
            Err(text) => self.import.faults.push(RowMessage { place, text }),
        }
    }

    fn once(&mut self, entry: Entry) -> Result<Entry, String> {
        match self.seen.get(&entry.user) {
            Some(first) => Err(format!("the user is in row {first} already")),
            None => {
                self.seen.insert(entry.user.clone(), self.row);
                Ok(entry)
            }
        }
    }

    fn case_twin(&mut self, entry: &Entry) -> Option<String> {
        let first = *self.folded.entry(entry.user.to_lowercase()).or_insert(self.row);
        (first != self.row)
            .then(|| format!("the user differs from that of row {first} only in letter case, and is another user"))
    }

    fn csv(&mut self, bytes: &[u8], delimiter: Delimiter) -> Result<(), String> {
        header::check_kind(bytes)?;
        let mut records = csv::Records::new(bytes, delimiter);
        let Some(first) = records.find(|record| !record.is_blank()) else {
            return Err(format!("the file is empty; its first line has to be {}", COLUMNS.join(",")));
        };
        let columns = header::columns(&first)?;
        for record in records {
            if record.is_blank() {
                self.import.skipped += 1;
            } else {
                self.take(Some(record.line), csv_row(&columns, &record));
            }
        }
        Ok(())
    }

    fn json(&mut self, bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the file is not UTF-8; save it as UTF-8".to_owned())?;
        for row in json::rows(text)? {
            self.take(None, json::json_row(row));
        }
        Ok(())
    }
}

fn entry(fields: Fields) -> Result<Entry, String> {
    let [user, username, password, extension, adfs_username] = fields;
    let plain = |text: Option<SecretString>| text.map(|text| text.expose_secret().to_owned());
    let credentials = Credentials {
        username: plain(username).unwrap_or_default(),
        password: password.unwrap_or_else(|| SecretString::from("")),
        extension: plain(extension).unwrap_or_default(),
        adfs_username: plain(adfs_username),
    };
    Entry::new(plain(user).unwrap_or_default(), credentials).map_err(|fault| fault.to_string())
}

/// Returns warnings about what a spreadsheet or copying may have done to the fields; an error if it certainly did.
fn marked(fields: &Fields) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    for (column, field) in COLUMNS.into_iter().zip(fields) {
        let text = field.as_ref().map_or("", |text| text.expose_secret());
        for mark in marks::of(column, text) {
            match mark {
                Mark::Broken(why) => return Err(format!("{column} {why}")),
                Mark::Doubtful(why) => warnings.push(format!("{column} {why}")),
            }
        }
    }
    Ok(warnings)
}

fn name_of(column: usize) -> &'static str {
    COLUMNS.get(column).copied().unwrap_or_default()
}

fn csv_row(columns: &[usize], record: &csv::Record<'_>) -> Result<Fields, String> {
    let mut fields = Fields::default();
    for (&column, field) in columns.iter().zip(&record.fields) {
        let text = field.text().map_err(|fault| format!("{} {fault}", name_of(column)))?;
        if let Some(field) = fields.get_mut(column) {
            *field = Some(text);
        }
    }
    match record.fields.len() == columns.len() {
        true => Ok(fields),
        false => Err(format!("{} fields, where the first line has {}", record.fields.len(), columns.len())),
    }
}
