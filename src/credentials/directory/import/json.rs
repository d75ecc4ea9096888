//! Rows of a JSON file: an array of objects with the columns as keys.

use std::fmt;

use secrecy::SecretString;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{COLUMNS, Fields, name_of};

/// Returns the objects of the array.
pub(super) fn rows(text: &str) -> Result<Vec<&RawValue>, String> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            format!("the file has to be a JSON array of objects with {}", COLUMNS.join(", "))
        }
        _ => format!("line {}, column {}: this is not JSON", error.line(), error.column()),
    })
}

/// Reads one object.
pub(super) fn json_row(row: &RawValue) -> Result<Fields, String> {
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
    missing.map_or(Ok(members.fields), |column| Err(format!("{} is missing", name_of(column))))
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
            Some(Some(_)) => Err(format!("{name} occurs twice")),
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
