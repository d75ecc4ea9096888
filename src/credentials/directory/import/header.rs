//! The first line of a CSV file, which names the columns, and what it is if it does not.
//!
//! Messages name known columns only: without a line of columns, the first line may have a password.

use secrecy::ExposeSecret;

use super::csv::{Field, Record};
use super::{COLUMNS, name_of};

/// How many letters of a misspelt column may be wrong.
const LETTERS_WRONG_MAX: usize = 2;

/// Refuses files that are not text.
pub(super) fn check_kind(bytes: &[u8]) -> Result<(), String> {
    const ZIP: &[u8] = b"PK\x03\x04";
    const OLD_OFFICE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";
    let kind = match bytes {
        _ if bytes.starts_with(ZIP) => "a workbook (.xlsx or .ods) or another zip file",
        _ if bytes.starts_with(OLD_OFFICE) => "a workbook (.xls)",
        _ if bytes.starts_with(b"%PDF") => "a PDF document",
        _ if bytes.contains(&0) => "not text",
        _ => return Ok(()),
    };
    Err(format!("the file is {kind}; save the sheet as CSV in UTF-8"))
}

/// Returns the column of each field in a row.
pub(super) fn columns(record: &Record<'_>) -> Result<Vec<usize>, String> {
    let names: Vec<_> = record.fields.iter().map(Field::text).collect();
    let names: Vec<_> = names.iter().map(|name| name.as_ref().map_or("", |name| name.expose_secret())).collect();
    if names.first().is_some_and(|first| first.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("sep="))) {
        return Err(
            "the first line is a separator line of Excel; remove it, so that the line of column names is the first, \
                    and name the separator with --delimiter if it is not recognised"
                .to_owned(),
        );
    }
    let known: Vec<_> = names.iter().map(|name| Name::of(name)).collect();
    if known.iter().all(|name| matches!(name, Name::Empty | Name::Other)) {
        return Err(match names.as_slice() {
            [one] if one.contains([',', ';', '\t']) => {
                "the first line has another separator than --delimiter names".to_owned()
            }
            _ => format!("the first line does not name the columns: it has to be {}", COLUMNS.join(",")),
        });
    }
    let mut columns = Vec::with_capacity(known.len());
    for (at, name) in known.into_iter().enumerate() {
        let column = name.column().map_err(|why| format!("column {} of the first line {why}", at + 1))?;
        if columns.contains(&column) {
            return Err(format!("the column '{}' is in the first line twice", name_of(column)));
        }
        columns.push(column);
    }
    let missing = (0..COLUMNS.len() - 1).find(|column| !columns.contains(column));
    match missing {
        Some(column) => Err(format!("the column '{}' is missing from the first line", name_of(column))),
        None => Ok(columns),
    }
}

/// What a field of the first line is.
#[derive(Clone, Copy)]
enum Name {
    Column(usize),
    /// This column with white space or an invisible character.
    Blanks(usize),
    /// This column in other letter case.
    Case(usize),
    /// Perhaps this column.
    Misspelt(usize),
    Empty,
    Other,
}

impl Name {
    fn of(name: &str) -> Self {
        let position = |wanted: &dyn Fn(&str) -> bool| COLUMNS.iter().position(|column| wanted(column));
        if let Some(column) = position(&|column| column == name) {
            return Self::Column(column);
        }
        let visible: String =
            name.chars().filter(|it| !it.is_whitespace() && !super::marks::is_invisible(*it)).collect();
        if visible.is_empty() {
            return Self::Empty;
        }
        if let Some(column) = position(&|column| column == visible) {
            return Self::Blanks(column);
        }
        let folded = visible.to_lowercase().replace('-', "_");
        if let Some(column) = position(&|column| column == folded) {
            return Self::Case(column);
        }
        // The nearest, and of equally near ones the first.
        let distance = |column: &str| strsim::damerau_levenshtein(column, &folded);
        let joined = |column: &str| column.replace('_', "") == folded.replace('_', "");
        let nearest = (0..COLUMNS.len()).min_by_key(|column| distance(name_of(*column)));
        match position(&joined).or(nearest.filter(|column| distance(name_of(*column)) <= LETTERS_WRONG_MAX)) {
            Some(column) => Self::Misspelt(column),
            None => Self::Other,
        }
    }

    fn column(self) -> Result<usize, String> {
        match self {
            Self::Column(column) => Ok(column),
            Self::Blanks(column) => Err(format!("is '{}' with white space; remove that", name_of(column))),
            Self::Case(column) => Err(format!("is '{0}' in other letter case; write '{0}'", name_of(column))),
            Self::Misspelt(column) => Err(format!("is not a column; did you mean '{}'?", name_of(column))),
            Self::Empty => Err("is empty; remove that column".to_owned()),
            Self::Other => Err(format!("is none of {}", COLUMNS.join(","))),
        }
    }
}
