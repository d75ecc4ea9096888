//! Reads a file of credentials in CSV or JSON, row by row: the rows that can be stored, and an error for each other
//! row.
//!
//! Errors never quote the file's fields: a password may be in the wrong column.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Entry;
use crate::credentials::Credentials;

/// The columns in their documented order. The last one is optional.
const COLUMNS: [&str; 5] = ["user", "username", "password", "extension", "adfs_username"];

/// The rows of a file.
#[derive(Debug, Default)]
pub struct Import {
    /// The rows that can be stored, one for each user.
    pub entries: Vec<Entry>,
    /// The rows that cannot.
    pub faults: Vec<RowFault>,
}

/// A row that cannot be stored, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// Its number, counted from 1 without the header of a CSV file.
    pub row: usize,
    /// The line of the file on which the row begins; CSV only.
    pub line: Option<u64>,
    /// What is wrong.
    pub fault: String,
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "row {} (line {line}): {}", self.row, self.fault),
            None => write!(f, "row {}: {}", self.row, self.fault),
        }
    }
}

/// Reads the bytes of a file: JSON by the name's ending or the first character, otherwise CSV.
///
/// # Errors
/// The file as a whole is unreadable: a missing or unknown column, broken JSON, another encoding than UTF-8.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Import, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("the file is UTF-16; save it as UTF-8".to_owned());
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let ending = path.extension().and_then(|it| it.to_str()).unwrap_or_default().to_ascii_lowercase();
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let mut reader = Reader::default();
    match ending.as_str() {
        "json" => reader.json(bytes)?,
        "csv" => reader.csv(bytes)?,
        _ if matches!(first, Some(b'[' | b'{')) => reader.json(bytes)?,
        _ => reader.csv(bytes)?,
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
    row: usize,
}

impl Reader {
    fn take(&mut self, line: Option<u64>, fields: Result<Fields, String>) {
        self.row += 1;
        match fields.and_then(entry).and_then(|entry| self.once(entry)) {
            Ok(entry) => self.import.entries.push(entry),
            Err(fault) => self.import.faults.push(RowFault { row: self.row, line, fault }),
        }
    }

    fn once(&mut self, entry: Entry) -> Result<Entry, String> {
        match self.seen.insert(entry.user.clone(), self.row) {
            None => Ok(entry),
            Some(first) => {
                let fault = format!("the user is already in row {first}");
                self.seen.insert(entry.user, first);
                Err(fault)
            }
        }
    }

    fn csv(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut csv = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        let mut record = csv::ByteRecord::new();
        let unreadable = |_| "the file cannot be read as CSV".to_owned();
        if !csv.read_byte_record(&mut record).map_err(unreadable)? {
            return Err(format!("the file is empty; its first line has to be {}", COLUMNS.join(",")));
        }
        let columns = header(&record)?;
        while csv.read_byte_record(&mut record).map_err(unreadable)? {
            let line = record.position().map(csv::Position::line);
            self.take(line, csv_row(&columns, &record));
        }
        Ok(())
    }

    fn json(&mut self, bytes: &[u8]) -> Result<(), String> {
        let rows: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                format!("the file has to be a JSON array of objects with {}", COLUMNS.join(", "))
            }
            _ => format!("line {}, column {}: this is not JSON", error.line(), error.column()),
        })?;
        for row in rows {
            self.take(None, json_row(row));
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

/// Returns the column of each field in a row.
fn header(record: &csv::ByteRecord) -> Result<Vec<usize>, String> {
    let mut columns = Vec::with_capacity(record.len());
    for (at, name) in record.iter().enumerate() {
        let Some(column) = COLUMNS.iter().position(|column| column.as_bytes() == name) else {
            let hint = if name.contains(&b';') || name.contains(&b'\t') { "; separate columns by commas" } else { "" };
            return Err(format!("column {} of the first line is none of {}{hint}", at + 1, COLUMNS.join(",")));
        };
        if columns.contains(&column) {
            return Err(format!("the column '{}' is twice in the first line", known(column)));
        }
        columns.push(column);
    }
    let missing = (0..COLUMNS.len() - 1).find(|column| !columns.contains(column));
    match missing {
        Some(column) => Err(format!("the column '{}' is missing from the first line", known(column))),
        None => Ok(columns),
    }
}

fn known(column: usize) -> &'static str {
    COLUMNS.get(column).copied().unwrap_or_default()
}

fn csv_row(columns: &[usize], record: &csv::ByteRecord) -> Result<Fields, String> {
    if record.len() != columns.len() {
        return Err(format!("{} fields, where the first line has {}", record.len(), columns.len()));
    }
    let mut fields = Fields::default();
    for (&column, bytes) in columns.iter().zip(record) {
        let text = std::str::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", known(column)))?;
        if let Some(field) = fields.get_mut(column) {
            *field = Some(SecretString::from(text));
        }
    }
    Ok(fields)
}

fn json_row(row: &RawValue) -> Result<Fields, String> {
    if !row.get().starts_with('{') {
        return Err("not an object".to_owned());
    }
    let mut members = Members { fields: Fields::default(), fault: None };
    let read = serde_json::Deserializer::from_str(row.get()).deserialize_map(&mut members);
    match (read, members.fault) {
        (Ok(()), None) => {}
        (_, Some(fault)) => return Err(fault),
        (Err(_), None) => return Err("not an object that can be read".to_owned()),
    }
    let missing = members.fields.iter().take(COLUMNS.len() - 1).position(Option::is_none);
    missing.map_or(Ok(members.fields), |column| Err(format!("{} is missing", known(column))))
}

/// Collects the members of one object. A repeated name is an error; a map would silently take the last.
struct Members {
    fields: Fields,
    fault: Option<String>,
}

impl Members {
    fn take(&mut self, name: &str, value: &RawValue) -> Result<(), String> {
        let Some(column) = COLUMNS.iter().position(|column| *column == name) else {
            return Err(format!("a key that is none of {}", COLUMNS.join(", ")));
        };
        let optional = column == COLUMNS.len() - 1;
        let text = match value.get() {
            "null" if optional => SecretString::from(""),
            text if text.starts_with('"') => serde_json::from_str::<String>(text)
                .map(SecretString::from)
                .map_err(|_| format!("{name} has an escape that is not a character"))?,
            _ => return Err(format!("{name} has to be a string")),
        };
        match self.fields.get_mut(column).map(|field| field.replace(text)) {
            Some(Some(_)) => Err(format!("{name} is given twice")),
            Some(None) | None => Ok(()),
        }
    }
}

impl<'a> Visitor<'a> for &mut Members {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<&RawValue>()?;
            if self.fault.is_none() {
                self.fault = self.take(&name, value).err();
            }
        }
        Ok(())
    }
}
